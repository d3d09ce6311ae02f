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


def over_beta(*labels: str, **options):
    axes = {"beta": {label: {"loss.beta": index + 1} for index, label in enumerate(labels)}}
    return parse_study({**RAW, "x": "beta", "curves": None, "axes": axes, **options}, "s")


@pytest.mark.parametrize(
    ("labels", "scale"),
    [(["0.1", "1", "10"], "log"), (["0", "0.5", "0.9"], "linear")],
    ids=["over decades", "from 0, which has no logarithm"],
)
def test_numbers_lie_on_the_horizontal(labels, scale):
    rows = [Row({"beta": label}, seed, 4, {"score": 1.0 + seed}) for label in labels for seed in (0, 1)]
    (place,) = figure_of(over_beta(*labels), rows).axes
    mean, *of_seeds = place.lines
    assert (place.get_xscale(), list(mean.get_ydata())) == (scale, [1.5] * 3)
    assert [list(line.get_ydata()) for line in of_seeds] == [[1.0] * 3, [2.0] * 3]
    left, right = place.get_xlim()
    assert list(mean.get_xdata()) == [float(label) for label in labels]
    if scale == "log":
        assert [text.get_text() for text in place.get_xticklabels()] == labels
    assert all(left <= x <= right for x in mean.get_xdata())


def test_names_stand_below_each_other_with_nothing_between():
    labels = ["none", "both", "0.5"]
    rows = [Row({"beta": label}, seed, 4, {"score": 1.0 + seed}) for label in labels for seed in (0, 1)]
    (place,) = figure_of(over_beta(*labels), rows).axes
    assert [text.get_text() for text in place.get_yticklabels()] == labels
    assert all(line.get_linestyle() == "None" for line in place.lines)
    means = place.containers[0].lines[0]
    assert (list(means.get_xdata()), list(means.get_ydata())) == ([1.5] * 3, [0, 1, 2])


@pytest.mark.parametrize("labels", [("0.1", "1"), ("low", "high")])
def test_the_base_is_a_line_across_the_axis_and_runs_of_other_lengths_count_at_their_ends(labels):
    lengths = dict(zip(labels, (4, 6), strict=True))
    rows = [Row({"beta": label}, 0, at, {"score": at / 10 + 0.25}) for label in labels for at in (0, 2, lengths[label])]
    (place,) = figure_of(over_beta(*labels), rows).axes
    (dotted,) = [line for line in place.lines if line.get_linestyle() == ":"]
    means = place.lines[0] if labels[0] == "0.1" else place.containers[0].lines[0]
    if labels[0] == "0.1":
        assert (set(dotted.get_ydata()), list(means.get_ydata())) == ({0.25}, [0.65, 0.85])
    else:
        assert (set(dotted.get_xdata()), list(means.get_xdata())) == ({0.25}, [0.65, 0.85])


@pytest.mark.parametrize(("number", "shaded"), [(5, 5), (6, 0)])
def test_intervals_of_few_curves_are_shaded_within_what_was_measured(number, shaded):
    labels = [str(index + 1) for index in range(number)]
    study = over_beta(*labels, x="step", curves="beta")
    rows = [
        Row({"beta": label}, seed, at, {"score": float(seed)}) for label in labels for seed in (0, 1) for at in (0, 4)
    ]
    figure = figure_of(study, rows)
    (place,) = figure.axes
    assert len(place.collections) == shaded
    assert -0.1 < place.get_ylim()[0] < 0 < 1 < place.get_ylim()[1] < 1.1  # the interval of two seeds is -5.9 to 6.9
    assert [text.get_text() for text in figure.legends[0].texts] == labels


@pytest.mark.parametrize("labels", [("0.1", "1"), ("low", "high")])
def test_a_value_that_some_runs_do_not_have(labels):
    """Such as the share pruned, beside an objective that prunes nothing; a base at 0 has its line too."""
    study = over_beta(*labels, measure={"values": ["score", "pruned"], "moments": 1})
    rows = [Row({"beta": label}, 0, at, {"score": 1.0, "pruned": at / 40}) for label in labels for at in (0, 4)]
    del rows[-1].values["pruned"]
    score, pruned = figure_of(study, rows).axes
    assert [sum(line.get_linestyle() == ":" for line in place.lines) for place in (score, pruned)] == [1, 1]
