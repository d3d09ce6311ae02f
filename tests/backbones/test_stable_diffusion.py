"""The adapter against diffusers' own pipelines."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline

from sipo.backbones import load_backbone
from sipo.config import ModelConfig
from sipo.errors import UserError


@pytest.fixture(params=["tiny_sd", "tiny_sdxl"])
def checkpoint(request):
    return request.getfixturevalue(request.param)


def test_samples_are_those_of_plain_diffusers(checkpoint):
    plain = DiffusionPipeline.from_pretrained(checkpoint)
    expected = plain(["a cat", "a dog"], generator=[torch.Generator().manual_seed(s) for s in (3, 4)],
                     num_inference_steps=3, guidance_scale=5.0, height=16, width=16).images  # fmt: skip
    images = load_backbone(ModelConfig(str(checkpoint))).sampler(3, 5.0)(["a cat", "a dog"], [3, 4])
    for image, wanted in zip(images, expected, strict=True):
        assert np.array_equal(np.asarray(image), np.asarray(wanted))


def test_latents_follow_the_vae_and_its_scale(checkpoint):
    backbone = load_backbone(ModelConfig(str(checkpoint)))
    vae = AutoencoderKL.from_pretrained(checkpoint, subfolder="vae")
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    posterior = vae.encode(pixels).latent_dist
    noise = torch.randn(posterior.mean.shape)
    expected = (posterior.mean + posterior.std * noise) * vae.config.scaling_factor
    torch.testing.assert_close(backbone.latents(backbone.encode_media(pixels), noise), expected)


def test_schedule_is_that_of_the_checkpoint(checkpoint):
    schedule = load_backbone(ModelConfig(str(checkpoint))).schedule
    oracle = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.testing.assert_close(schedule.alphas_cumprod, oracle.alphas_cumprod)
    assert schedule.prediction == "epsilon"


def test_sdxl_prediction_equals_a_call_with_explicit_conditioning(tiny_sdxl):
    backbone = load_backbone(ModelConfig(str(tiny_sdxl)))
    conditioning = backbone.encode_prompts(["a cat", "a dog"])
    xt, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 500])
    pipeline = DiffusionPipeline.from_pretrained(tiny_sdxl)
    # conventions of the reference implementation: hidden_states[-2] of both encoders, pooled output of the second
    hidden, pooled = [], None
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        ids = tokenizer(
            ["a cat", "a dog"], padding="max_length", max_length=16, truncation=True, return_tensors="pt"
        ).input_ids
        out = encoder(ids, output_hidden_states=True)
        hidden.append(out.hidden_states[-2])
        pooled = out[0]
    time_ids = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]]).expand(2, 6)
    expected = pipeline.unet(xt, t, encoder_hidden_states=torch.cat(hidden, -1),
                             added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}).sample  # fmt: skip
    torch.testing.assert_close(backbone.predict(backbone.denoiser, xt, t, conditioning), expected)


def test_encoders_leave_memory_and_come_back(checkpoint):
    whole = load_backbone(ModelConfig(str(checkpoint)))
    bare = load_backbone(ModelConfig(str(checkpoint)), encoders=False)
    assert bare.pipeline.vae is None
    assert bare.pipeline.text_encoder is None
    with bare.encoders():
        again = bare.encode_prompts(["a cat"])
    assert bare.pipeline.vae is None
    for name, value in whole.encode_prompts(["a cat"]).items():
        assert again[name].equal(value)


def test_a_lora_is_merged_into_the_base(tiny_sd, tmp_path):
    backbone = load_backbone(ModelConfig(str(tiny_sd)))
    from peft import LoraConfig

    backbone.denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    backbone.save_lora(tmp_path, {n: w for n, w in backbone.denoiser.named_parameters() if "lora_" in n})
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([7]), backbone.encode_prompts(["a cat"])
    merged = load_backbone(ModelConfig(str(tiny_sd), lora=str(tmp_path)))
    assert not any("lora" in name for name, _ in merged.denoiser.named_parameters())
    expected = backbone.predict(backbone.denoiser, *inputs)
    torch.testing.assert_close(merged.predict(merged.denoiser, *inputs), expected, atol=1e-5, rtol=1e-4)


def test_fingerprint_tells_encoders_apart(tiny_sd, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_sd, tmp_path / "copy")
    one = load_backbone(ModelConfig(str(tiny_sd))).fingerprint()
    assert load_backbone(ModelConfig(str(copy))).fingerprint() == one
    vae = AutoencoderKL.from_pretrained(copy, subfolder="vae")
    vae.encoder.conv_in.weight.data[0, 0, 0, 0] += 1
    vae.save_pretrained(copy / "vae")
    changed = load_backbone(ModelConfig(str(copy))).fingerprint()
    assert {name for name in one if one[name] != changed[name]} == {"vae"}


def test_messages_for_paths_without_a_model(tmp_path):
    with pytest.raises(UserError, match=r"should hold a model_index\.json"):
        load_backbone(ModelConfig(str(tmp_path)))
    with pytest.raises(UserError, match="neither a folder here nor a hub id"):
        load_backbone(ModelConfig("nobody/nothing-of-the-kind"))
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline", "_diffusers_version": "0.30"}')
    with pytest.raises(UserError, match="KandinskyPipeline; supported are"):
        load_backbone(ModelConfig(str(tmp_path)))
