"""docs/walkthrough.md in small: its commands as they stand, with the numbers of this table put in."""

import csv
import json
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sipo.cli import app
from sipo.data.pairs.check import check_pairs
from sipo.samples.folder import read_samples
from sipo.samples.prompts import read_prompts

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "walkthrough.md"
SMALLER = {
    "--num 120": "--num 6",
    "--images-per-prompt 8": "--images-per-prompt 4",
    "--num-prompts 100 --images-per-prompt 2": "--num-prompts 4",
    "--num-inference-steps 20": "--num-inference-steps 6",
    "--margin 0.05": "--margin 0.001",
    "configs/demo.yaml": f"{ROOT}/configs/demo.yaml data.validation=0.4 train.num_steps=3 train.batch_size=2 "
    "train.validate_every=3 train.sample_every=3 train.checkpoint_every=3 sample.num_prompts=2 sample.num_inference_steps=6",
    "train.num_steps=300": "",
    "--num-prompts 240": "--num-prompts 4",
    "--base --num-prompts 100": "--base --num-prompts 2",
}


def commands() -> list[str]:
    """The lines of the document's indented blocks that call `sipo`."""
    return re.findall(r"^    (sipo .*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


def smaller(command: str) -> list[str]:
    for text, replacement in SMALLER.items():
        command = command.replace(text, replacement)
    return shlex.split(command)[1:]


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> Path:
    """The folder after all commands."""
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands():
            result = CliRunner().invoke(app, smaller(command))
            assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
    return folder


def comparisons(folder: Path) -> list[dict]:
    return json.loads((folder / "comparison.json").read_text())["comparisons"]


def read_pairs(walked: Path, name: str) -> list[dict]:
    return pq.read_table(walked / "walk" / f"{name}.parquet").to_pylist()


def test_every_replacement_is_of_the_document():
    text = "\n".join(commands())
    assert [old for old in SMALLER if old not in text] == []


def test_the_prompts_are_not_those_of_the_comparisons(walked):
    prompts = {item.prompt for item in read_prompts(walked / "walk" / "prompts.jsonl")}
    assert len(prompts) == 6
    assert not prompts & {item.prompt for item in read_prompts("miniature")}
    assert {sample.prompt for sample in read_samples(walked / "walk" / "samples")} == prompts


def test_the_first_comparison_is_of_the_same_prompts_and_seeds(walked):
    (record,) = comparisons(walked / "walk" / "guidance")
    assert (record["names"], record["overall"]["num_pairs"]) == (["guidance-4", "guidance-2"], 4)
    assert [s["guidance_scale"] for s in record["settings"]] == [4.0, 2.0]


def test_the_pairs_are_the_samples_with_the_scores_that_the_label_says(walked):
    folder = walked / "walk" / "samples"
    lines = [json.loads(line) for line in (folder / "scores.miniature.jsonl").read_text().splitlines()]
    scores = {(folder / line["file"]).read_bytes(): line for line in lines}
    rows = read_pairs(walked, "pairs")
    assert 1 <= len(rows) <= 6
    for row in rows:
        first, second = scores[row["jpg_0"]], scores[row["jpg_1"]]
        assert (first["score"] > second["score"]) == (row["label_0"] == 1)
        assert (first if row["label_0"] else second)["correct"]
    assert check_pairs(str(walked / "walk" / "pairs.parquet")).num_usable == len(rows)
    assert check_pairs(str(walked / "walk" / "best.jsonl")).num_usable >= len(rows)


def test_training_read_the_new_pairs_and_the_run_is_whole(walked):
    run = walked / "runs" / "walk"
    assert "path: walk/pairs.parquet" in (run / "config.yaml").read_text()
    assert (
        json.loads((run / "data.json").read_text())["num_rows"]
        == pq.read_metadata(walked / "walk/pairs.parquet").num_rows
    )
    assert (run / "weights" / "pytorch_lora_weights.safetensors").is_file()
    assert (run / "plots" / "weight-by-t.png").is_file()


def test_all_pairs_are_more_pairs_of_the_same_samples(walked):
    few, many = (
        {
            (row["caption"], row["best_image_uid"], *sorted((row["jpg_0"], row["jpg_1"])))
            for row in read_pairs(walked, name)
        }
        for name in ("pairs", "all-pairs")
    )
    assert few < many


@pytest.mark.parametrize("name", ["walk", "walk-all"])
def test_an_aligned_model_is_compared_with_its_base(walked, name):
    (folder,) = (walked / "runs" / name / "evaluation").iterdir()
    (record,) = comparisons(folder)
    assert (record["names"], record["overall"]["num_pairs"]) == (["policy", "base"], 4)
    assert "win rate of policy over base" in (walked / "runs" / name / "report.html").read_text()


def test_the_last_comparison_is_of_both_and_the_base(walked):
    folder = walked / "walk" / "three"
    assert [row["model"] for row in csv.DictReader((folder / "table.csv").open())] == ["walk-all", "walk", "base"]
    assert [each["names"][1] for each in comparisons(folder)] == ["walk", "base"]
