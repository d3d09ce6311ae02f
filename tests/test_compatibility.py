"""What version 0.1.0 wrote still resumes, loads and compares: one run, a sharded one, a cache and a comparison.

fixtures/v0.1 was made by that version: both configs were trained for two steps, and `expected` holds what it made of two
more. The model has random weights; the pairs are noise.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from support.folders import contents
from support.runs import train_in_two

from sipo.backbones.opening import open_for_sampling
from sipo.config import load_config
from sipo.evaluate.compare.files import read_comparison
from sipo.evaluate.report.report import report, summary
from sipo.run import RunDir
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.train.checkpoint import load_checkpoint
from sipo.train.loop import train

FIXTURES = Path(__file__).parent / "fixtures" / "v0.1"
QUIET = Console(quiet=True)


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A copy of the old files, as the working directory: their configs name relative paths."""
    shutil.copytree(FIXTURES, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def assert_as_expected(run: RunDir) -> None:
    """Weights and their average at step 4, and the metrics of steps 3 and 4.

    Another processor rounds differently, hence the tolerances; on the machine that made the files they are equal.
    """
    expected = RunDir(Path("expected") / run.path.name)
    mine, theirs = (load_checkpoint(each.checkpoints, 4) for each in (run, expected))
    for ours, others in ((mine.weights, theirs.weights), (mine.ema, theirs.ema)):
        assert ours.keys() == others.keys()
        assert all((ours[name] - others[name]).abs().max() < 1e-5 for name in ours)
    lines, others = ([line for line in each.read_metrics() if line["step"] > 2] for each in (run, expected))
    assert [(line["kind"], line["step"]) for line in lines] == [(line["kind"], line["step"]) for line in others]
    for line, other in zip(lines, others, strict=True):
        for key in {"loss", "reward_gap", "grad_norm", "w_chosen", "mse_policy_rejected"} & other.keys():
            assert line[key] == pytest.approx(other[key], rel=1e-2, abs=1e-3), (key, other["step"])


def test_a_run_resumes_on_its_cache(old):
    cache = contents(old / "cache")
    train(load_config("train.yaml", ["train.num_steps=4"]), QUIET)
    after = contents(old / "cache")
    assert after.pop("verified.json")
    assert after == cache
    assert_as_expected(RunDir(Path("run")))


def test_a_sharded_run_resumes_in_two_processes(old):
    assert train_in_two(load_config("sharded.yaml", ["train.num_steps=4"]).to_dict()) == [0, 0]
    assert_as_expected(RunDir(Path("sharded")))


def test_the_report_shows_the_comparison(old):
    run = RunDir(Path("run"))
    report(run)
    assert "75.0%" in summary(run)
    page = run.report.read_text(encoding="utf-8")
    assert "75.0%" in page
    assert "Is it more than chance?" in page


def test_a_comparison_of_several_models_is_read_as_it_is_written_now(old):
    """Version 0.1.0 nested the others in the first, and called the scorers' settings judges."""
    folder = old / "run" / "evaluation" / "words-4x1-seed0"
    first = json.loads((folder / "comparison.json").read_text())
    table = first.pop("table")
    nested = first | {
        "judges": [[{"weights": "w"}], []],
        "table": table,
        "more": [first | {"names": ["policy", "other"]}],
    }
    (folder / "comparison.json").write_text(json.dumps(nested))
    record = read_comparison(folder)
    assert record.keys() == {"comparisons", "table"}
    assert record["table"] == table
    assert [each["names"] for each in record["comparisons"]] == [first["names"], ["policy", "other"]]
    assert [each["scorer_settings"] for each in record["comparisons"]] == [[[{"weights": "w"}], []], first["judges"]]
    assert [each["overall"] for each in record["comparisons"]] == [first["overall"]] * 2
    run = RunDir(Path("run"))
    report(run)
    page = run.report.read_text(encoding="utf-8")
    assert "Mean scores" in page
    assert "Against other" in page


def test_the_weights_draw_the_same_picture(old):
    """The samples of step 2 were drawn with the moving average, which is what `weights` holds."""
    opened = open_for_sampling("run")
    drawn = generate(opened.sampler, [PromptItem("prompt 2", 0)], old / "drawn", opened.settings, 1, QUIET)
    mine, theirs = (np.asarray(Image.open(path / "00000.png"), int) for path in (drawn, old / "run/samples/000002"))
    assert abs(mine - theirs).max() <= 2
