"""D3PO in online rounds: sampled with trajectories, trained on all of their steps, resumed exactly."""

import math

import pytest
from support.configs import changed
from support.online import PHASES, play, play_in_process, play_in_two
from support.runs import train_raw

from sipo.backbones.trajectory import grid
from sipo.errors import UsageError, UserError
from sipo.jsonl import read_json, read_jsonl
from sipo.run import RunDir
from sipo.samples.folder import read_samples
from sipo.samples.trajectory import read_step, read_times, trajectory_of


@pytest.fixture
def raw(raw_online):
    return changed(
        raw_online, "loss={name: d3po, beta: 0.1}", "weight.denominator=posterior", "kernel.num_inference_steps=4",
        "rounds.epochs=1", "rounds.num_prompts=3", "sample.guidance_scale=5.0", "train.learning_rate=0.01",
    )  # fmt: skip


def test_every_step_of_every_pair_is_trained_on_once_an_epoch(raw):
    path = play(raw)
    folder = path / "round-001"
    samples = [folder / "samples/1-of-1" / sample.file for sample in read_samples(folder / "samples/1-of-1")]
    times, settings = read_times(samples[0])
    assert times == [751, 501, 251, 1, 0]
    assert settings == {"kernel": "DDIM(eta=1.0)", "grid": "4", "guidance_scale": "5"}
    for first, second in zip(samples[::2], samples[1::2], strict=True):
        assert read_step(first, 0)[0].equal(read_step(second, 0)[0])  # one initial latent
        assert not read_step(first, 3)[1].equal(read_step(second, 3)[1])
    record = read_json(folder / "round.json")
    assert (record["num_pairs"], record["step"]) == (3, 6)  # 3 pairs of 4 steps, 2 a batch
    first, second = (RunDir(path / f"round-00{n}" / "run").read_metrics("train") for n in (1, 2))
    assert first[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)  # the policy is its reference
    assert first[0]["tie"] == 1.0
    assert first[-1]["tie"] == 0.0
    assert second[0]["tie"] == 0.0  # the reference is still the model
    # Every (pair, step) has its timestep in one of the bins once.
    counts = [sum(line["bins"]["count"][place] for line in first) for place in range(10)]
    assert counts == [3, 0, 3, 0, 0, 3, 0, 3, 0, 0]
    held_out = path / "round-001" / "held-out" / "1-of-1"
    assert not list(held_out.glob("*.trajectory.safetensors"))


@pytest.mark.slow
def test_what_is_chosen_becomes_likelier_step_by_step(raw):
    run = RunDir(play(changed(raw, "rounds.num_rounds=1", "rounds.epochs=6")) / "round-001" / "run")
    gaps = [line["reward_gap"] for line in run.read_metrics("train")]
    assert sum(gaps[-6:]) > sum(gaps[:6])
    assert sum(gaps[-6:]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["training", "sampling"])
def test_killed_and_resumed_it_ends_the_same(raw, tmp_path, phase):
    unbroken, killed = (changed(raw, f"run={tmp_path / name}") for name in ("unbroken", "killed"))
    assert play_in_process(unbroken) == 0
    assert play_in_process(killed, PHASES[phase]) == -9
    assert play_in_process(killed) == 0
    mine, theirs = (
        (tmp_path / name / "round-002/run/weights/pytorch_lora_weights.safetensors").read_bytes()
        for name in ("killed", "unbroken")
    )
    assert mine == theirs


def test_two_processes_train_as_one(raw, tmp_path):
    raw = changed(raw, "rounds.num_rounds=1")
    one = RunDir(play(changed(raw, f"run={tmp_path / 'one'}")) / "round-001" / "run")
    assert play_in_two(changed(raw, f"run={tmp_path / 'two'}", "train.batch_size=1")) == [0, 0]
    for mine, theirs in zip(
        one.read_metrics("train"), RunDir(tmp_path / "two/round-001/run").read_metrics("train"), strict=True
    ):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert mine["reward_chosen"] == pytest.approx(theirs["reward_chosen"], abs=1e-4)


def test_full_fine_tuning(raw):
    path = play(changed(raw, "policy.kind=full", "rounds.num_rounds=1", "train.learning_rate=1e-4"))
    lines = RunDir(path / "round-001" / "run").read_metrics("train")
    assert lines[0]["tie"] == 1.0
    assert lines[-1]["tie"] == 0.0


def test_pairs_without_trajectories_or_with_others_are_refused(raw, raw_config):
    with pytest.raises(UserError, match="there is no trajectory beside its media"):
        train_raw(changed(raw_config, "loss={name: d3po}"))
    path = play(changed(raw, "rounds.num_rounds=1"))
    pairs = path / "round-001" / "pairs.jsonl"
    again = changed(raw_config, "loss={name: d3po}", f"data.path={pairs}", "sample.guidance_scale=5.0",
                    "kernel.num_inference_steps=4", "train.num_steps=1")  # fmt: skip
    assert train_raw(again).read_metrics("train")[0]["tie"] == 1.0
    with pytest.raises(UserError, match=r"sampled otherwise than .*; the first: .*guidance_scale 5"):
        train_raw(changed(again, "sample.guidance_scale=7.0", f"run={path / 'other'}"))
    trajectory_of(pairs.parent / read_jsonl(pairs)[2]["rejected"]).unlink()
    with pytest.raises(UserError, match=r"pairs.jsonl:3: there is no trajectory"):
        train_raw(changed(again, f"run={path / 'third'}"))


@pytest.mark.parametrize("key", ["data.cache=c", "data.validation=0.5", "data.prompt_dropout=0.1", "data.flip=true"])
def test_keys_that_do_nothing_are_refused(raw_config, key):
    with pytest.raises(UsageError, match=key.partition("=")[0]):
        train_raw(changed(raw_config, "loss={name: d3po}", key))


def test_a_kernel_without_noise_has_no_densities(raw_config):
    with pytest.raises(UsageError, match="eta: 0"):
        train_raw(changed(raw_config, "loss={name: d3po}", "kernel={name: ddim, eta: 0.0}"))


def test_self_play_has_no_trajectories(raw, tiny_pairs):
    with pytest.raises(UsageError, match="d3po needs trajectories of both members"):
        play(changed(raw, f"rounds.chosen={tiny_pairs}", "rounds.prompts=null"))


def test_the_grid_of_the_tests_is_the_schedules(tiny_sd):
    from sipo.backbones import load_backbone
    from sipo.config import ModelConfig

    assert grid(load_backbone(ModelConfig(str(tiny_sd))).schedule, 4).tolist() == [751, 501, 251, 1, 0]
