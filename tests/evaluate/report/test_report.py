import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from PIL import Image
from support.synthetic_run import CONFIG, ColourScorer, draw, prompt_items, scored_side, write_evaluation

from sipo.errors import UserError
from sipo.evaluate.compare.contest import Contest, contest
from sipo.evaluate.compare.files import write_contest
from sipo.evaluate.compare.matches import Match, compare_matches
from sipo.evaluate.report import report as report_module
from sipo.evaluate.report.contents import read_all_scores, read_evaluations, score_curves
from sipo.evaluate.report.panels import BY_TIMESTEP, TRAINING, VALIDATION
from sipo.evaluate.report.report import report, summary
from sipo.evaluate.scores.files import content_hash, read_scores, scores_path
from sipo.evaluate.scores.score import score
from sipo.evaluate.statistics.verdicts import Verdict
from sipo.run import RunDir
from sipo.samples.folder import read_samples
from sipo.samples.generate import generate

HEADINGS = ("Before and after", "Numbers", "Is it more than chance?", "Scores", "Samples over training", "Training", "By timestep", "Validation", "Speed", "Settings",
            "Data", "Environment")  # fmt: skip
VOID = {"meta", "img", "br"}
NASTY = '<script>alert("1")</script><img src=x onerror=alert(1)> & "quotes"'


