"""Trainings of the newer families against plain torch: the loss and the gradient's norm of three steps.

The transcription calls the networks as the families' own pipelines do, and takes from sipo only what it promises of its
draws (`sipo.rng`) and the order of the pairs. Media, latents, noising, the loss of Flow-DPO (yifan123/flow_grpo:
scripts/train_sd3_dpo.py) and AdamW are its own.
"""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image
from rich.console import Console
from support.newer_checkpoints import NEWER
from support.pictures import picture
from support.videos import noise, video
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from sipo.config import parse_config
from sipo.data.batches import schedule_slots
from sipo.rng import pair_rand, pair_randn
from sipo.train.loop import train

SEED, STEPS, PAIRS, BATCH, BETA, LEARNING_RATE, K = 7, 3, 4, 2, 100, 1e-3, 50
EPSILON = 1e-3  # so that AdamW does not divide what rounding leaves of a vanishing gradient by itself
PROMPTS = ["a cat", 'a dog that sits on a "mat"', "two birds", '"a"']


@dataclass(frozen=True)
class Plain:
    """A family in plain diffusers: x0 of the VAE's latents, the velocity at (x_t, t) of prompts, and its shift."""

    x0: Callable[[Any, Tensor], Tensor]
    velocity: Callable[[Any, dict[str, nn.Module], Tensor, Tensor, list[str]], Tensor]
    shift: float


def sd3_velocity(pipeline, networks, xt, t, prompts):
    hidden, _, pooled, _ = pipeline.encode_prompt(prompts, prompts, prompts, do_classifier_free_guidance=False)
    return networks["transformer"](xt, hidden, pooled, t, return_dict=False)[0]


