"""HPSv2's figures against numpy, in the way its evaluation script takes them, and as `sipo score` prints them."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from sipo.evaluate.scores.hps import benchmark_statistics, group_statistics, scores_by_style
from sipo.evaluate.scores.score import score
from sipo.evaluate.scores.table import Scored, print_scores
from sipo.samples.generate import generate
from sipo.samples.prompt_sets import HPS_STYLES
from sipo.samples.prompts import read_prompts


def test_agrees_with_hpsv2s_own_script():
    scores = np.random.default_rng(0).normal(0.27, 0.02, 800)
    groups = [np.mean(scores[i : i + 80]) for i in range(0, 800, 80)]
    found = group_statistics(scores.tolist())
    assert found.mean == pytest.approx(np.mean(groups))
    assert found.deviation == pytest.approx(np.std(groups))


def test_groups_are_runs_of_consecutive_prompts():
    found = group_statistics([0.0] * 80 + [1.0] * 720)
    assert found.mean == pytest.approx(0.9)
    assert found.deviation == pytest.approx(0.3)


def test_styles_weigh_the_same():
    found, average = benchmark_statistics({"anime": [1.0] * 800, "photo": [0.0] * 10})
    assert average == 0.5
    assert found["anime"].deviation == 0


@pytest.mark.parametrize("scores", [[], [1.0] * 799, [1.0] * 799 + [float("nan")]])
def test_an_incomplete_benchmark_is_refused(scores):
    with pytest.raises(ValueError, match=r"equal groups|not finite"):
        group_statistics(scores)


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
    assert scores_by_style(result.scores) == {}
    assert "HPSv2" not in printed(result)
