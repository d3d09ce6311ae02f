import io

import pytest
from PIL import Image

from sipo.studies.figure import draw, figure_of
from sipo.studies.grid import parse_study
from sipo.studies.results import Row

RAW = {
    "name": "s", "title": "S", "question": "?", "curves": "beta", "seeds": [0],
    "base": {"model": {"path": "m"}, "data": {"path": "d"}, "loss": {"name": "sipo"}, "train": {"num_steps": 4}},
    "axes": {"beta": {"loss.beta": [0.1, 1]}},
    "measure": {"values": ["score"], "categories": True, "moments": 1},
}  # fmt: skip


def test_categories_are_in_the_tables_and_not_in_the_figure():
    def size(**values: float) -> tuple[int, int]:
        rows = [Row({"beta": beta}, 0, at, values) for beta in ("0.1", "1") for at in (0, 4)]
        return Image.open(io.BytesIO(draw(parse_study(RAW, "s"), rows))).size

    assert size(score=1.0) == size(score=1.0, **{"score colors": 0.5, "score counting": 0.2})


@pytest.mark.parametrize(
    ("labels", "scale", "line"),
    [
        (["0.1", "1", "10"], "log", "-"),
        (["0", "0.5", "0.9"], "linear", "-"),
        (["none", "both", "0.5"], "linear", "None"),
    ],
    ids=["over decades", "from 0, which has no logarithm", "names, between which nothing lies"],
)
def test_every_label_of_an_axis_is_drawn(labels, scale, line):
    options = {label: {"loss.beta": index + 1} for index, label in enumerate(labels)}
    study = parse_study({**RAW, "x": "beta", "curves": None, "axes": {"beta": options}}, "s")
    rows = [Row({"beta": label}, seed, 4, {"score": 1.0 + seed}) for label in labels for seed in (0, 1)]
    (place,) = figure_of(study, rows).axes
    assert (place.get_xscale(), place.lines[0].get_linestyle()) == (scale, line)
    left, right = place.get_xlim()
    positions = place.lines[0].get_xdata(orig=False)
    assert len(positions) == len(labels)
    assert all(left <= x <= right for x in positions)


def test_the_base_is_a_line_across_the_axis():
    study = parse_study({**RAW, "x": "beta", "curves": None}, "s")
    rows = [Row({"beta": beta}, 0, at, {"score": 0.25 if at == 0 else 0.75}) for beta in ("0.1", "1") for at in (0, 4)]
    (place,) = figure_of(study, rows).axes
    assert [set(line.get_ydata()) for line in place.lines] == [{0.75}, {0.25}]
