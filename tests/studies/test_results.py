import json
import math
from types import SimpleNamespace

import pytest
from scipy import stats

from sipo.errors import UsageError
from sipo.studies.figure import draw
from sipo.studies.grid import parse_study
from sipo.studies.results import Row, measured, over_seeds, rows_of, summarise


def test_the_interval_is_students():
    values = [0.2, 0.5, 0.35, 0.4]
    found = summarise(values)
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert (found.low, found.high, found.count) == (pytest.approx(low), pytest.approx(high), 4)


def test_one_seed_has_no_interval_and_a_missing_value_counts_for_nothing():
    assert summarise([0.3, math.nan]).mean == 0.3
    assert math.isnan(summarise([0.3]).low)
    assert summarise([math.nan]).count == 0


def test_seeds_are_averaged_by_setting_and_step():
    rows = [
        Row({"beta": b}, seed, step, {"score": float(seed) + step}) for b in "12" for seed in (0, 2) for step in (4, 8)
    ]
    found = over_seeds(rows, "score")
    assert {key: summary.mean for key, summary in found.items()} == {
        (("1",), 4): 5.0, (("1",), 8): 9.0, (("2",), 4): 5.0, (("2",), 8): 9.0
    }  # fmt: skip


BY_TIMESTEP = {
    "name": "w", "title": "W", "question": "?", "x": "timestep", "curves": "K", "seeds": [0, 1],
    "base": {"model": {"path": "m"}, "data": {"path": "d"}, "loss": {"name": "dpo_cm"}, "train": {"num_steps": 2}},
    "axes": {"K": {"kernel.num_inference_steps": [10, 50]}}, "measure": {"values": ["w_chosen"], "moments": 1},
}  # fmt: skip


def write_metrics(cell, *bins):
    """A run's lines of training metrics by bins, each (counts, means)."""
    lines = [
        {"kind": "train", "step": step, "bins": {"edges": [0, 250, 500, 1000], "count": count, "w_chosen": means}}
        for step, (count, means) in enumerate(bins, start=1)
    ]
    (cell.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def weights_study(tmp_path):
    study = parse_study(BY_TIMESTEP, "s")
    cells = [SimpleNamespace(labels={"K": k}, seed=s, path=tmp_path / f"{k}-{s}")
             for k in ("10", "50") for s in (0, 1)]  # fmt: skip
    for cell in cells:
        cell.path.mkdir()
        write_metrics(cell, ([3, 0, 1], [0.5, None, 1.0]), ([1, 0, 1], [0.9, None, 0.8]))
    return study, cells


def test_means_by_timestep_weigh_every_pair_alike(weights_study):
    """(3 x 0.5 + 0.9) / 4 in the first bin, and no row for a bin without pairs."""
    study, cells = weights_study
    rows = rows_of(study, cells[0], "any")
    assert [(row.at, row.values["w_chosen"]) for row in rows] == [(0, pytest.approx(0.6)), (500, pytest.approx(0.9))]


def test_a_study_over_timesteps_has_its_figure(weights_study):
    study, cells = weights_study
    assert draw(study, [row for cell in cells for row in rows_of(study, cell, "any")]).startswith(b"\x89PNG")


def test_a_metric_without_bins_is_named(weights_study):
    _, cells = weights_study
    study = parse_study({**BY_TIMESTEP, "measure": {"values": ["loss_of_what"]}}, "s")
    with pytest.raises(UsageError, match="loss_of_what is not a metric by timestep of its runs; known: w_chosen"):
        rows_of(study, cells[0], "any")


def test_values_of_categories_are_shown_beside_the_whole():
    study = parse_study({**BY_TIMESTEP, "x": "step", "measure": {"values": ["correct"], "categories": True}}, "s")
    rows = [Row({"K": "10"}, 0, 0, {"correct": 0.5, "correct colors": 1.0, "loss": 2.0})]
    assert measured(study, rows) == ["correct", "correct colors"]


@pytest.mark.parametrize("tag", ["colors", None])
def test_a_category_has_the_mean_of_its_samples(tmp_path, monkeypatch, tag):
    study = parse_study({**BY_TIMESTEP, "x": "step", "measure": {"values": ["score"], "categories": True}}, "s")
    scores = [
        SimpleNamespace(value=value, details={}, sample=SimpleNamespace(prompt="p", metadata=tag and {"tag": its}))
        for value, its in ((0.0, tag), (1.0, tag), (0.25, "counting"))
    ]
    monkeypatch.setattr("sipo.studies.results.read_scores", lambda folder, name: scores)
    cell = SimpleNamespace(labels={"K": "10"}, seed=0, path=tmp_path)
    (tmp_path / "samples" / "000000").mkdir(parents=True)
    if tag is None:
        with pytest.raises(UsageError, match="categories need prompts with a tag; 'p' has none"):
            rows_of(study, cell, "any")
        return
    (row,) = rows_of(study, cell, "any")
    assert row.values == {"score": pytest.approx(1.25 / 3), "score colors": 0.5, "score counting": 0.25}


def test_a_row_a_round_has_the_means_over_held_out_samples_and_over_the_rounds_training(tmp_path, monkeypatch):
    base = {"model": {"path": "m"}, "loss": {"name": "sipo"}, "rounds": {"prompts": "p"}}
    study = parse_study({**BY_TIMESTEP, "base": base, "x": "round", "measure": {"moments": 2}}, "s")
    for number in (0, 1, 2):  # two processes have shared the held-out samples; round 2 is under way
        for part in ("1-of-2", "2-of-2"):
            folder = tmp_path / f"round-00{number}" / "held-out" / part
            folder.mkdir(parents=True)
            (folder / "samples.jsonl").touch()
        if number < 2:
            (folder.parents[1] / "round.json").write_text("{}")
    run = tmp_path / "round-001" / "run"
    run.mkdir()
    lines = [{"kind": "train", "step": step, "loss": loss} for step, loss in ((1, 0.7), (2, 0.4))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    of_part = {"1-of-2": [0.0, 1.0], "2-of-2": [0.5]}
    monkeypatch.setattr(
        "sipo.studies.results.read_scores",
        lambda folder, name: [
            SimpleNamespace(value=v + int(folder.parts[-3][-1]), details={}) for v in of_part[folder.name]
        ],
    )
    rows = rows_of(study, SimpleNamespace(labels={"K": "10"}, seed=0, path=tmp_path), "any")
    assert [(row.at, row.values) for row in rows] == [
        (0, {"score": 0.5}),
        (1, {"score": 1.5, "loss": pytest.approx(0.55)}),
    ]
    assert draw(study, rows).startswith(b"\x89PNG")
