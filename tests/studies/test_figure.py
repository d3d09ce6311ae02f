import io

from PIL import Image

from sipo.studies.figure import draw
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
