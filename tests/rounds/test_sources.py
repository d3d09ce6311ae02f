"""Rounds of a model that reads a source: each sample is made of its prompt's, and pairs of one source are trained on."""

import json

import numpy as np
import pytest
from PIL import Image
from support.configs import changed
from support.online import play
from support.pictures import picture

from sipo.errors import UserError
from sipo.jsonl import read_jsonl
from sipo.run import RunDir
from sipo.samples.folder import read_samples


@pytest.fixture
def editing(raw_online, tiny_family, tmp_path):
    """One round of three prompts, two of which are the same text for different pictures, with two samples each."""
    lines = []
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(picture(n, (30, 20)))
        lines.append(json.dumps({"prompt": f"edit {n // 2}", "source": f"{n}.png"}))
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines[:3]))
    (tmp_path / "held-out.jsonl").write_text("\n".join(lines[3:]))
    return changed(
        raw_online, f"model.path={tiny_family('flux-kontext')}", "data.resolution=16", "rounds.num_rounds=1",
        f"rounds.prompts={tmp_path / 'prompts.jsonl'}", f"rounds.held_out={tmp_path / 'held-out.jsonl'}",
        "rounds.num_prompts=3", "weight.denominator=posterior", "loss.prune_threshold=0.0",
        "rounds.scorer=support.scorers:Change",
    )  # fmt: skip


def change(sample, source) -> float:
    """Mean distance of a sample from its source."""
    shown, start = Image.open(sample), Image.open(source).convert("RGB")
    return float(np.abs(np.subtract(shown, start.resize(shown.size), dtype=float)).mean() / 255)


def test_a_round(editing, tmp_path):
    path = play(editing)
    folder = path / "round-001"
    samples = read_samples(folder / "samples" / "1-of-1")
    own = {f"samples/1-of-1/{sample.file}": sample for sample in samples}
    sources = {str(tmp_path / f"{n}.png"): f"edit {n // 2}" for n in range(3)}
    assert sorted((s.source, s.prompt) for s in samples) == sorted(2 * list(sources.items()))
    pairs = read_jsonl(folder / "pairs.jsonl")
    assert len(pairs) == 3
    for pair in pairs:
        changes = [change(folder / pair[member], pair["source"]) for member in ("chosen", "rejected")]
        assert pair["score_gap"] == pytest.approx(changes[0] - changes[1])
        assert changes[0] > changes[1]  # by the scorer, which saw both with their source
        assert own[pair["chosen"]].source == own[pair["rejected"]].source == pair["source"]
        assert sources[pair["source"]] == pair["prompt"]
    assert RunDir(folder / "run").read_metrics("train")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "rounds.held_out={plain}",
            r"rounds\.held_out: prompt 1 \('other'\) has no source, a picture that this model reads",
        ),
        ("loss={{name: d3po}}", "d3po draws trajectories of prompts alone; a FluxKontextPipeline reads a source"),
    ],
)
def test_what_has_no_source_is_refused_before_the_first_sample(editing, tmp_path, override, message):
    (tmp_path / "plain.txt").write_text("other\n")
    raw = changed(editing, override.format(plain=tmp_path / "plain.txt"))
    with pytest.raises(UserError, match=message):
        play(raw)
    assert not (tmp_path / "online" / "round-000").exists()


def test_a_scorer_that_reads_sources_needs_a_model_that_does(raw_online, tmp_path):
    message = r"rounds\.scorer: change judges a sample by the picture that it was made of; a StableDiffusionPipeline reads none"
    with pytest.raises(UserError, match=message):
        play(changed(raw_online, "rounds.scorer=support.scorers:Change"))
    assert not (tmp_path / "online" / "round-000").exists()
