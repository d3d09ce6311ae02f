"""Columns of pairs: gathered in the order of their slots; means, bins, effective sample size."""

import json

import numpy as np
import pytest
import torch

from sipo.processes import Processes
from sipo.train.table import gather_pairs, pair_rows, summarise


def test_pairs_are_gathered_in_the_order_of_their_slots_with_the_scalars_apart():
    rows = [
        pair_rows({"loss": torch.tensor(losses)}, torch.tensor([10, 20]), torch.tensor(slots))
        for losses, slots in (([0.5, 0.25], [2, 3]), ([0.125, 1.0], [1, 0]))
    ]
    pairs, scalars = gather_pairs(rows, Processes(), 4, grad_norm=torch.tensor(7.0), stop=1.0)
    assert pairs["loss"].tolist() == [1.0, 0.125, 0.5, 0.25]
    assert pairs["t"].tolist() == [20, 10, 10, 20]
    assert {name: values.tolist() for name, values in scalars.items()} == {"grad_norm": [7.0], "stop": [1.0]}


def test_a_short_table_is_filled_up_with_its_last_pair():
    rows = [pair_rows({"loss": torch.tensor([0.5, 0.25])}, torch.tensor([10, 20]), torch.tensor([0, 1]))]
    pairs, _ = gather_pairs(rows, Processes(), 4)
    assert pairs["slot"].tolist() == [0, 1, 1, 1]
    assert pairs["loss"].tolist() == [0.5, 0.25, 0.25, 0.25]


def test_all_of_a_step_reaches_the_host_in_one_copy():
    """The meta device fails at every read by the host, so whatever comes before the copy of the table reads nothing."""
    t = torch.zeros(4, device="meta")
    rows = [pair_rows({"loss": t}, t, torch.arange(4)) for _ in range(2)]
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        gather_pairs(rows, Processes(torch.device("meta")), 8, grad_norm=t.sum(), stop=0.0)


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
