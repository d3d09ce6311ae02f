"""Long captions in windows, against a transcription that encodes window after window by hand on the same tiny CLIPs."""

import json

import pytest
import torch
from PIL import ImageChops
from support.configs import changed
from support.runs import train_raw

from sipo.backbones import load_backbone, read_architecture
from sipo.config import ModelConfig
from sipo.errors import UserError

SHORT, EXACT, LONG, TOO_LONG = "abc", "a" * 14, "abcdefghijklmnopqrstuvwxyz", "x" * 50  # a letter is a token; 14 fit


def by_hand(pipeline, prompt: str, windows: int, xl: bool):
    """One window at a time, through the text encoders' own forward: states (windows * 16, D) and the first pooled one."""
    parts = [("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")][: 2 if xl else 1]
    sides, pooled = [], []
    for tokenizer, encoder in ((getattr(pipeline, a), getattr(pipeline, b)) for a, b in parts):
        ids = tokenizer(prompt).input_ids[1:-1]  # without start and end
        chunks = []
        for number in range(windows):
            own = [188, *ids[14 * number : 14 * number + 14], 189]
            own += [189] * (16 - len(own))
            with torch.no_grad():
                out = encoder(torch.tensor([own]), output_hidden_states=True)
            chunks.append((out.hidden_states[-2] if xl else out.last_hidden_state)[0])
            pooled.append(out.get("text_embeds"))
        sides.append(torch.cat(chunks))
    return torch.cat(sides, dim=1), pooled[-windows]


@pytest.mark.parametrize(("family", "xl"), [("sd", False), ("sdxl", True)])
def test_against_a_transcription(tiny_family, family, xl):
    backbone = load_backbone(ModelConfig(str(tiny_family(family)), caption_windows=3))
    prompts = [SHORT, EXACT, "", LONG, TOO_LONG]
    found = backbone.encode_prompts(prompts)
    assert found["encoder_hidden_states"].shape == (5, 48, 64 if xl else 32)
    for row, prompt in enumerate(prompts):
        states, pooled = by_hand(backbone.pipeline, prompt, 3, xl)
        torch.testing.assert_close(found["encoder_hidden_states"][row], states, rtol=1e-5, atol=1e-6)
        if xl:
            torch.testing.assert_close(found["text_embeds"][row], pooled[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("family", "masked"), [("sd", False), ("sd", True), ("sdxl", False), ("sdxl", True)])
def test_the_first_window_is_what_the_pipeline_itself_reads(tiny_family, family, masked):
    """One window is its `encode_prompt`, to the bit; of two the first is it."""
    path, prompts = str(tiny_family(family)), [SHORT, EXACT, "", LONG, TOO_LONG, "<|endoftext|> a"]
    one, two = (load_backbone(ModelConfig(path, caption_windows=n)) for n in (1, 2))
    for backbone in (one, two):  # XL's pipeline does not look at it
        backbone.pipeline.text_encoder.config.use_attention_mask = masked
    with torch.no_grad():
        hidden, _, *pooled = one.pipeline.encode_prompt(
            prompts, device=one.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    plain, windowed = one.encode_prompts(prompts), two.encode_prompts(prompts)
    assert plain["encoder_hidden_states"].equal(hidden)
    torch.testing.assert_close(windowed["encoder_hidden_states"][:, :16], hidden)
    if family == "sdxl":
        assert plain["text_embeds"].equal(pooled[0])
        torch.testing.assert_close(windowed["text_embeds"][:1], pooled[0][:1])


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_pictures_depend_on_what_would_be_cut(tiny_family, family):
    prompts = [EXACT + "b" * 5, EXACT + "c" * 5]
    for windows, equal in ((1, True), (2, False)):
        sample = load_backbone(ModelConfig(str(tiny_family(family)), caption_windows=windows)).sampler(2, 5.0)
        one, other = sample(prompts, [0, 0])
        assert (ImageChops.difference(one, other).getbbox() is None) is equal


def test_shapes_of_a_plan(tiny_family):
    architecture = read_architecture(ModelConfig(str(tiny_family("sdxl")), caption_windows=3))
    shapes = {name: value.shape for name, value in architecture.adapter.meta_prompts(2, torch.float32).items()}
    found = load_backbone(architecture).encode_prompts(["a", "b"])
    assert shapes == {name: value.shape for name, value in found.items()}
    assert architecture.adapter.tokens == {"text_encoder": 48, "text_encoder_2": 48}


def test_families_that_read_captions_in_one_piece_refuse_it(tiny_family):
    with pytest.raises(UserError, match=r"model.caption_windows: 2; .* A FluxPipeline reads captions in one piece"):
        read_architecture(ModelConfig(str(tiny_family("flux")), caption_windows=2))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_training_with_and_without_a_cache(raw_config, tmp_path, kind):
    """Equal to rounding: the cache holds what is encoded otherwise in each step. The cache knows its windows."""
    raw = changed(raw_config, "model.caption_windows=2", f"policy.kind={kind}", "train.num_steps=2", "train.validate_every=0",
                  "train.sample_every=2", "sample.num_prompts=1", "sample.num_inference_steps=2")  # fmt: skip
    cached = changed(raw, f"run={tmp_path / 'cached'}", f"data.cache={tmp_path / 'cache'}")
    runs = [train_raw(each) for each in (raw, cached)]
    losses = [[line["loss"] for line in run.read_metrics("train")] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    made = json.loads((tmp_path / "cache" / "manifest.json").read_text())["made_by"]
    assert made["model.caption windows"] == "2"
    assert "2 windows of 75 tokens" in (runs[0].weights / "README.md").read_text()
    with pytest.raises(UserError, match="caption windows: 2 in the cache, 3 here"):
        train_raw(changed(cached, f"run={tmp_path / 'other'}", "model.caption_windows=3"))