def one_scale(pipeline, latents):
    return (latents - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor


def by_scale(pipeline, latents):
    return latents * pipeline.vae.config.scaling_factor


def qwen_velocity(pipeline, networks, xt, t, prompts):
    hidden, mask = pipeline.encode_prompt(prompts, max_sequence_length=512)
    packed = networks["transformer"](
        hidden_states=pipeline._pack_latents(xt, *xt.shape), timestep=t / 1000, encoder_hidden_states=hidden,
        encoder_hidden_states_mask=mask, img_shapes=[[(1, xt.shape[2] // 2, xt.shape[3] // 2)]] * len(xt),
    )[0]  # fmt: skip
    return pipeline._unpack_latents(packed, 16, 16, pipeline.vae_scale_factor).squeeze(2)


def z_velocity(pipeline, networks, xt, t, prompts):
    texts, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
    samples = networks["transformer"](list(xt.unsqueeze(2).unbind(0)), (1000 - t) / 1000, texts, return_dict=False)[0]
    return -torch.stack(samples).squeeze(2)


def klein_velocity(pipeline, networks, xt, t, prompts):
    hidden, text_ids = pipeline.encode_prompt(prompts)
    ids = pipeline._prepare_latent_ids(xt)
    packed = networks["transformer"](
        hidden_states=pipeline._pack_latents(xt), timestep=t / 1000, encoder_hidden_states=hidden, txt_ids=text_ids,
        img_ids=ids,
    )[0]  # fmt: skip
    return pipeline._unpack_latents_with_ids(packed, ids, *xt.shape[2:])


def wan_velocity(pipeline, networks, xt, t, prompts):
    hidden, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
    if pipeline.config.expand_timesteps:  # a token of 1 x 2 x 2 latents has a timestep of its own
        t = t[:, None].expand(-1, xt[0, 0, :, ::2, ::2].numel())
    boundary = (pipeline.config.boundary_ratio or 0) * 1000
    samples = [
        networks["transformer" if t[row].max() >= boundary else "transformer_2"](xt[[row]], t[[row]], hidden[[row]])[0]
        for row in range(len(xt))
    ]
    return torch.cat(samples)


def hunyuan_velocity(pipeline, networks, xt, t, prompts):
    text, mask, glyphs, of_glyphs = pipeline.encode_prompt(prompts, batch_size=len(prompts))
    first_frame = pipeline.prepare_cond_latents_and_mask(xt, xt.dtype, xt.device)
    return networks["transformer"](
        torch.cat([xt, *first_frame], 1), t, text, mask, encoder_hidden_states_2=glyphs, encoder_attention_mask_2=of_glyphs,
        image_embeds=torch.zeros(len(xt), pipeline.vision_num_semantic_tokens, pipeline.vision_states_dim), return_dict=False,
    )[0]  # fmt: skip


def ltx2_velocity(pipeline, networks, xt, t, prompts):
    """The video's by itself, with noise and the prompts for the audio, which it does not see."""
    hidden, mask, _, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False)
    video, audio, mask = pipeline.connectors(hidden, mask)
    grid = dict(zip(("num_frames", "height", "width"), xt.shape[2:], strict=True))
    packed = networks["transformer"](
        hidden_states=pipeline._pack_latents(xt), audio_hidden_states=torch.randn(len(xt), 8, 8), timestep=t, sigma=t,
        encoder_hidden_states=video, audio_encoder_hidden_states=audio, encoder_attention_mask=mask, **grid, fps=16,
        audio_encoder_attention_mask=mask, audio_num_frames=8, isolate_modalities=True, return_dict=False,
    )[0]  # fmt: skip
    return pipeline._unpack_latents(packed, *xt.shape[2:])


def of_the_vae(pipeline, latents):
    vae = pipeline.vae
    return pipeline._normalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)


def in_patches(pipeline, latents):
    bn = pipeline.vae.bn
    patches = pipeline._patchify_latents(latents)
    return torch.nn.functional.batch_norm(patches, bn.running_mean, bn.running_var, eps=bn.eps)


def channel_by_channel(pipeline, latents):
    shape = (1, -1, *[1] * (latents.ndim - 2))
    mean, std = (torch.tensor(pipeline.vae.config[key]).view(shape) for key in ("latents_mean", "latents_std"))
    return (latents - mean) / std


PLAIN = {
    "sd3": Plain(one_scale, sd3_velocity, 3.0),
    "flux2-klein": Plain(in_patches, klein_velocity, math.exp(compute_empirical_mu(16, 50))),
    "z-image": Plain(one_scale, z_velocity, 6.0),
    "wan2.2-5b": Plain(channel_by_channel, wan_velocity, 5.0),
    "wan2.2-14b": Plain(channel_by_channel, wan_velocity, 3.0),
    "hunyuan-video-1.5": Plain(by_scale, hunyuan_velocity, 5.0),
    "qwen-image": Plain(channel_by_channel, qwen_velocity, math.exp(0.5 + 0.4 * (16 - 256) / (8192 - 256))),
    "ltx2": Plain(of_the_vae, ltx2_velocity, math.exp(0.95 + 1.1 * (2 * 4 * 4 - 1024) / (4096 - 1024))),
}


def pairs_on_disk(folder: Path, is_video: bool, side: int) -> tuple[Path, list[list[Tensor]]]:
    """A manifest of media of the model's own size, and their pixels in [-1, 1]: chosen, rejected."""
    lines, pixels = [], []
    for number in range(PAIRS):
        line, members = {"prompt": PROMPTS[number]}, []
        for member, name in enumerate(("chosen", "rejected")):
            seed = 2 * number + member
            content = video(noise(5, (side, side), seed), fps=16) if is_video else picture(seed, (side, side))
            line[name] = f"{seed}.{'mp4' if is_video else 'png'}"
            (folder / line[name]).write_bytes(content)
            if is_video:
                with av.open(io.BytesIO(content)) as file:
                    frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
            else:
                frames = [np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))]
            channels_first = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1  # (3, F, H, W)
            members.append(channels_first if is_video else channels_first.squeeze(1))
        lines.append(line)
        pixels.append(members)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "pairs.jsonl", pixels


