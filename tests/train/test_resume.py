"""A killed run, started again by the same command, ends bit for bit where the unbroken one ends."""

import random

import pytest
from support.runs import assert_same_results, train_in_process

from sipo.run import RunDir
from sipo.train.checkpoint import saved_steps


def config_of(raw: dict, name: str, tmp_path, kind: str, accumulation: int, workers: int, steps: int) -> dict:
    train = {**raw["train"], "num_steps": steps, "gradient_accumulation": accumulation, "checkpoint_every": 2,
             "keep_checkpoints": 100, "sample_every": 3, "validate_every": 2, "ema_decay": 0.9, "warmup_steps": 2,
             "lr_scheduler": "cosine"}  # fmt: skip
    data = {**raw["data"], "workers": workers, "validation": 0.2, "flip": True, "crop": "random", "prompt_dropout": 0.3}
    policy = {"kind": "lora", "rank": 4, "alpha": 8} if kind == "lora" else {"kind": "full"}
    return {**raw, "run": str(tmp_path / name), "train": train, "data": data, "policy": policy}


@pytest.mark.parametrize(
    ("kind", "accumulation", "workers"), [("lora", 2, 0), ("lora", 1, 2), ("full", 1, 0), ("full", 2, 2)]
)
def test_killed_inside_checkpoint_writes(raw_config, tmp_path, kind, accumulation, workers):
    unbroken = config_of(raw_config, "unbroken", tmp_path, kind, accumulation, workers, steps=6)
    killed = {**unbroken, "run": str(tmp_path / "killed")}
    assert train_in_process(unbroken) == 0
    # Three files a checkpoint (weights, optimizer, ema): die in the first one, then in the second of the next ones.
    assert train_in_process(killed, kill_in_save=2) == -9
    assert saved_steps(RunDir(killed["run"]).checkpoints) == []
    assert train_in_process(killed, kill_in_save=5) == -9
    assert saved_steps(RunDir(killed["run"]).checkpoints) == [2]
    assert train_in_process(killed) == 0
    assert_same_results(RunDir(killed["run"]), RunDir(unbroken["run"]), steps=[2, 4, 6])


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_killed_at_random_moments(raw_config, tmp_path, kind, accumulation, workers, cached):
    unbroken = config_of(raw_config, "unbroken", tmp_path, kind, accumulation, workers, steps=12)
    if cached:
        unbroken["data"] |= {"cache": str(tmp_path / "cache")}
    killed = {**unbroken, "run": str(tmp_path / "killed")}
    assert train_in_process(unbroken) == 0
    chance, kills = random.Random(f"{kind} {accumulation} {workers} {cached}"), 0
    for step in sorted(chance.sample(range(1, 12), 4)):
        inside = chance.random() < 0.5
        code = (
            train_in_process(killed, kill_in_save=chance.randint(1, 6))
            if inside
            else train_in_process(killed, kill_after_step=step)
        )
        kills += code == -9
    assert kills >= 3
    assert train_in_process(killed) == 0
    assert_same_results(RunDir(killed["run"]), RunDir(unbroken["run"]), steps=[2, 4, 6, 8, 10, 12])


def test_more_steps_go_on_from_the_end(raw_config, tmp_path):
    whole = {**raw_config, "run": str(tmp_path / "whole")}
    grown = {**raw_config, "run": str(tmp_path / "grown"), "train": {**raw_config["train"], "num_steps": 2}}
    assert train_in_process(whole) == 0
    assert train_in_process(grown) == 0
    grown["train"] = {**grown["train"], "num_steps": 4}
    assert train_in_process(grown) == 0
    assert_same_results(RunDir(grown["run"]), RunDir(whole["run"]), steps=[4])
