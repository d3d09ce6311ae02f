"""From votes to figures to pairs: right to the vote, for studies of simulated people of known truth."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.studies import small_study

from sipo.annotate.ballots import OVERALL, Ballot, ballots_csv, read_ballots, read_csv
from sipo.annotate.export import export
from sipo.annotate.people import discard
from sipo.annotate.report import Votes, report, results_record
from sipo.annotate.results import by_contest, extremes, final_label
from sipo.annotate.store import open_store
from sipo.annotate.study import Plan, read_study
from sipo.annotate.tables import GIVEN_VOTES, SLOTS
from sipo.annotate.votes import POINTS, win_rate
from sipo.data.pairs.check import check_pairs
from sipo.data.pairs.open import open_pairs
from sipo.errors import UsageError, UserError
from sipo.evaluate.statistics.bootstrap import bootstrap_mean


def vote_all(root: Path, choose) -> None:
    """Everybody votes: choose(name, slot, item, number) gives a system's number, "tie" or "bad", or for a ranking an answer.

    All in one transaction: one sync for all.
    """
    study, votes = read_study(root), []
    with open_store(root, study) as store:
        for name, _ in study.plan.annotators():
            for n, slot in enumerate(store.open_slots(name, 9999)):
                item, sides = study.items[slot.item], json.loads(slot.sides)
                answer = choose(name, slot, item, n)
                if isinstance(answer, int):
                    answer = ("left", "right")[sides.index(answer)]
                vote = {"id": f"{slot.id:032x}", "slot": slot.id, "answer": json.dumps(answer)}
                votes.append(vote | {"seconds": 4.0 + n % 3, "at": 1000.0 + len(votes)})
        with store.writing() as c:
            c.execute(GIVEN_VOTES.insert(), votes)
            c.execute(SLOTS.update().values(state="done"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory) -> Path:
    """8 prompts, 2 groups of 3: prompts 0-3 go to s60 by all, 4 and 5 to s180 by all, 6 splits, 7 is tied."""
    root = small_study(tmp_path_factory.mktemp("judged"), 8, plan=Plan(2, 3, 3))

    def choose(name, slot, item, n):
        prompt = int(item.prompt.split()[1])
        if prompt == 6:
            return 0 if name.startswith("g1") else 1
        return 0 if prompt < 4 else 1 if prompt < 6 else "tie"

    vote_all(root, choose)
    return root


def record(root: Path) -> dict:
    return json.loads((root / "report" / "report.json").read_text())


def test_the_report_is_right_to_the_vote(judged):
    text = report(judged)
    found = record(judged)
    overall = found["contest"]["comparisons"][0]["overall"]
    assert (overall["wins"], overall["ties"], overall["losses"]) == (4, 2, 2)
    assert overall["win_rate"]["value"] == 5 / 8
    assert found["votes"][0]["num_votes"] == 48
    assert found["votes"][0]["win_rate"] == pytest.approx((24 + 3 + 3) / 48)
    assert found["num_votes"] == 48
    assert "s60 wins 62.5% against s180" in text
    assert {name: (c["wins"], c["ties"], c["losses"]) for name, c in found["contest"]["comparisons"][0]["categories"].items()} == {
        "animals": (2, 1, 1), "food": (2, 1, 1),
    }  # fmt: skip
    low, high = found["votes"][0]["sequential"]
    assert low < overall["win_rate"]["low"] < 5 / 8 < overall["win_rate"]["high"] < high


def test_the_page_shows_it_and_needs_nothing_else(judged):
    report(judged)
    page = (judged / "report" / "report.html").read_text()
    assert "62.5%" in page
    assert "prompt 6" in page
    assert "g2-3" in page
    assert 'src="http' not in page
    assert (judged / "report" / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_every_vote_is_in_the_csv_and_reads_back(judged):
    report(judged)
    path = judged / "report" / "votes.csv"
    with open_store(judged, read_study(judged)) as store:
        ballots, _ = read_ballots(store)
    with path.open() as file:
        assert len(list(csv.DictReader(file))) == 48
    again = read_csv(path)
    assert [(b.prompt, b.label, b.annotator, b.group, b.systems, b.files, b.left, b.kind) for b in again] == [
        (b.prompt, b.label, b.annotator, b.group, b.systems, b.files, b.left, b.kind) for b in ballots
    ]
    text = report(path)
    assert "s60 wins 62.5% against s180" in text


def test_the_export_has_the_majority_and_its_share(judged, tmp_path):
    out = judged.parent / "pairs.jsonl"
    assert export(judged, out) == f"6 pairs: {out}; left out: 2 ties"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    for line in lines:
        first = int(line["prompt"].split()[1]) < 4
        assert line["chosen"].startswith("s60/" if first else "s180/")
        assert line["strength"] == 1.0
    assert len(check_pairs(out, progress=False).usable) == 6
    export(judged, out, ties="half")
    assert Counter(open_pairs(out)[n].strength for n in range(8)) == {1.0: 6, 0.5: 2}
    with pytest.raises(UsageError):
        export(judged, tmp_path / "pairs.parquet")
    with pytest.raises(UsageError, match="dimension"):
        export(judged, out, dimension="colour")


def test_strength_is_the_share_of_single_votes(tmp_path):
    root = small_study(tmp_path, 4, plan=Plan(1, 5, 5))
    vote_all(root, lambda name, slot, item, n: {"g1-1": 1, "g1-2": "tie"}.get(name, 0))
    export(root, tmp_path / "pairs.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [line["strength"] for line in lines] == [0.7] * 4  # 3 wins, a tie and a loss


def test_discarded_votes_duplicates_and_checks_do_not_count(tmp_path):
    root = small_study(tmp_path, 8, plan=Plan(1, 3, 3, duplicates=2), checks=2)
    vote_all(root, lambda name, slot, item, n: "left" if slot.kind == "check" else 1 if name == "g1-3" else 0)
    study = read_study(root)
    with open_store(root, study) as store:
        ballots, _ = read_ballots(store)
        assert len(ballots) == 3 * 12
        ((contest, items),) = by_contest(ballots).items()
        assert contest == (OVERALL, "s60", "s180")
        assert sum(map(len, items.values())) == 24
        discard(store, "g1-3")
        ballots, _ = read_ballots(store)
        assert sum(map(len, by_contest(ballots)[contest].values())) == 16
    report(root)
    assert record(root)["votes"][0]["win_rate"] == 1.0


def test_planted_careless_people_are_flagged_in_the_report(tmp_path):
    root = small_study(tmp_path, 40, plan=Plan(3, 4, 4, duplicates=6), checks=4)
    rng = np.random.default_rng(0)

    def choose(name, slot, item, n):
        if name == "g3-4":
            return "left"
        if name == "g3-3":
            return ("left", "right")[rng.integers(2)]
        if item.worst is not None:
            return ("left", "right")[json.loads(slot.sides).index(0)]
        better = int(item.prompt.split()[1]) % 2
        return better if rng.random() < 0.9 else 1 - better

    vote_all(root, choose)
    text = report(root)
    flagged = {p["name"]: {f["kind"] for f in p["flags"]} for p in record(root)["people"]}
    assert "side" in flagged["g3-4"]
    assert flagged["g3-3"]
    careful = flagged.keys() - {"g3-3", "g3-4"}
    assert not any(flagged[name] for name in careful)
    assert "flag: g3-4: chose the left side in 50 of 50" in text
    able = {p["name"]: p for p in record(root)["people"]}
    assert able["g3-4"]["side"] > 1.5
    assert able["g3-3"]["ability"] < min(able[name]["ability"] for name in careful)


def test_three_systems_are_ordered_by_strength(tmp_path):
    root = small_study(tmp_path, 12, levels=(40, 120, 200), plan=Plan(1, 3, 3))
    rng = np.random.default_rng(0)
    vote_all(root, lambda name, slot, item, n: int(rng.random() < 0.75))  # the later system, three times of four
    report(root)
    found = record(root)["strengths"][OVERALL]
    assert [each["name"] for each in found] == ["s200", "s120", "s40"]
    assert all(each["low"] < each["value"] < each["high"] for each in found)
    assert len(record(root)["contest"]["comparisons"]) == 3


def test_rankings_give_shares_pairs_and_a_figure(tmp_path):
    root = small_study(
        tmp_path, 6, levels=(40, 120, 200), plan=Plan(1, 2, 2), mode="ranking", dimensions=("text", "quality"), checks=1
    )

    def choose(name, slot, item, n):
        sides = json.loads(slot.sides)
        order = [sides.index(place) for place in (2, 1, 0)]  # s200, then s120, then s40
        return {
            "text": order if item.worst is None else order[::-1],
            "quality": order if name == "g1-1" else order[::-1],
        }

    vote_all(root, choose)
    text = report(root)
    found = record(root)
    assert found["ranks"]["text"] == {"s200": [1, 0, 0], "s120": [0, 1, 0], "s40": [0, 0, 1]}
    assert found["ranks"]["quality"]["s200"] == [0.5, 0, 0.5]
    assert len(found["contest"]["comparisons"]) == 6  # three pairs on two dimensions
    assert "s40 wins 0.0% against s200 by people, text" in text
    assert [s["name"] for s in found["strengths"]["text"]] == ["s200", "s120", "s40"]
    assert export(root, tmp_path / "pairs.jsonl", dimension="text").startswith("18 pairs")
    with pytest.raises(UserError, match="no pair"):
        export(root, tmp_path / "pairs.jsonl")  # the last dimension: everything is tied


def test_both_bad_is_a_tie_and_no_pair(tmp_path):
    root = small_study(tmp_path, 4, plan=Plan(1, 3, 3), both_bad=True)
    vote_all(root, lambda name, slot, item, n: "bad" if item.prompt == "prompt 0" else 0)
    report(root)
    overall = record(root)["contest"]["comparisons"][0]["overall"]
    assert (overall["wins"], overall["ties"]) == (3, 1)
    assert record(root)["votes"][0]["both_bad"] == 0.25
    assert "1 bad on both sides" in export(root, tmp_path / "pairs.jsonl", ties="half")


def test_a_scorer_is_compared_with_the_people(tmp_path):
    root = small_study(tmp_path, 6)
    vote_all(root, lambda name, slot, item, n: 0)
    from sipo.evaluate.scores.files import content_hash
    from sipo.samples.folder import read_samples

    for folder, values in (("s60", [1, 1, 1, 1, 0, 0]), ("s180", [0, 0, 0, 0, 1, 0])):
        lines = [
            {"file": s.file, "hash": content_hash(tmp_path / folder, s), "score": value, "scorer": None}
            for s, value in zip(read_samples(tmp_path / folder), values, strict=True)
        ]
        (tmp_path / folder / "scores.mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report(root)
    (found,) = record(root)["scorers"]
    assert (found["scorer"], found["num_items"], found["value"]) == ("mine", 5, 0.8)


def test_who_left_items_unanswered_is_flagged_once_the_study_is_closed(tmp_path):
    root = small_study(tmp_path, 4, plan=Plan(1, 3, 3))
    with open_store(root, read_study(root)) as store:
        for name in ("g1-1", "g1-2"):
            for slot in store.open_slots(name, 4 if name == "g1-1" else 2):
                store.vote(name, slot.id, f"{slot.id:032x}", "tie", 3.0)
        report(root)
        assert not any(person["flags"] for person in record(root)["people"])
        store.set_state("closed")
    report(root)
    flagged = {p["name"]: [f["evidence"] for f in p["flags"]] for p in record(root)["people"]}
    assert flagged == {"g1-1": [], "g1-2": ["2 of 4 items answered"], "g1-3": ["0 of 4 items answered"]}


def test_items_are_ordered_by_difficulty(tmp_path):
    root = small_study(tmp_path, 8, plan=Plan(1, 6, 6))
    vote_all(root, lambda name, slot, item, n: int(name[-1]) % 2 if item.prompt == "prompt 5" else 0)
    report(root)
    items = record(root)["items"]
    assert items[0]["prompt"] == "prompt 5"
    assert items[0]["difficulty"] > items[1]["difficulty"] + 0.05


def test_without_votes_there_is_a_message(tmp_path):
    with pytest.raises(UserError, match="no vote"):
        report(small_study(tmp_path, 3))


def test_win_rates_of_simulated_studies_cover_the_truth(tmp_path):
    """100 studies through the whole path from ballots to the interval: people of known taste, two careless ones among them."""
    covered, truth = 0, []
    studies = [simulated(np.random.default_rng(seed)) for seed in range(140)]
    for ballots in studies[100:]:  # the true final win rate, from further studies of the same people
        (items,) = by_contest(ballots).values()
        truth += [final_label(each, "tie") for each in items.values()]
    for ballots in studies[:100]:
        (items,) = by_contest(ballots).values()
        points = [POINTS[final_label(each, "tie")] for each in items.values()]
        rate = bootstrap_mean(points, list(items), num_resamples=1000)
        covered += rate.low <= win_rate(truth) <= rate.high
    assert covered >= 93


def simulated(rng: np.random.Generator, items: int = 100) -> list[Ballot]:
    ballots = []
    for n, p in enumerate(rng.beta(2.6, 1.9, items)):
        for person in range(9):
            careless = person == 8
            label = "a" if rng.random() < (0.5 if careless else p) else "b"
            ballots.append(
                Ballot(f"p{n}", 0, ("x", "y"), "tie" if rng.random() < 0.1 else label, f"{person}", str(person // 3))
            )
    return ballots


def test_extremes_name_the_items_people_agree_on_and_do_not():
    ballots = [Ballot("sure", 0, ("x", "y"), "a", str(n)) for n in range(6)]
    ballots += [Ballot("split", 0, ("x", "y"), "ab"[n % 2], str(n)) for n in range(6)]
    found = extremes(by_contest(ballots))
    assert found["agreement"][0]["prompt"] == "sure"
    assert found["disagreement"][0]["prompt"] == "split"
    assert found["disagreement"][0]["counts"] == {"a": 3, "b": 3, "tie": 0}


def test_a_csv_that_cannot_be_read_names_every_line(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("prompt,system_a,system_b,label,annotator\np,x,y,x,me\np,x,y,maybe,me\n,x,y,a,me\n")
    with pytest.raises(UserError, match=r"line 3: the label is 'maybe'[\s\S]*line 4: nothing under prompt"):
        read_csv(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no column prompt"):
        read_csv(path)
    path.write_text("prompt,system_a,system_b,label,annotator\np,x,y,x,me\np,x,y,tie,me\n")
    assert [ballot.label for ballot in read_csv(path)] == ["a", "tie"]
    assert "," in ballots_csv(read_csv(path))
    record = results_record(Votes("mine", read_csv(path)), "tie", tmp_path)
    assert record["num_votes"] == 2