class Page(HTMLParser):
    """Every tag, address and id of a page; fails on tags that do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.addresses, self.ids, self.text = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="session")
def page(whole_run) -> str:
    return report(whole_run).read_text(encoding="utf-8")


def light_copy(whole_run, tmp_path) -> RunDir:
    """The run with a single curve to draw, to save time."""
    shutil.copytree(whole_run.path, tmp_path / "copy", ignore=shutil.ignore_patterns("plots"))
    run = RunDir(tmp_path / "copy")
    lines = [{"kind": "train", "step": step, "loss": 1 / step, "seconds": {"total": 1.0}} for step in (1, 2, 3)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_the_page_is_well_formed_and_fetches_nothing(page):
    parsed = Page(page)
    outside = [a for a in parsed.addresses if not a.startswith(("data:image/", "#"))]
    assert outside == []
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert not re.search(r"@import|url\((?!#)", page)


def test_its_ids_are_unique_and_its_links_lead_somewhere(page):
    parsed = Page(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    targets = {address[1:] for address in parsed.addresses if address.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= set(parsed.ids)


def test_it_holds_every_section_and_the_headline(page, whole_run):
    rate = read_evaluations(whole_run)["heldout"]["comparisons"][0]["overall"]["win_rate"]
    text = " ".join("".join(Page(page).text).split())
    assert f"wins {100 * rate['value']:.1f}% of 24 comparisons" in text
    assert f"95% interval {100 * rate['low']:.1f}% to {100 * rate['high']:.1f}%" in text
    for heading in (*HEADINGS, "The rewards of chosen and rejected fall together."):
        assert heading in text
    assert "policy 0.36 s (69%)" in text
    assert "prune_threshold0.9" in text.replace(" ", "")


def test_every_pair_is_in_the_page_once(page, whole_run):
    for pair in read_evaluations(whole_run)["heldout"]["comparisons"][0]["pairs"]:
        in_strip = pair["seed"] <= 103
        assert page.count(f'class="prompt">{pair["prompt"]}<') == 1 + in_strip


def test_what_was_asked_before_after_and_the_shares_come_before_the_warnings(page, whole_run):
    comparison = read_evaluations(whole_run)["heldout"]["comparisons"][0]
    top = page[: page.index('class="notices"')]
    drawn = sorted(np.random.default_rng(0).permutation(len(comparison["pairs"]))[:12])[:4]
    assert [comparison["pairs"][place]["prompt"] for place in drawn] == re.findall(r'class="prompt">([^<]+)<', top)
    assert top.count('<div class="frame') == 8
    for name, sides in (("all", comparison["overall"]), *comparison["categories"].items()):
        now, before = sides["details"]["correct"]
        assert f"<span>{name.replace('_', ' ')}</span>" in top
        assert f"{100 * before:.0f}% → {100 * now:.0f}%</span>" in top


def test_the_scores_in_the_run_are_in_a_table(page, whole_run):
    text = " ".join(" ".join(Page(page).text).split())
    for side in ("policy", "base"):
        folder = whole_run.evaluation / "heldout" / side
        values = [json.loads(line)["score"] for line in scores_path(folder, "colour").read_text().splitlines()]
        found = re.search(rf"evaluation/heldout/{side} colour 24 (\S+) (\S+) – (\S+) 0 ", text)
        mean, low, high = map(float, found.groups())
        assert low < mean < high
        assert mean == pytest.approx(np.mean(values), abs=5e-5)


def test_scores_of_several_steps_become_a_curve(whole_run, tmp_path):
    run = light_copy(whole_run, tmp_path)
    steps = run.sample_steps()
    for step in steps[:2]:
        score(run.samples / f"{step:06d}", ColourScorer())
    lines = score_curves(run, read_all_scores(run))["colour"]
    assert [line["step"] for line in lines] == steps[:2]
    means = [np.mean([s.value for s in read_scores(run.samples / f"{step:06d}", "colour")]) for step in steps[:2]]
    assert [line["score"] for line in lines] == pytest.approx(means)
    assert "Score: colour" in "".join(Page(report(run).read_text()).text)
    assert Image.open(run.path / "plots" / "score-colour.png").size[0] > 500
    shutil.rmtree(run.samples / f"{steps[0]:06d}")
    assert score_curves(run, read_all_scores(run)) == {}


class Redness:
    name = "red <ness>"

    def __call__(self, images, prompts, metadata=None):
        return [float(np.asarray(image)[..., 0].mean()) for image in images]


def test_a_comparison_by_several_scorers_is_shown_whole(whole_run, tmp_path):
    run = light_copy(whole_run, tmp_path)
    folder = run.evaluation / "heldout"
    scorers = ("colour", Redness.name)
    for name in ("policy", "base"):
        score(folder / name, Redness())
    write_contest(contest([scored_side(folder / name, *scorers) for name in ("policy", "base")], scorers), folder)
    text = " ".join("".join(Page(report(run).read_text()).text).split())
    for words in (
        "Mean scores",
        "Against base, by colour",
        "Against base, by red <ness>",
        "Holm's method for 2 comparisons",
    ):
        assert words in text
    for scorer in ("colour", Redness.name):
        assert re.search(rf"policy wins \d+\.\d% against base by {scorer} \(95% interval", summary(run))


def test_a_comparison_by_votes_is_shown_without_differences(whole_run, tmp_path):
    run = light_copy(whole_run, tmp_path)
    folder = run.evaluation / "heldout"
    a, b = (folder / name for name in ("policy", "base"))
    matches = [
        Match(Verdict(s.prompt, s.seed, result), (s, t))
        for s, t, result in zip(read_samples(a), read_samples(b), ["win", "win", "tie", "loss"] * 6, strict=True)
    ]
    write_contest(Contest((compare_matches(matches, "people", ("policy", "base"), (a, b)),)), folder)
    text = " ".join("".join(Page(report(run).read_text()).text).split())
    for words in ("wins 62.5% of 24 comparisons", ", by people.", "Against base, by people", "Where policy wins"):
        assert words in text
    assert "None" not in text
    assert "policy wins 62.5% against base (95% interval" in summary(run)


def test_every_plot_is_a_png_as_well(page, whole_run):
    names = {panel.name for panel in (*TRAINING, *BY_TIMESTEP, *VALIDATION)}
    files = sorted((whole_run.path / "plots").glob("*.png"))
    assert {path.stem for path in files} == names
    assert all(Image.open(path).size[0] > 500 for path in files)


@pytest.mark.parametrize("missing", ["env.json", "data.json", "metrics.jsonl", "samples", "evaluation"])
def test_any_part_may_be_missing(whole_run, tmp_path, missing):
    run = light_copy(whole_run, tmp_path)
    path = run.path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    Page(report(run).read_text())


def test_a_config_alone_gives_a_report(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    text = "".join(Page(report(RunDir(tmp_path)).read_text()).text)
    assert "No training step is recorded yet." in text
    assert "not been compared with its base" in text
    assert not (tmp_path / "plots").exists()
    assert "0 of 600 steps" in summary(RunDir(tmp_path))


def test_supervised_training_has_no_preference_curves(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "loss": {"name": "sft"}}))
    lines = [{"kind": "train", "step": s, "loss": 1 / s, "mse_policy_chosen": 1 / s} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(RunDir(tmp_path)).read_text()
    assert "SFT ran for 3 of 600 steps" in page
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"loss", "error-chosen"}


def test_texts_of_users_are_escaped(whole_run, tmp_path):
    run = light_copy(whole_run, tmp_path)
    run.config.write_text(yaml.safe_dump({**CONFIG, "model": {"path": NASTY}, "extra": {NASTY: [NASTY]}}))
    run.env.write_text(json.dumps({"command": NASTY}))
    run.data.write_text(
        json.dumps({"counts": {NASTY: 1}, "problems": [{"row": NASTY, "kind": NASTY, "detail": NASTY}]})
    )
    with run.metrics.open("a") as file:
        file.write(json.dumps({"kind": "warning", "step": 1, "message": NASTY}) + "\n")
    for path in (run.samples / "000000" / "samples.jsonl", run.samples / "000060" / "samples.jsonl"):
        path.write_text(path.read_text().replace("number 0", json.dumps(NASTY)[1:-1]))
    comparison = run.evaluation / "heldout" / "comparison.json"
    whole = json.loads(comparison.read_text())
    (record,) = whole["comparisons"]
    record["names"], record["scorer"] = [NASTY, NASTY], NASTY
    record["categories"] = {NASTY: record["overall"]}
    record["pairs"][0]["prompt"] = record["pairs"][0]["sides"][0]["file"] = NASTY
    record["pairs"][1]["sides"][0]["details"]["reasons"] = [NASTY]
    comparison.write_text(json.dumps(whole))
    page = report(run).read_text()
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert "x" not in parsed.addresses
    assert page.count("&lt;script&gt;") >= 8


def test_damaged_files_are_named(whole_run, tmp_path):
    run = light_copy(whole_run, tmp_path)
    run.env.write_text('{"device": ')
    with pytest.raises(UserError, match=r"env\.json is not JSON"):
        report(run)
    run.env.unlink()
    (run.evaluation / "heldout" / "comparison.json").write_text("[")
    with pytest.raises(UserError, match=r"comparison\.json is not JSON"):
        report(run)


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no config\.yaml"):
        report(RunDir(tmp_path))


def test_long_runs_and_large_pictures_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 8_001):
            line = {
                "kind": "train",
                "step": step,
                "loss": rng.random(),
                "reward_chosen": 0,
                "reward_rejected": rng.random(),
            }
            file.write(json.dumps(line) + "\n")
    write_evaluation(tmp_path, 3, size=300)
    assert report(RunDir(tmp_path)).stat().st_size < 500_000


def moving(noise):
    """A sampler of videos: four frames of a shape under noise."""
    return lambda prompts, seeds: [[draw("red", "circle", seed + t, noise) for t in range(4)] for seed in seeds]


def test_a_run_of_videos_shows_sheets_and_videos(tmp_path, monkeypatch):
    run = RunDir(tmp_path)
    run.config.write_text(yaml.safe_dump(CONFIG))
    for step in (0, 10):
        generate(moving(step), prompt_items(2), run.samples / f"{step:06d}", {"fps": 8})
    folder = run.evaluation / "heldout"
    for name, value in (("policy", 1.0), ("base", 0.0)):
        out = generate(moving(value), prompt_items(3), folder / name, {"fps": 8})
        lines = [{"file": s.file, "hash": content_hash(out, s), "score": value} for s in read_samples(out)]
        scores_path(out, "votes").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_contest(contest([scored_side(folder / name, "votes") for name in ("policy", "base")], ["votes"]), folder)
    page = report(run).read_text()
    for path, count in ((run.report, 2 * 3 + 2 * 2), (folder / "comparison.html", 2 * 3)):
        parsed = Page(path.read_text())
        assert (parsed.tags.count("video"), parsed.tags.count("img")) == (count, count)
        assert all(a.startswith(("data:image/", "data:video/mp4;", "#")) for a in parsed.addresses)
    assert "unreadable" not in page
    assert page.count("controls muted loop") == 10
    assert page.count("playsinline autoplay") == 2 * 3
    monkeypatch.setattr(report_module, "STRIP_VIDEOS", 1)
    assert Page(report(run).read_text()).tags.count("video") == 2 * 3 + 1


def test_summary_is_short_and_says_the_main_things(page, whole_run):
    lines = summary(whole_run).splitlines()
    assert len(lines) <= 5
    assert lines[0] == "SIPO on miniature: 60 of 600 steps"
    assert re.search(r"policy wins \d+\.\d% against base \(95% interval", lines[1])
    assert "lowest held-out loss" in lines[2]
    assert str(whole_run.report) in lines[-1]
