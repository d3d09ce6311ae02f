"""The first run in small: train the miniature on its shipped pairs, compare with its base, look at the report."""

import json

import pytest
from rich.console import Console

from sipo.config import parse_config
from sipo.errors import UsageError, UserError
from sipo.evaluate.compare.files import read_comparison
from sipo.evaluate.compare.run import CompareRequest, PromptChoice, compare_models
from sipo.scorers.choice import ScorerChoice, load_scorer
from sipo.train.loop import train

QUIET = Console(quiet=True)
SCORERS = ScorerChoice(batch_size=4)


def compare(models, choice, out=None, **options) -> str:
    return compare_models(CompareRequest(models, choice, SCORERS, out, **options), QUIET)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    raw = {
        "run": str(tmp_path_factory.mktemp("runs") / "mini"), "model": {"path": "miniature"},
        "data": {"path": "miniature", "max_pairs": 12, "workers": 0}, "loss": {"name": "sipo"},
        "train": {"num_steps": 2, "batch_size": 4, "learning_rate": 1e-2, "sample_every": 0, "validate_every": 0},
        "sample": {"num_inference_steps": 2, "guidance_scale": 4.0}, "log": {"tensorboard": False},
    }  # fmt: skip
    return train(parse_config(raw), QUIET)


def test_a_run_against_its_base_and_again_without_new_pictures(run):
    choice = PromptChoice("miniature", num_prompts=4, images_per_prompt=1, seed=0)
    said = compare([run.path], choice)
    assert "against base" in said
    folder = run.evaluation / choice.name
    (record,) = json.loads((folder / "comparison.json").read_text())["comparisons"]
    assert record["overall"]["num_pairs"] == 4
    assert run.report.is_file()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert len(before) == 8
    compare([run.path], choice)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before


def test_a_run_against_itself_ties(run, tmp_path):
    choice = PromptChoice("miniature", num_prompts=3, images_per_prompt=1, seed=5)
    said = compare([run.path, run.path], choice, tmp_path / "out")
    assert "50.0%" in said
    assert read_comparison(tmp_path / "out")["comparisons"][0]["overall"]["ties"] == 3


def test_two_runs_and_the_base_and_a_folder_that_weights_have_left_behind(run, tmp_path):
    """The base is the same for both; what was made by other weights is made anew beside a comparison."""
    choice, out = PromptChoice("miniature", num_prompts=3, images_per_prompt=1, seed=0), tmp_path / "out"
    said = compare([run.path, run.path], choice, out, with_base=True)
    assert [line.split()[0] for line in said.splitlines()[:4]] == ["Model", "mini", "mini-2", "base"]
    assert "mini wins 50.0% against mini-2" in said
    assert [each["names"] for each in read_comparison(out)["comparisons"]] == [["mini", "mini-2"], ["mini", "base"]]
    settings = json.loads((out / "a-mini" / "settings.json").read_text())
    (out / "a-mini" / "settings.json").write_text(json.dumps(settings | {"weights": "of last week"}))
    (out / "a-mini" / "00000.png").write_bytes(b"old")
    assert compare([run.path, run.path], choice, out, with_base=True) == said
    assert json.loads((out / "a-mini" / "settings.json").read_text()) == settings


def test_new_weights_are_sampled_anew(run):
    from sipo.backbones.opening import open_for_sampling

    base = open_for_sampling(str(run.path), base_only=True).settings
    policy = open_for_sampling(str(run.path)).settings
    assert {key for key in base if base[key] != policy[key]} == {"weights"}
    assert policy["num_inference_steps"] == 2


def test_messages(run, tmp_path):
    choice = PromptChoice("miniature", 1, 1, 0)
    with pytest.raises(UsageError, match="is none of pickscore"):
        load_scorer("beauty")
    with pytest.raises(UserError, match="is no run directory"):
        compare([tmp_path], choice)


@pytest.mark.parametrize(
    ("model", "scorers", "message"),
    [
        ("miniature-video", (), "miniature takes pictures; a CogVideoXPipeline makes videos"),
        ("miniature", ("beauty",), "is none of pickscore"),
    ],
)
def test_scorers_that_cannot_judge_are_refused_before_anything_is_drawn(tmp_path, model, scorers, message):
    """The default scorer of prompts that belong to no miniature is one of pictures."""
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        f"run: {run}\nmodel: {{path: {model}}}\ndata: {{path: {model}}}\nloss: {{name: sipo}}\n"
    )
    choice = PromptChoice(str(tmp_path / "prompts.txt"), 1, 1, 0)
    with pytest.raises(UsageError, match=message):
        compare_models(CompareRequest([run], choice, ScorerChoice(scorers), tmp_path / "out"), QUIET)
    assert not (tmp_path / "out").exists()
