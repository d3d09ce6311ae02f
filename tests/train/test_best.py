"""The best weights by a held-out score: found, kept through kills, exported; and a stop where the score stops rising."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from support.configs import changed
from support.runs import QUIET, assert_same_results, train_in_process, train_in_two, train_raw

from sipo.config import KeepBest, parse_config
from sipo.errors import UsageError
from sipo.evaluate.report.report import report, summary
from sipo.run import RunDir
from sipo.train.best import Best
from sipo.train.checkpoint import load_checkpoint
from sipo.train.export import export
from sipo.train.opening import open_training


@pytest.fixture
def raw(raw_config):
    """Scored after every step; checkpoints after every third, so that the best step lies between two of them."""
    return changed(
        raw_config, "train.num_steps=6", "train.checkpoint_every=3", "train.keep_checkpoints=9", "data.validation=0.3",
        "train.learning_rate=0.02", "sample.guidance_scale=1.0", "policy.rank=2",
        "train.keep_best={scorer: 'support.scorers:Brightness', every: 1, num_prompts: 3, images_per_prompt: 2}",
    )  # fmt: skip


def scores(run: RunDir) -> dict[int, float]:
    return {line["step"]: line["score"] for line in run.read_metrics("score")}


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_weights_of_the_best_score_are_the_result(raw, tmp_path, ema):
    run = train_raw(changed(raw, f"train.ema_decay={json.dumps(ema)}", "train.checkpoint_every=1"))
    found = scores(run)
    assert list(found) == [0, 1, 2, 3, 4, 5, 6]
    assert len(set(found.values())) > 3
    best = max(found, key=lambda step: found[step])
    record = json.loads((run.weights / "sipo.json").read_text())
    assert record["step"] == best
    if best:
        assert export(run, best, tmp_path / "at") == best
        mine, theirs = (load_file(*folder.glob("*.safetensors")) for folder in (run.weights, tmp_path / "at"))
        assert all(mine[name].equal(theirs[name]) for name in theirs)
    assert export(run, None, tmp_path / "best", best=True) == best
    assert export(run, None, tmp_path / "newest") == 6
    assert f"step {best}" in summary(run)


def test_the_score_is_that_of_samples_of_held_out_prompts(raw, tiny_sd):
    config = parse_config(changed(raw, "train.num_steps=2", "train.keep_best.every=2"))
    with open_training(config, QUIET) as t:
        assert t.best is not None
        prompts, held_out = t.best.prompts, set(t.validation.source.prompts(t.validation.usable))
    run = train_raw(config.to_dict())
    assert {item.prompt for item in prompts} <= held_out
    assert len({item.seed for item in prompts}) == len(prompts) == 2 * min(3, len(held_out))
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(
        [item.prompt for item in prompts], num_inference_steps=2, guidance_scale=1.0, height=16, width=16,
        generator=[torch.Generator().manual_seed(item.seed) for item in prompts],
    ).images  # fmt: skip
    expected = np.mean([np.asarray(picture.convert("L")).mean() / 255 for picture in pictures])
    assert scores(run)[0] == pytest.approx(expected, abs=2e-3)


def test_killed_and_resumed_it_keeps_the_same_best(raw, tmp_path):
    unbroken, killed = (changed(raw, f"run={tmp_path / name}") for name in ("unbroken", "killed"))
    assert train_in_process(unbroken) == 0
    for step in (2, 5):
        assert train_in_process(killed, kill_after_step=step) == -9
    assert train_in_process(killed) == 0
    runs = RunDir(killed["run"]), RunDir(unbroken["run"])
    assert_same_results(*runs, steps=[3, 6])
    first, second = ({file.name: load_file(file) for file in run.best.iterdir()} for run in runs)
    assert first.keys() == second.keys()
    assert all(first[name][key].equal(second[name][key]) for name in first for key in first[name])


def test_weights_are_kept_as_long_as_a_resumed_run_could_choose_them(tmp_path):
    best = Best(RunDir(tmp_path), KeepBest("support.scorers:Constant"), [], 0)
    for step, score in enumerate([1.0, 3.0, 2.0, 5.0, 4.0, 5.0, 7.0]):
        line = {"step": step, "score": score}
        if best.add(line):
            best.write(step, {"w": torch.full((2,), score)})
    files = lambda: sorted(int(file.stem) for file in best.folder.glob("*.safetensors"))  # noqa: E731
    assert files() == [0, 1, 3, 6]
    best.drop([2, 4])
    assert files() == [1, 3]
    assert best.step == 6


def test_it_stops_where_the_score_stops_rising_and_stays_stopped(raw):
    raw = changed(raw, "train.keep_best.scorer='support.scorers:Constant'", "train.keep_best.patience=4")
    run = train_raw(raw)
    assert list(scores(run)) == [0, 1, 2, 3, 4]  # of equal scores the earliest is the best
    assert json.loads((run.weights / "sipo.json").read_text())["step"] == 0
    weights = load_checkpoint(run.checkpoints, 4).weights  # the stop is a checkpoint
    train_raw(raw)
    assert list(scores(run)) == [0, 1, 2, 3, 4]
    assert all(weights[name].equal(weight) for name, weight in load_checkpoint(run.checkpoints, 4).weights.items())
    assert not run.checkpoints.joinpath("000006").exists()


def test_two_processes_score_what_one_does(raw, tmp_path):
    raw = changed(raw, "train.num_steps=2", "train.checkpoint_every=2")
    one = train_raw(changed(raw, f"run={tmp_path / 'one'}"))
    assert train_in_two(changed(raw, f"run={tmp_path / 'two'}", "train.batch_size=1")) == [0, 0]
    two = RunDir(tmp_path / "two")
    for mine, theirs in zip(one.read_metrics("score"), two.read_metrics("score"), strict=True):
        assert mine["num_samples"] == theirs["num_samples"]
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-3)
        assert mine["standard_error"] == pytest.approx(theirs["standard_error"], abs=1e-3)


def test_two_shards_keep_unsharded_weights(raw, tmp_path):
    raw = changed(raw, "train.num_steps=2", "train.checkpoint_every=1", "train.sharding=full", "train.batch_size=1")
    assert train_in_two(raw) == [0, 0]
    run = RunDir(raw["run"])
    (file,) = run.best.glob(f"{max(scores(run), key=scores(run).get):06d}.safetensors")
    if int(file.stem):
        expected = load_checkpoint(run.checkpoints, int(file.stem)).weights
        assert all(weight.equal(expected[name]) for name, weight in load_file(file).items())


def test_the_report_has_the_curve_and_what_it_is_for(raw):
    run = train_raw(raw)
    found = scores(run)
    page = report(run).read_text()
    best = max(found, key=lambda step: found[step])
    assert f"Best at step {best}" in page
    assert "do not show a collapse" in page
    assert (run.path / "plots" / "held-out-score.png").is_file()


def test_mistakes_are_reported_before_anything_is_loaded(raw):
    with pytest.raises(UsageError, match=r"train.keep_best.evry: unknown key; did you mean every"):
        parse_config(changed(raw, "train.keep_best.evry=3"))
    with pytest.raises(UsageError, match=r"train.keep_best.scorer: missing"):
        parse_config(changed(raw, "train.keep_best={every: 3}"))
    with pytest.raises(UsageError, match=r"patience: found 0; expected at least 1"):
        parse_config(changed(raw, "train.keep_best.patience=0"))
    for key, message in (("train.keep_best.scorer=pikscore", "did you mean pickscore"),
                         ("data.validation=null", "no held-out prompts")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            train_raw(changed(raw, key, "model.path=nowhere"))
