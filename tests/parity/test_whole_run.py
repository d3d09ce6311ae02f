"""Five steps of a whole training against a direct transcription of Diffusion-DPO in plain torch and diffusers.

The transcription follows the formula of SalesforceAIResearch/DiffusionDPO:train.py and takes from sipo only what it
promises of its draws: `sipo.rng`, a function of (seed, step, slot), and the order of the pairs. Pictures, latents,
noising, loss, warm-up, clipping and AdamW are its own. What is compared is what a user of plain diffusers loads.

Noised with coefficients from float64, as sipo does, the weights are equal to the last bit. `DDPMScheduler.add_noise`
takes the root of a float32 table: 6e-8 of x_t, hence of an error near 1, which `beta_dpo / 2` = 2500 makes 1.5e-4 of
the logit; AdamW then divides by the gradient's size, so that an entry whose gradient nearly vanishes moves by any part
of a step.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from rich.console import Console
from support.pictures import picture, write_parquet
from torch import Tensor
from torch.nn.functional import logsigmoid

from sipo.config import parse_config
from sipo.data.batches import schedule_slots
from sipo.rng import pair_rand, pair_randn
from sipo.train.loop import train

SEED, STEPS, PAIRS, MICRO_BATCH, ACCUMULATION = 7, 5, 6, 2, 2  # 20 draws of 6 pairs: batches run across epoch ends
BETA_DPO, LEARNING_RATE, WARMUP, WEIGHT_DECAY, MAX_GRAD_NORM, RANK, ALPHA = 5000, 1e-3, 2, 0.01, 1.0, 4, 8


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # where the transcription runs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Pictures of the model's own size, so that there is nothing to resize; jpg_1 is chosen in the odd rows."""
    return write_parquet(tmp_path_factory.mktemp("parity") / "pairs.parquet", {
        "jpg_0": [picture(2 * n, (16, 16)) for n in range(PAIRS)],
        "jpg_1": [picture(2 * n + 1, (16, 16)) for n in range(PAIRS)],
        "label_0": [float(n % 2 == 0) for n in range(PAIRS)],
        "caption": [f"prompt {n}" for n in range(PAIRS)],
    })  # fmt: skip


Noising = Callable[[DDPMScheduler, Tensor, Tensor, Tensor], Tensor]


def from_float64(scheduler: DDPMScheduler, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    abar = scheduler.alphas_cumprod.double()[t].reshape(-1, 1, 1, 1)
    return abar.sqrt().float() * x0 + (1 - abar).sqrt().float() * noise


def transcription(
    base: Path, pairs: Path, kind: str, add_noise: Noising
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict[str, float]]]:
    """The trained weights by name, before and after, and the loss and the gradient norm of each step."""
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    reference = UNet2DConditionModel.from_pretrained(base, subfolder="unet").requires_grad_(False)
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    unet, vae = pipeline.unet.train(), pipeline.vae
    if kind == "lora":
        unet.requires_grad_(False)
        torch.manual_seed(SEED)
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    trained = {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=LEARNING_RATE, betas=(0.9, 0.999), weight_decay=WEIGHT_DECAY)

    rows = pq.read_table(pairs).to_pylist()

    def pixels(members: list[bytes]) -> Tensor:
        """(B, 3, H, W), in memory as they are decoded: channels last."""
        images = [np.asarray(Image.open(io.BytesIO(member)).convert("RGB"), dtype=np.float32) for member in members]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1

    steps = []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(step / WARMUP, 1.0)
        slots = schedule_slots(PAIRS, SEED, step - 1, MICRO_BATCH * ACCUMULATION)
        total = 0.0
        for micro in (slots[:MICRO_BATCH], slots[MICRO_BATCH:]):
            batch, slot = [rows[place.index] for place in micro], torch.tensor([place.slot for place in micro])
            chosen = [row["jpg_0"] if row["label_0"] == 1 else row["jpg_1"] for row in batch]
            rejected = [row["jpg_1"] if row["label_0"] == 1 else row["jpg_0"] for row in batch]
            with torch.no_grad():
                posterior = vae.encode(pixels(chosen + rejected)).latent_dist
                shape = posterior.mean.shape[1:]
                drawn = torch.cat(
                    [pair_randn(shape, SEED, step, slot, f"vae {name}") for name in ("chosen", "rejected")]
                )
                latents = ((posterior.mean + posterior.std * drawn) * vae.config.scaling_factor).contiguous()
                tokens = pipeline.tokenizer(
                    [row["caption"] for row in batch], padding="max_length", truncation=True, return_tensors="pt"
                )
                text = pipeline.text_encoder(tokens.input_ids)[0].repeat(2, 1, 1)
            noise = pair_randn(latents.shape[1:], SEED, step, slot, "eps").repeat(2, 1, 1, 1)
            t = (1 + 999 * pair_rand(SEED, step, slot, "timestep")).long().repeat(2)  # uniform in 1..999
            noisy = add_noise(scheduler, latents, noise, t)

            model_losses = (unet(noisy, t, text).sample - noise).pow(2).mean(dim=[1, 2, 3])
            with torch.no_grad():
                reference_losses = (reference(noisy, t, text).sample - noise).pow(2).mean(dim=[1, 2, 3])
            (L_w, L_l), (R_w, R_l) = model_losses.chunk(2), reference_losses.chunk(2)
            inside = -0.5 * BETA_DPO * ((L_w - R_w) - (L_l - R_l))
            loss = -logsigmoid(inside).mean() / ACCUMULATION
            loss.backward()
            total += loss.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(trained.values(), MAX_GRAD_NORM).item()
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"loss": total, "grad_norm": grad_norm})
    return before, {name: weight.detach() for name, weight in trained.items()}, steps