def transcription(plain: Plain, base: Path, pixels: list[list[Tensor]], parts: list[str]) -> list[dict[str, float]]:
    """The loss and the gradient's norm of each step of full fine-tuning."""
    pipeline, frozen = (DiffusionPipeline.from_pretrained(base) for _ in range(2))
    networks, reference = ({part: getattr(each, part) for part in parts} for each in (pipeline, frozen))
    weights = [weight for network in networks.values() for weight in network.train().parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=0.01, eps=EPSILON)
    steps = []
    for step in range(1, STEPS + 1):
        slots = schedule_slots(PAIRS, SEED, step - 1, BATCH)
        slot = torch.tensor([place.slot for place in slots])
        prompts = [PROMPTS[place.index] for place in slots] * 2
        with torch.no_grad():
            latents = []
            for member, name in enumerate(("chosen", "rejected")):
                given = torch.stack([pixels[place.index][member] for place in slots])
                latents.append(x0_of(plain, pipeline, given, step, slot, name))
            x0 = torch.cat(latents)
            eps = pair_randn(x0.shape[1:], SEED, step, slot, "eps").repeat(2, *[1] * (x0.ndim - 1))
            u = 1 / K + (1 - 1 / K) * pair_rand(SEED, step, slot, "timestep").repeat(
                2
            )  # no step of the grid at u <= 1/K
            s = (plain.shift * u / (1 + (plain.shift - 1) * u)).float()
            wide = s.view(-1, *[1] * (x0.ndim - 1))
            xt, t = (1 - wide) * x0 + wide * eps, 1000 * s
            reference_error = plain.velocity(frozen, reference, xt, t, prompts).sub(eps - x0).pow(2).flatten(1).mean(1)
        error = plain.velocity(pipeline, networks, xt, t, prompts).sub(eps - x0).pow(2).flatten(1).mean(1)
        (L_w, L_l), (R_w, R_l) = error.chunk(2), reference_error.chunk(2)
        loss = -logsigmoid(-0.5 * BETA * ((L_w - R_w) - (L_l - R_l))).mean()
        loss.backward()
        for weight in weights:  # a network that no sample of the step reached decays and moves on all the same
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        steps.append({"loss": loss.item(), "grad_norm": torch.nn.utils.clip_grad_norm_(weights, 1.0).item()})
        optimizer.step()
        optimizer.zero_grad()
    return steps


def x0_of(plain: Plain, pipeline: Any, given: Tensor, step: int, slot: Tensor, name: str) -> Tensor:
    one_frame = type(pipeline.vae).__name__ == "AutoencoderKLQwenImage"
    if type(pipeline).__name__ == "HunyuanVideo15Pipeline":
        pipeline.vae.enable_slicing()  # its mask of attention is of one video's shape
    posterior = pipeline.vae.encode(given.unsqueeze(2) if one_frame else given).latent_dist
    if type(pipeline).__name__ == "LTX2Pipeline":
        return plain.x0(pipeline, posterior.mean)  # as its authors' encoder, which drops the variance
    mean, std = (each.squeeze(2) if one_frame else each for each in (posterior.mean, posterior.std))
    shape, in_patches = mean.shape[1:], hasattr(pipeline, "_unpatchify_latents")
    if in_patches:
        shape = pipeline._patchify_latents(mean).shape[1:]
    drawn = pair_randn(shape, SEED, step, slot, f"vae {name}")
    drawn = pipeline._unpatchify_latents(drawn) if in_patches else drawn
    return plain.x0(pipeline, mean + std * drawn)


@pytest.mark.parametrize("name", NEWER)
def test_three_steps_have_the_loss_and_the_gradient_of_plain_torch(tiny_family, tmp_path, name):
    data = NEWER[name][1]
    manifest, pixels = pairs_on_disk(tmp_path, "num_frames" in data, data.get("resolution", 16))
    run = train(parse_config({
        "run": str(tmp_path / "run"), "model": {"path": str(tiny_family(name))},
        "data": {"path": str(manifest), "workers": 0, **data},
        "loss": {"name": "diffusion_dpo", "beta": BETA / 1000}, "policy": {"kind": "full"},
        "train": {"num_steps": STEPS, "batch_size": BATCH, "seed": SEED, "learning_rate": LEARNING_RATE,
                  "sample_every": 0, "validate_every": 0, "weight_decay": 0.01, "epsilon": EPSILON},
        "log": {"tensorboard": False},
    }), Console(quiet=True))  # fmt: skip
    lines = run.read_metrics("train")
    parts = ["transformer", "transformer_2"] if name == "wan2.2-14b" else ["transformer"]
    steps = transcription(PLAIN[name], tiny_family(name), pixels, parts)
    for key in ("loss", "grad_norm"):
        found, expected = ([step[key] for step in each] for each in (lines, steps))
        assert found == pytest.approx(expected, rel=1e-4), key
    assert steps[0]["loss"] == pytest.approx(np.log(2), rel=1e-5)
    assert all(abs(step["loss"] - np.log(2)) > 1e-3 for step in steps[1:])
