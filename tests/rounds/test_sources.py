"""Rounds of a model that reads a source: each sample is made of its prompt's, and pairs of one source are trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxTransformer2DModel
from PIL import Image
from support.configs import changed
from support.online import play
from support.pictures import picture

from sipo.data.media.load import load_pixels
from sipo.errors import UserError
from sipo.jsonl import read_jsonl
from sipo.run import RunDir
from sipo.samples.folder import read_samples
from sipo.samples.trajectory import read_step, read_times
from sipo.size import Size


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


@pytest.mark.slow
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


def rows_of(tokens: list[torch.Tensor], state: torch.Tensor) -> list[torch.Tensor]:
    """What stands behind `state` in the rows of a network's input that begin with it, of its length."""
    return [row[len(state) :] for row in tokens if torch.allclose(row[: len(state)], state, atol=1e-5)]


def test_d3po_reads_the_source_of_each_trajectory(editing, tmp_path, monkeypatch):
    """Whenever a network sees a state of a trajectory, while it is sampled and while it is trained on, the tokens behind it
    are those of its own source, as the pipeline encodes and packs them.
    """
    seen, forward = [], FluxTransformer2DModel.forward

    def watched(self, hidden_states, *given, **keys):
        seen.extend(hidden_states.detach().clone())
        return forward(self, hidden_states, *given, **keys)

    monkeypatch.setattr(FluxTransformer2DModel, "forward", watched)
    raw = changed(editing, "loss={name: d3po, beta: 0.1}", "kernel.num_inference_steps=3", "rounds.epochs=1")
    folder = play(raw) / "round-001"
    pipeline = DiffusionPipeline.from_pretrained(raw["model"]["path"])
    samples = read_samples(folder / "samples" / "1-of-1")
    for sample in samples:
        pixels = load_pixels(Path(sample.source), Size(16, 16)).media[None]
        source, media = pipeline._encode_vae_image(pixels, None), folder / "samples" / "1-of-1" / sample.file
        (source,) = pipeline._pack_latents(source, *source.shape)
        for step in range(len(read_times(media)[0]) - 1):
            state = read_step(media, step)[:1]
            found = rows_of(seen, *pipeline._pack_latents(state, *state.shape))
            assert len(found) >= 3  # of the sampler, and of reference and policy
            for tokens in found:
                torch.testing.assert_close(tokens, source, atol=1e-5, rtol=1e-4)
    pairs = read_jsonl(folder / "pairs.jsonl")
    assert {pair["source"] for pair in pairs} == {sample.source for sample in samples}
    lines = RunDir(folder / "run").read_metrics("train")
    assert (len(lines), lines[0]["tie"]) == (
        3,
        1.0,
    )  # 3 pairs of 2 steps, 2 a batch; the policy begins as its reference


@pytest.mark.slow
def test_self_play_on_edits(editing, editing_pairs):
    """A chosen edit wins against the policy's own edit of the same source."""
    raw = changed(
        editing, f"rounds.chosen={editing_pairs}", "rounds.prompts=null", "rounds.samples_per_prompt=1",
        "rounds.reference=previous", "loss={name: diffusion_dpo, beta: 2.0}", "rounds.epochs=0.5",
    )  # fmt: skip
    folder = play(raw) / "round-001"
    given = {str(editing_pairs.parent / line["source"]): line for line in read_jsonl(editing_pairs)}
    samples = read_samples(folder / "samples" / "1-of-1")
    pairs = read_jsonl(folder / "pairs.jsonl")
    assert len(pairs) == 3
    for pair, sample in zip(pairs, samples, strict=True):
        assert sample.source == pair["source"]
        assert (given[pair["source"]]["prompt"], sample.prompt) == (pair["prompt"], pair["prompt"])
        assert Path(pair["chosen"]) == editing_pairs.parent / given[pair["source"]]["chosen"]
        assert Path(pair["rejected"]).name == sample.file
    assert RunDir(folder / "run").read_metrics("train")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("rounds.held_out={folder}/plain.txt",),
            r"rounds\.held_out: prompt 1 \('other'\) has no source, a picture that this model reads",
        ),
        (
            ("rounds.prompts=null", "rounds.chosen={folder}/plain.jsonl"),
            r"rounds\.chosen: the pairs of .* have no source; a FluxKontextPipeline reads one",
        ),
    ],
)
def test_what_has_no_source_is_refused_before_the_first_sample(editing, tmp_path, overrides, message):
    (tmp_path / "plain.txt").write_text("other\n")
    lines = [{"prompt": f"p{n}", "chosen": f"{n}.png", "rejected": f"{n + 1}.png"} for n in range(3)]
    (tmp_path / "plain.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match=message):
        play(changed(editing, *(override.format(folder=tmp_path) for override in overrides)))
    assert not (tmp_path / "online" / "round-000").exists()


def test_a_scorer_that_reads_sources_needs_a_model_that_does(raw_online, tmp_path):
    message = r"rounds\.scorer: change judges a sample by the picture that it was made of; a StableDiffusionPipeline reads none"
    with pytest.raises(UserError, match=message):
        play(changed(raw_online, "rounds.scorer=support.scorers:Change"))
    assert not (tmp_path / "online" / "round-000").exists()
