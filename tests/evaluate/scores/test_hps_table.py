"""What `sipo score` prints of HPSv2's benchmark, on pictures of its prompts as `sipo generate` makes them."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sipo.evaluate.scores.hps_table import by_style
from sipo.evaluate.scores.score import score
from sipo.evaluate.scores.table import Scored, print_scores
from sipo.samples.generate import generate
from sipo.samples.prompt_sets import HPS_STYLES
from sipo.samples.prompts import read_prompts


class Grey:
    name = "grey"

    def __call__(self, media, prompts, metadata=None):
        return [float(image.convert("L").getpixel((0, 0))) / 255 for image in media]


@pytest.fixture
def benchmark(tmp_path):
    folder = tmp_path / "benchmark"
    folder.mkdir()
    for style in HPS_STYLES:
        (folder / f"{style}.json").write_text(json.dumps([f"{style} {i}" for i in range(20)]))
    return folder


def scored(items, folder) -> tuple[Scored, list[int]]:
    """Pictures whose grey level is drawn, in the order of the prompts."""
    levels = [int(level) for level in np.random.default_rng(0).integers(0, 256, len(items))]
    remaining = iter(levels)
    out = generate(
        lambda texts, seeds: [Image.new("RGB", (8, 8), (next(remaining),) * 3) for _ in texts], items, folder, {}
    )
    return Scored(out, "grey", score(out, Grey()), out / "scores.grey.jsonl"), levels


def printed(result: Scored) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    print_scores([result], console)
    return console.export_text()


def test_mean_and_deviation_of_every_style(benchmark, tmp_path):
    result, levels = scored(read_prompts(benchmark), tmp_path / "pictures")
    rows = {line.split()[0]: line.split()[1:] for line in printed(result).splitlines() if line.strip()}
    for place, style in enumerate(HPS_STYLES):
        values = np.array(levels[20 * place : 20 * place + 20]) / 255
        groups = values.reshape(10, 2).mean(axis=1)
        assert rows[style] == ["20", f"{values.mean():.4f}", f"{groups.std():.4f}"]


def test_a_benchmark_that_does_not_split_says_so(benchmark, tmp_path):
    text = printed(scored(read_prompts(benchmark, 25), tmp_path / "pictures")[0])
    assert "no figures" in text
    assert "5 scores do not split into 10 equal groups" in text


def test_other_prompts_have_no_such_table(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a", "style": "anime"}\n{"prompt": "b"}\n')
    result, _ = scored(read_prompts(prompts), tmp_path / "pictures")
    assert by_style(result.scores) == {}
    assert "HPSv2" not in printed(result)
