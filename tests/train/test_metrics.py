"""Means, bins, effective sample size, and the warning in words."""

import json

import numpy as np
import pytest

from sipo.train.metrics import FallingRewards, MetricsFile, summarise


def pairs(n: int = 400, **columns) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"t": rng.integers(1, 1000, n).astype(float), "loss": rng.random(n), "accuracy": (rng.random(n) > 0.4) * 1.0,
            "tie": (rng.random(n) > 0.7) * 1.0, **columns}  # fmt: skip


def test_means_are_over_all_pairs_and_accuracy_leaves_ties_out():
    given = pairs()
    line = summarise(given, 1000)
    assert line["loss"] == pytest.approx(given["loss"].mean(), rel=1e-5)
    assert line["accuracy"] == pytest.approx(given["accuracy"][given["tie"] == 0].mean(), rel=1e-5)


def test_bins_partition_the_pairs_and_average_to_the_mean():
    given = pairs()
    line = summarise(given, 1000)
    bins = line["bins"]
    assert sum(bins["count"]) == 400
    assert np.dot(bins["count"], bins["loss"]) / 400 == pytest.approx(line["loss"], rel=1e-5)
    first = given["t"] < 100
    assert bins["count"][0] == first.sum()
    assert bins["loss"][0] == pytest.approx(given["loss"][first].mean(), rel=1e-5)


def test_empty_bins_and_infinities_are_null():
    line = summarise({"t": np.array([5.0]), "loss": np.array([np.inf])}, 1000)
    assert line["loss"] is None
    assert line["bins"]["loss"] == [None] * 10
    json.dumps(line, allow_nan=False)


def test_effective_sample_size_is_kish():
    weight = np.array([1.0, 1.0, 1.0, 1.0])
    columns = {"t": np.ones(4), "weight": weight, "pruned": np.zeros(4)}
    assert summarise(columns, 1000)["effective_sample_size"] == 1.0
    columns["pruned"] = np.array([0.0, 1.0, 1.0, 1.0])
    assert summarise(columns, 1000)["effective_sample_size"] == 0.25


def test_weights_are_exponentials_of_log_iw():
    columns = {"t": np.ones(2), "log_iw_chosen": np.array([0.0, -2000.0])}
    assert summarise(columns, 1000)["w_chosen"] == pytest.approx(0.5)


def test_a_resumed_file_has_neither_gaps_nor_doubles_nor_torn_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (0, 1, 2, 3)) + '{"step": 4, "lo')
    file = MetricsFile(path, step=2)
    file.write({"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    MetricsFile(path, step=0)
    assert path.read_text() == ""


def drift(chosen: float, rejected: float, steps: int = 200) -> list[str]:
    rng, falling = np.random.default_rng(0), FallingRewards()
    noise = rng.normal(0, 0.01, (steps, 2))
    lines = [
        {"reward_chosen": chosen * i + noise[i, 0], "reward_rejected": rejected * i + noise[i, 1]} for i in range(steps)
    ]
    return [warning for i, line in enumerate(lines) if (warning := falling.update(i + 1, line))]


def test_rewards_falling_together_are_said_in_words_and_not_every_step():
    warnings = drift(-0.01, -0.02)
    assert 1 <= len(warnings) <= 2
    assert "fall together" in warnings[0]


@pytest.mark.parametrize(("chosen", "rejected"), [(0.01, -0.02), (0.0, 0.0), (0.01, 0.02), (-0.01, 0.0)])
def test_no_warning_unless_both_fall(chosen, rejected):
    assert drift(chosen, rejected) == []