def exported(base: Path, weights: Path, kind: str) -> dict[str, Tensor]:
    """What a user of plain diffusers loads, by the names of the network's parameters."""
    if kind == "full":
        return UNet2DConditionModel.from_pretrained(weights, subfolder="unet").state_dict()
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(weights)
    return {name.replace(".default_0.", ".default."): weight for name, weight in pipeline.unet.state_dict().items()}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_five_steps_give_the_weights_of_a_direct_transcription(tiny_sd, pairs, tmp_path, kind):
    run = train(parse_config({
        "run": str(tmp_path / "run"), "model": {"path": str(tiny_sd)}, "data": {"path": str(pairs), "workers": 0},
        "loss": {"name": "diffusion_dpo", "beta": BETA_DPO / 1000},
        "policy": {"kind": kind, "rank": RANK, "alpha": ALPHA},
        "train": {"num_steps": STEPS, "batch_size": MICRO_BATCH, "gradient_accumulation": ACCUMULATION, "seed": SEED,
                  "learning_rate": LEARNING_RATE, "warmup_steps": WARMUP, "weight_decay": WEIGHT_DECAY,
                  "max_grad_norm": MAX_GRAD_NORM, "sample_every": 0, "validate_every": 0},
        "log": {"tensorboard": False},
    }), Console(quiet=True))  # fmt: skip
    lines, mine = run.read_metrics("train"), exported(tiny_sd, run.weights, kind)

    _, after, steps = transcription(tiny_sd, pairs, kind, from_float64)
    assert after.keys() <= mine.keys()
    assert [name for name in after if not mine[name].equal(after[name])] == []
    compare(lines, steps, 1e-5)  # the file holds six digits
    assert min(step["grad_norm"] for step in steps) > 2 * MAX_GRAD_NORM  # the clip binds

    before, after, steps = transcription(tiny_sd, pairs, kind, DDPMScheduler.add_noise)
    compare(lines, steps, 1e-3)
    gap, moved = (
        torch.cat([(a[name] - b[name]).flatten() for name in after]) for a, b in ((mine, after), (after, before))
    )
    assert gap.norm() < 1e-3 * moved.norm()
    assert gap.abs().max() < LEARNING_RATE / 2


def compare(lines: list[dict], steps: list[dict[str, float]], tolerance: float) -> None:
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in lines] == pytest.approx([step[name] for step in steps], rel=tolerance)
    assert len({round(step["loss"], 4) for step in steps}) == STEPS
