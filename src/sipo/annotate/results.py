"""From ballots to figures: final labels, win rates, strengths, ranks, agreement, abilities, flags."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from sipo.annotate.ability import item_response
from sipo.annotate.ballots import Ballot, Ranking
from sipo.annotate.careless import Flag, Record, all_flags
from sipo.annotate.sequential import sequential_interval
from sipo.annotate.strengths import strengths
from sipo.annotate.votes import LABELS, POINTS, Label, Rule, agreement, two_stage, win_rate
from sipo.evaluate.compare.matches import Comparison, Match, compare_matches
from sipo.evaluate.statistics.bootstrap import bootstrap_mean
from sipo.evaluate.statistics.verdicts import Result, Verdict
from sipo.samples.folder import Sample

RESULTS: dict[Label, Result] = {"a": "win", "b": "loss", "tie": "tie"}
Contest = tuple[str, str, str]  # dimension, "a", "b"
FEW_FOR_ABILITIES = 30  # votes


def counted(ballots: Iterable[Ballot]) -> list[Ballot]:
    """The votes that make results: no duplicates, no check items, nobody who was discarded."""
    return [ballot for ballot in ballots if ballot.kind == "main" and ballot.counts]


def by_contest(ballots: Iterable[Ballot]) -> dict[Contest, dict[tuple[str, int], list[Ballot]]]:
    """The counted votes of each contest by prompt and seed."""
    found: dict[Contest, dict] = defaultdict(partial(defaultdict, list))
    for ballot in counted(ballots):
        found[ballot.contest][ballot.key].append(ballot)
    return {contest: dict(items) for contest, items in found.items()}


def final_label(ballots: Iterable[Ballot], rule: Rule) -> Label:
    """The two-stage majority of the votes on one item."""
    groups: dict[str, list[str]] = defaultdict(list)
    for ballot in ballots:
        groups[ballot.group].append(ballot.opinion)
    return two_stage(groups, rule)


def comparison(
    contest: Contest, items: Mapping[tuple[str, int], Sequence[Ballot]], rule: Rule, folders: Mapping[str, Path]
) -> Comparison:
    """The first system against the second by people, in the form of `sipo compare`.

    folders: of the systems' media; a vote's files lie in them (a system without one gets its files' own paths).
    """
    dimension, *names = contest
    places = [folders.get(name, Path()) for name in names]
    matches = []
    for (prompt, seed), ballots in items.items():
        result = RESULTS[final_label(ballots, rule)]
        files = (_inside(file, place) for file, place in zip(ballots[0].files, places, strict=True))
        a, b = (Sample(file, prompt, seed) for file in files)
        matches.append(Match(Verdict(prompt, seed, result, None, ballots[0].category), (a, b)))
    return compare_matches(matches, f"people, {dimension}", (names[0], names[1]), (places[0], places[1]))


def _inside(file: str, folder: Path) -> str:
    path = Path(file)
    return path.relative_to(folder).as_posix() if file and path.is_relative_to(folder) else file


def single_votes(items: Mapping[tuple[str, int], Sequence[Ballot]], rule: Rule) -> dict:
    """What the final labels hide: the win rate of single votes, agreement, shares of "both bad", the sequential interval."""
    all_votes = [ballot for ballots in items.values() for ballot in ballots]
    by_group: list[list[Label]] = []
    for ballots in items.values():
        groups = defaultdict(list)
        for ballot in ballots:
            groups[ballot.group].append(ballot)
        by_group.append([final_label(each, rule) for each in groups.values()])
    ordered = sorted(items.values(), key=lambda ballots: max(ballot.at for ballot in ballots))
    low, high = sequential_interval([POINTS[final_label(ballots, rule)] for ballots in ordered])
    return {
        "num_votes": len(all_votes),
        "win_rate": win_rate([ballot.opinion for ballot in all_votes]),
        "both_bad": sum(ballot.label == "bad" for ballot in all_votes) / len(all_votes),
        "agreement": _agreement([[b.opinion for b in ballots] for ballots in items.values()]),
        "agreement_of_groups": _agreement(by_group),
        "sequential": [low, high],
    }


def _agreement(labels: Iterable[Sequence[str]]) -> dict[str, float | None]:
    """As `votes.agreement`, None for NaN."""
    found = agreement([[list(each).count(label) for label in LABELS] for each in labels])
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def all_strengths(contests: Mapping[Contest, Mapping], rule: Rule) -> dict[str, list[dict]]:
    """By dimension the Bradley-Terry strengths of its systems, best first, from the final labels; those of more than two."""
    found = {}
    for dimension in dict.fromkeys(contest[0] for contest in contests):
        mine = {contest: items for contest, items in contests.items() if contest[0] == dimension}
        names = list(dict.fromkeys(name for contest in mine for name in contest[1:]))
        if len(names) > 2:
            rows = [
                (names.index(a), names.index(b), POINTS[final_label(ballots, rule)], key)
                for (_, a, b), items in mine.items() for key, ballots in items.items()
            ]  # fmt: skip
            found[dimension] = [
                asdict(s) for s in strengths(names, [row[:3] for row in rows], [row[3] for row in rows])
            ]
    return found


def rank_shares(rankings: Sequence[Ranking]) -> dict[str, dict[str, list[float]]]:
    """dimension -> system -> its share of first places, second places and so on, over all people and prompts."""
    found: dict[str, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for ranking in rankings:
        for rank, system in enumerate(ranking.order):
            found[ranking.dimension][system][rank] += 1
    size = len(rankings[0].order) if rankings else 0
    return {
        dimension: {system: [count[rank] / count.total() for rank in range(size)] for system, count in systems.items()}
        for dimension, systems in found.items()
    }


def people(
    ballots: Sequence[Ballot], able: Mapping[str, dict], due: Mapping[str, int] | None = None, closed: bool = False
) -> list[dict]:
    """Every annotator: votes, median seconds, ability and side bias, flags with their evidence.

    able: of `item_model`. due: how many answers each was asked for; None: as many as were given.
    """
    records = _records(ballots, due)
    flagged = all_flags(records, closed=closed)
    groups = {ballot.annotator: (ballot.group, ballot.counts) for ballot in ballots}
    unknown = {"ability": None, "ability_low": None, "ability_high": None, "side": None}
    return [
        {
            "name": name, "group": groups.get(name, ("", True))[0], "discarded": not groups.get(name, ("", True))[1],
            "num_votes": record.num_answered, "seconds": _median(record.seconds),
            "flags": [asdict(flag) for flag in flagged[name]],
        } | able.get(name, unknown)
        for name, record in records.items()
    ]  # fmt: skip


def item_model(ballots: Sequence[Ballot]) -> tuple[dict[str, dict], list[dict]]:
    """The item-response model's view: of each annotator by name, and of the items, the hardest first.

    Nothing from few votes or people, or where the sides are unknown.
    """
    votes = [ballot for ballot in counted(ballots) if ballot.left]
    if len(votes) < FEW_FOR_ABILITIES or len({ballot.annotator for ballot in votes}) < 3:
        return {}, []
    items = [(*ballot.contest, *ballot.key) for ballot in votes]
    points, left = [POINTS[b.opinion] for b in votes], [b.left == "a" for b in votes]
    found = item_response(items, [b.annotator for b in votes], points, left)
    margin = np.exp(1.96 * found.log_error)
    rows = zip(found.annotators, found.ability, margin, found.side, strict=True)
    able = {
        str(name): {"ability": float(a), "ability_low": float(a / m), "ability_high": float(a * m), "side": float(side)}
        for name, a, m, side in rows
    }
    hard = [
        {"contest": list(item[:3]), "prompt": item[3], "seed": item[4], "difficulty": float(difficulty)}
        for item, difficulty in zip(dict.fromkeys(items), found.difficulty, strict=True)  # as they first occur
    ]
    return able, sorted(hard, key=lambda row: -row["difficulty"])


def flags_of(ballots: Sequence[Ballot], due: Mapping[str, int], closed: bool) -> dict[str, list[Flag]]:
    """The flags of everybody who has voted."""
    return all_flags(
        {name: _record(name, mine, ballots, due) for name, mine in _by_person(ballots).items()}, closed=closed
    )


def _records(ballots: Sequence[Ballot], due: Mapping[str, int] | None) -> dict[str, Record]:
    """By name, those who have not voted yet too."""
    mine = _by_person(ballots)
    names = sorted(mine.keys() | (due or {}).keys())
    return {name: _record(name, mine.get(name, []), ballots, due) for name in names}


def _by_person(ballots: Iterable[Ballot]) -> dict[str, list[Ballot]]:
    found: dict[str, list[Ballot]] = defaultdict(list)
    for ballot in ballots:
        found[ballot.annotator].append(ballot)
    return dict(sorted(found.items()))


def _record(name: str, mine: Sequence[Ballot], ballots: Sequence[Ballot], due: Mapping[str, int] | None) -> Record:
    """What the careless patterns look at. Of a ranking's pairs the sides say which stood further left."""
    answers = {ballot.vote or (ballot.key, ballot.contest, ballot.kind): ballot for ballot in mine}
    main = {(b.contest, b.key): b.opinion for b in mine if b.kind == "main"}
    repeats = [
        main[b.contest, b.key] == b.opinion for b in mine if b.kind == "duplicate" and (b.contest, b.key) in main
    ]
    checks = [b.label == "a" for b in mine if b.kind == "check"]
    decided = [b for b in mine if b.label in ("a", "b") and b.left]
    return Record(
        num_due=(due or {}).get(name, len(answers)), num_answered=len(answers),
        left=[b.label == b.left for b in decided], seconds=[b.seconds for b in answers.values()],
        repeats=repeats, checks=checks, others=_with_others(name, mine, ballots),
    )  # fmt: skip


def _with_others(name: str, mine: Sequence[Ballot], ballots: Sequence[Ballot]) -> list[bool]:
    others: dict[Hashable, Counter] = defaultdict(Counter)
    for ballot in counted(ballots):
        if ballot.annotator != name:
            others[ballot.contest, ballot.key][ballot.opinion] += 1
    found = []
    for ballot in mine:
        count = others.get((ballot.contest, ballot.key), Counter())
        best = max(count, key=lambda label: count[label], default=None)
        if ballot.kind == "main" and best and 2 * count[best] > count.total() >= 2:
            found.append(ballot.opinion == best)
    return found


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def extremes(contests: Mapping[Contest, Mapping], number: int = 6) -> dict[str, list[dict]]:
    """The items on which people agree most and least: {"agreement", "disagreement"}, by the share of the commonest label."""
    rows = []
    for contest, items in contests.items():
        for (prompt, seed), ballots in items.items():
            count = Counter(ballot.opinion for ballot in ballots)
            if count.total() > 1:
                shares = {label: count[label] for label in LABELS}
                rows.append({"contest": list(contest), "prompt": prompt, "seed": seed, "counts": shares,
                             "files": list(ballots[0].files), "share": max(count.values()) / count.total()})  # fmt: skip
    most = sorted(
        (row for row in rows if row["counts"]["tie"] < row["share"] * sum(row["counts"].values())),
        key=lambda row: -row["share"],
    )
    return {"agreement": most[:number], "disagreement": sorted(rows, key=lambda row: row["share"])[:number]}


def scorer_accuracy(
    contests: Mapping[Contest, Mapping], scores: Mapping[str, Mapping[str, float]], rule: Rule
) -> list[dict]:
    """How often each scorer prefers what the people prefer, over items that neither ties: with intervals over prompts.

    scores: scorer -> absolute path of a file -> its score.
    """
    found = []
    for scorer, known in scores.items():
        for contest, items in contests.items():
            right, prompts = [], []
            for key, ballots in items.items():
                label, values = final_label(ballots, rule), [known[file] for file in ballots[0].files if file in known]
                if label != "tie" and len(values) == 2 and values[0] != values[1]:
                    right.append(float((values[0] > values[1]) == (label == "a")))
                    prompts.append(key[0])
            if right:
                found.append(
                    {"scorer": scorer, "contest": list(contest), "num_items": len(right)}
                    | asdict(bootstrap_mean(right, prompts))
                )
    return found
