"""HunyuanVideo-1.5 against diffusers' own pipeline and network, where it differs from other families: texts, the forward, the guider.

What it shares with them is in test_newer_families.py.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, HunyuanVideo15Pipeline, HunyuanVideo15Transformer3DModel
from support.newer_checkpoints import NEWER
from torch import Tensor

from sipo.backbones import Backbone, load_backbone, read_architecture
from sipo.backbones.captions import overlong
from sipo.config import DataConfig, ModelConfig
from sipo.errors import UserError

PROMPTS = ["a cat", 'a dog that sits on a "mat"']
close = torch.testing.assert_close


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


HUNYUAN = "hunyuan-video-1.5"


def load(tiny_family) -> Backbone:
    return load_backbone(ModelConfig(str(tiny_family(HUNYUAN))), size=DataConfig("x", **NEWER[HUNYUAN][1]).size)


def test_texts_are_those_of_the_pipeline(tiny_family):
    """Both encoders', where the pipeline's own masks have a token; what a mask leaves out is zeros."""
    backbone, prompts = load(tiny_family), ['"one" and "two", "one"', "nothing is quoted", ""]
    pipeline = DiffusionPipeline.from_pretrained(tiny_family(HUNYUAN))
    found = backbone.encode_prompts(prompts)
    with torch.no_grad():
        expected = pipeline.encode_prompt(prompts, batch_size=3)
    for suffix, (hidden, mask) in zip(("", "_2"), (expected[:2], expected[2:]), strict=True):
        assert found[f"lengths{suffix}"].tolist() == mask.sum(1).tolist()
        close(found[f"encoder_hidden_states{suffix}"], hidden * mask.unsqueeze(2), atol=1e-6, rtol=1e-5)
    assert found["lengths_2"].tolist() == [len('Text "one". Text "two". ') + 1, 0, 0]  # a token a byte, and an end


@pytest.mark.parametrize(
    "prompts", [PROMPTS, PROMPTS[::-1], PROMPTS[1:] * 2, ["nothing", "quoted."], ['"a" b', 'b "a"']]
)
def test_forward_without_masked_tokens_is_diffusers_own(tiny_family, prompts):
    """Prediction and gradient of every weight, for texts of equal and of different lengths, against all tokens and their masks."""
    backbone = load(tiny_family)
    network = backbone.denoiser.requires_grad_(True)
    plain = DiffusionPipeline.from_pretrained(tiny_family(HUNYUAN))
    xt, t = normal(2, *backbone.adapter.latent_shape(backbone.size)), torch.tensor([900.0, 101.5])
    ours = backbone.predict(network, xt, t, backbone.encode_prompts(prompts))
    with torch.no_grad():
        text, mask, glyphs, of_glyphs = plain.encode_prompt(prompts, batch_size=2)
    theirs = plain.transformer(
        torch.cat([xt, *plain.prepare_cond_latents_and_mask(xt, xt.dtype, xt.device)], 1), t, text, mask,
        encoder_hidden_states_2=glyphs, encoder_attention_mask_2=of_glyphs, image_embeds=torch.zeros(2, 729, 8),
    ).sample  # fmt: skip
    close(ours, theirs, atol=2e-6, rtol=1e-5)
    for prediction in (ours, theirs):
        prediction.square().mean().backward()
    own = dict(network.named_parameters())
    for name, weight in plain.transformer.named_parameters():
        expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
        given = torch.zeros_like(weight) if own[name].grad is None else own[name].grad
        close(given, expected, atol=1e-6, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def arguments(pipeline: DiffusionPipeline, xt: Tensor, image: float = 0.0, padding_side: str = "right") -> dict:
    """What the pipeline passes to its network for PROMPTS, and in the place of no image one of equal numbers."""
    pipeline.tokenizer.padding_side = padding_side
    with torch.no_grad():
        text, mask, glyphs, of_glyphs = pipeline.encode_prompt(PROMPTS, batch_size=2)
    return {
        "hidden_states": torch.cat([xt, *pipeline.prepare_cond_latents_and_mask(xt, xt.dtype, xt.device)], 1),
        "timestep": torch.tensor([900.0, 101.5]), "encoder_hidden_states": text, "encoder_attention_mask": mask,
        "encoder_hidden_states_2": glyphs, "encoder_attention_mask_2": of_glyphs,
        "image_embeds": torch.full((2, 729, 8), image), "return_dict": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    "given", [{}, {"image": 0.5}, {"padding_side": "left"}], ids=["text", "an image", "padding first"]
)
@torch.no_grad()
def test_a_call_by_the_pipeline_has_diffusers_own_result(tiny_family, given):
    """Without its masked tokens where it is one of text to video; diffusers' own forward takes all others."""
    backbone, plain = load(tiny_family), DiffusionPipeline.from_pretrained(tiny_family(HUNYUAN))
    keys, lengths = arguments(plain, normal(2, *backbone.adapter.latent_shape(backbone.size)), **given), []
    backbone.denoiser.transformer_blocks[0].register_forward_pre_hook(lambda _, args: lengths.append(args[1].shape[1]))
    close(backbone.denoiser(**keys)[0], plain.transformer(**keys)[0], atol=2e-6, rtol=1e-5)
    longest = int((keys["encoder_attention_mask"].sum(1) + keys["encoder_attention_mask_2"].sum(1)).max())
    assert lengths == [1000 + 256 + 729 if given else longest]


