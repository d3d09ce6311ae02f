"""A killed run, started again by the same command, ends bit for bit where the unbroken one ends."""

import random

import pytest
from support.configs import changed
from support.runs import EVENTS_OF_A_SAVE, assert_same_results, train_in_process, train_raw

from sipo.run import RunDir
from sipo.train.checkpoint import saved_steps


def of_steps(raw: dict, tmp_path, name: str, kind: str, accumulation: int, workers: int, steps: int) -> dict:
    return changed(
        raw, f"run={tmp_path / name}", f"policy.kind={kind}", f"train.num_steps={steps}",
        f"train.gradient_accumulation={accumulation}", f"data.workers={workers}", "train.keep_checkpoints=100",
        "train.sample_every=3", "train.validate_every=2", "train.ema_decay=0.9", "train.warmup_steps=2",
        "train.lr_scheduler=cosine", "data.validation=0.2", "data.flip=true", "data.crop=random",
        "data.prompt_dropout=0.3",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "accumulation", "workers"),
    [("lora", 2, 0), pytest.param("lora", 1, 2, marks=pytest.mark.slow), ("full", 1, 0), ("full", 2, 2)],
)
def test_killed_inside_checkpoint_writes(raw_config, tmp_path, kind, accumulation, workers):
    unbroken = of_steps(raw_config, tmp_path, "unbroken", kind, accumulation, workers, steps=6)
    killed = changed(unbroken, f"run={tmp_path / 'killed'}")
    assert train_in_process(unbroken) == 0
    assert train_in_process(killed, kill_in_save=1) == -9  # its tensors are written, nothing is synced
    assert saved_steps(RunDir(killed["run"]).checkpoints) == []
    assert train_in_process(killed, kill_in_save=2 * EVENTS_OF_A_SAVE) == -9  # the second one only lacks its name
    assert saved_steps(RunDir(killed["run"]).checkpoints) == [2]
    assert train_in_process(killed) == 0
    assert_same_results(RunDir(killed["run"]), RunDir(unbroken["run"]), steps=[2, 4, 6])


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_killed_at_random_moments(raw_config, tmp_path, kind, accumulation, workers, cached):
    unbroken = of_steps(raw_config, tmp_path, "unbroken", kind, accumulation, workers, steps=12)
    if cached:
        unbroken["data"]["cache"] = str(tmp_path / "cache")
    killed = changed(unbroken, f"run={tmp_path / 'killed'}")
    assert train_in_process(unbroken) == 0
    chance, kills = random.Random(f"{kind} {accumulation} {workers} {cached}"), 0
    for step in sorted(chance.sample(range(1, 12), 4)):
        inside = chance.random() < 0.5
        code = (
            train_in_process(killed, kill_in_save=chance.randint(1, 2 * EVENTS_OF_A_SAVE))
            if inside
            else train_in_process(killed, kill_after_step=step)
        )
        kills += code == -9
    assert kills >= 3
    assert train_in_process(killed) == 0
    assert_same_results(RunDir(killed["run"]), RunDir(unbroken["run"]), steps=[2, 4, 6, 8, 10, 12])


def test_more_steps_continue_from_the_end(raw_config, tmp_path):
    whole, grown = (changed(raw_config, f"run={tmp_path / name}") for name in ("whole", "grown"))
    train_raw(whole)
    train_raw(changed(grown, "train.num_steps=2"))
    train_raw(grown)
    assert_same_results(RunDir(grown["run"]), RunDir(whole["run"]), steps=[4])
