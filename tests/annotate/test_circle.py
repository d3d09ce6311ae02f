"""The whole circle on the miniature: two runs, a study, people who vote over HTTP, report, export, training on the export."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.studies import Voter, hosting
from typer.testing import CliRunner

from sipo.cli import app
from sipo.run import RunDir

ROOT = Path(__file__).parents[2]
SMALL = [
    "data.max_pairs=12",
    "data.validation=0.3",
    "train.num_steps=2",
    "train.batch_size=2",
    "train.validate_every=0",
    "train.sample_every=0",
    "train.checkpoint_every=2",
    "sample.num_prompts=1",
    "log.tensorboard=false",
]


def sipo(*arguments) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def detail(content: bytes) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"), dtype=float)
    return float(np.abs(np.diff(pixels, axis=1)).mean())


@pytest.mark.slow
def test_from_two_runs_to_a_training_on_peoples_votes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo = ROOT / "configs" / "demo.yaml"
    for seed, (name, guidance) in enumerate((("one", 4), ("two", 2))):
        sipo("train", demo, f"run=runs/{name}", "data.cache=cache", f"train.seed={seed}", *SMALL)
        options = ("--num-prompts", 6, "--num-inference-steps", 4, "--guidance-scale", guidance)
        sipo("generate", f"runs/{name}", "--prompts", "miniature", "--out", f"samples/{name}", *options)
    sipo("annotate", "create", "samples/one", "samples/two", "--out", "study", "--groups", 1, "--group-size", 3)
    people = 0
    with hosting(Path("study")) as server:
        for name, link in server.links().items():
            if name != "researcher":
                voter = Voter(link)
                people += voter.all(
                    lambda item, v: (
                        "left" if detail(v.look(item["media"][0])) > detail(v.look(item["media"][1])) else "right"
                    )
                )
    assert people == 18
    assert "18 votes" in sipo("annotate", "report", "study")
    sipo("annotate", "export", "study", "--out", "pairs.jsonl")
    for line in map(json.loads, Path("pairs.jsonl").read_text().splitlines()):
        chosen, rejected = (detail(Path(line[side]).read_bytes()) for side in ("chosen", "rejected"))
        assert chosen > rejected  # what people said, whatever side it was shown on
        assert line["strength"] == 1.0
        assert line["chosen_seed"] == line["rejected_seed"]  # of one prompt and seed
        assert {line[f"{side}_sampler"]["guidance_scale"] for side in ("chosen", "rejected")} == {4, 2}
    sipo("train", demo, "run=runs/people", "data.path=pairs.jsonl", "data.cache=cache-people", *SMALL)
    assert [line["step"] for line in RunDir(Path("runs/people")).read_metrics("train")][-1] == 2
