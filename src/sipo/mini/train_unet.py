"""Stage 2: the denoiser and the text encoder, jointly, on pictures encoded once."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save
from torch import Tensor, nn

from sipo.files import write_atomic
from sipo.mini.networks import make_scheduler, make_text_encoder, make_unet
from sipo.mini.recipe import Recipe, UNetRecipe
from sipo.mini.tokenizer import make_tokenizer, tokenize
from sipo.mini.training import draw_pictures, learning_rate, load_state, save_state, to_pixels


@torch.no_grad()
def encode_pool(recipe: Recipe, vae: AutoencoderKL, folder: Path, device: str, autocast: bool) -> dict[str, Tensor]:
    """Scaled latents (N, 4, 16, 16) float16 and token ids (N, 32) int64 of N drawn pictures; made once, then read."""
    path = folder / "pool.safetensors"
    if not path.is_file():
        tokenizer, latents, tokens = make_tokenizer(), [], []
        for part in range(0, recipe.unet.pool_size, 250):
            number = min(250, recipe.unet.pool_size - part)
            pictures, prompts = draw_pictures(number, np.random.default_rng([recipe.seed, 3, part]))
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                mean = vae.encode(to_pixels(pictures).to(device)).latent_dist.mean
            latents.append((mean.float() * vae.config.scaling_factor).half().cpu().contiguous())
            tokens.append(tokenize(tokenizer, prompts))
        write_atomic(path, save({"latents": torch.cat(latents), "tokens": torch.cat(tokens)}))
    return load_file(path)


@dataclass(frozen=True)
class Networks:
    unet: nn.Module
    text_encoder: nn.Module

    def state(self) -> dict[str, dict[str, Tensor]]:
        return {"unet": self.unet.state_dict(), "text_encoder": self.text_encoder.state_dict()}

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        self.unet.load_state_dict(state["unet"])
        self.text_encoder.load_state_dict(state["text_encoder"])

    def parameters(self) -> list[nn.Parameter]:
        return [*self.unet.parameters(), *self.text_encoder.parameters()]


def make_networks(seed: int, device: str) -> Networks:
    torch.manual_seed(seed)
    return Networks(make_unet().to(device), make_text_encoder(make_tokenizer()).to(device))


def snr_weight(alphas_cumprod: Tensor, t: Tensor, gamma: float) -> Tensor:
    """min(SNR, gamma) / SNR of the timesteps (B,): the min-SNR weight of an epsilon-prediction loss."""
    snr = alphas_cumprod[t] / (1 - alphas_cumprod[t])  # (B,)
    return snr.clamp(max=gamma) / snr


def denoising_loss(
    networks: Networks, recipe: UNetRecipe, pool: dict[str, Tensor], empty: Tensor, seed: int, step: int
) -> Tensor:
    """Weighted epsilon loss (scalar) of one step, every draw a function of (seed, step)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + 17 + step)
    device = next(networks.unet.parameters()).device
    abar = make_scheduler().alphas_cumprod
    rows = torch.randint(len(pool["tokens"]), (recipe.batch_size,), generator=generator)
    x0 = pool["latents"][rows].float()  # (B, 4, 16, 16)
    dropped = torch.rand(recipe.batch_size, generator=generator) < recipe.prompt_dropout
    tokens = torch.where(dropped[:, None], empty, pool["tokens"][rows])  # (B, 32)
    t = torch.randint(1000, (recipe.batch_size,), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    signal = abar[t].view(-1, 1, 1, 1)
    xt = signal.sqrt() * x0 + (1 - signal).sqrt() * eps
    embeddings = networks.text_encoder(tokens.to(device)).last_hidden_state
    pred = networks.unet(xt.to(device), t.to(device), embeddings).sample.float()
    error = (pred - eps.to(device)).square().mean(dim=(1, 2, 3))  # (B,)
    return (error * snr_weight(abar, t, recipe.snr_gamma).to(device)).mean()


def train_unet(
    recipe: Recipe,
    pool: dict[str, Tensor],
    folder: Path,
    device: str,
    autocast: bool,
    report: Callable[[int, dict], None],
    snapshot: Callable[[int, Networks], None],
    save_every: int = 250,
) -> Networks:
    """Train, or go on from `folder`/unet.pt, to the recipe's last step; returns the averaged (EMA) networks.

    `snapshot` is called with the averaged networks every `save_every` steps and at the end.
    """
    plan = recipe.unet
    networks, average = make_networks(recipe.seed, device), make_networks(recipe.seed, device)
    optimizer = torch.optim.AdamW(
        networks.parameters(), lr=plan.learning_rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True
    )
    state = load_state(folder / "unet.pt") or {"step": 0, "seconds": 0.0}
    if state["step"]:
        networks.load(state["model"])
        average.load(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    empty = tokenize(make_tokenizer(), [""])  # (1, 32)
    start, spent = time.monotonic(), state["seconds"]
    for step in range(state["step"], plan.num_steps):
        optimizer.param_groups[0]["lr"] = learning_rate(
            step, plan.learning_rate, plan.num_steps, plan.warmup_steps, plan.decay_share
        )
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = denoising_loss(networks, plan, pool, empty, recipe.seed, step)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _follow(average, networks, min(plan.ema, (step + 1) / (step + 10)))
        report(step + 1, {"loss": float(loss.detach()), "grad_norm": float(norm)})
        if (step + 1) % save_every == 0 or step + 1 == plan.num_steps:
            seconds = spent + time.monotonic() - start
            progress = {"step": step + 1, "seconds": seconds, "optimizer": optimizer.state_dict()}
            save_state(folder / "unet.pt", progress | {"model": networks.state(), "average": average.state()})
            snapshot(step + 1, average)
    return average


@torch.no_grad()
def _follow(average: Networks, networks: Networks, decay: float) -> None:
    torch._foreach_lerp_([p.data for p in average.parameters()], [p.data for p in networks.parameters()], 1 - decay)