def test_timesteps_are_not_rounded_under_autocast(tiny_family):
    """bfloat16 has no number between 900 and 904."""
    backbone, seen = load(tiny_family), []
    backbone.denoiser.time_embed.time_proj.register_forward_hook(lambda _, args, output: seen.append(args[0]))
    xt, text = normal(1, *backbone.adapter.latent_shape(backbone.size)), backbone.encode_prompts(PROMPTS[:1])
    text = {name: value.bfloat16() if value.is_floating_point() else value for name, value in text.items()}
    with torch.autocast("cpu", torch.bfloat16):
        backbone.predict(backbone.denoiser, xt, torch.tensor([901.0]), text)
    assert seen[0].tolist() == [901.0]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_guider_takes_the_scale_of_a_call_and_is_the_checkpoint_s_afterwards(tiny_family, guidance):
    """Two predictions a step where the scale is not 1; with a scale of 6, which the checkpoint has, other frames."""
    backbone, calls = load(tiny_family), []
    backbone.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    frames = backbone.sampler(2, guidance)(PROMPTS[:1], [0])[0]
    assert len(calls) == (2 if guidance == 1 else 4)
    assert backbone.pipeline.guider.config.guidance_scale == 6.0
    others = backbone.sampler(2, 6.0)(PROMPTS[:1], [0])[0]
    assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(frames, others, strict=True))


@pytest.mark.parametrize(
    ("part", "changed", "message"),
    [
        ("transformer", {"task_type": "i2v"}, "trained for i2v; text to video .t2v. is supported"),
        ("transformer", {"use_meanflow": True}, "predicts mean flows"),
        ("transformer", {"in_channels": 8}, "reads 8 channels; expected 9: twice the VAE's 4, and a mask"),
        ("transformer", {"target_size": None}, "its configs do not make a HunyuanVideo15Pipeline"),
    ],
)
def test_models_of_another_kind_are_refused(tiny_family, tmp_path, part, changed, message):
    folder = shutil.copytree(tiny_family(HUNYUAN), tmp_path / "other")
    file = folder / part / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    with pytest.raises(UserError, match=message):
        load_backbone(ModelConfig(str(folder)))


@pytest.mark.parametrize(("target", "sides"), [(640, (480, 848)), (960, (720, 1280))])
def test_native_size_is_the_pipeline_s_choice(target, sides):
    architecture = read_architecture(ModelConfig("hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"))
    configs = {**architecture.configs, "transformer": {**architecture.configs["transformer"], "target_size": target}}
    native = architecture.family.adapter(configs).sizes.native
    assert (native.height, native.width, native.num_frames, native.fps) == (*sides, 121, 24.0)


def test_the_language_model_s_limit_counts_for_captions_and_that_of_quotations_does_not(tiny_family):
    """300 letters are more than ByT5 reads, of which a prompt gives it what is quoted alone."""
    folder = tiny_family(HUNYUAN)
    architecture = read_architecture(ModelConfig(str(folder)))
    assert overlong(architecture, folder, ["a" * 300]) == []
    (found,) = overlong(architecture, folder, ["a" * 996])
    assert (found.part, found.limit, found.longest) == ("text_encoder", 995, 996)


def test_an_exported_pipeline_is_diffusers_own_with_the_checkpoint_s_guider(tiny_family, tmp_path):
    backbone = load(tiny_family)
    backbone.save_full(tmp_path, dict(backbone.denoiser.state_dict()))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(pipeline) is HunyuanVideo15Pipeline
    assert type(pipeline.transformer) is HunyuanVideo15Transformer3DModel
    assert pipeline.guider.config.guidance_scale == 6.0
