"""Stage 1: the autoencoder, trained on freshly drawn pictures."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from sipo.mini.networks import make_vae
from sipo.mini.recipe import Recipe
from sipo.mini.training import draw_pictures, learning_rate, load_state, save_state, to_pixels


def vae_loss(vae: AutoencoderKL, pixels: Tensor, kl: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Loss terms (scalars) for pixels (B, 3, H, W) in [-1, 1]."""
    posterior = vae.encode(pixels).latent_dist
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    decoded = vae.decode(mean + (0.5 * log_variance).exp() * noise).sample.float()
    error = decoded - pixels
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    l1, mse = error.abs().mean(), error.square().mean()
    return {"loss": l1 + mse + kl * divergence, "l1": l1, "mse": mse, "kl": divergence}


def train_vae(
    recipe: Recipe,
    folder: Path,
    device: str,
    autocast: bool,
    report: Callable[[int, dict], None],
    save_every: int = 250,
) -> AutoencoderKL:
    """Train, or go on from `folder`/vae.pt, to the recipe's last step; the scaling factor is measured at the end."""
    torch.manual_seed(recipe.seed)
    vae = make_vae().to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.vae.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    state = load_state(folder / "vae.pt") or {"step": 0, "seconds": 0.0}
    if state["step"]:
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    start, spent = time.monotonic(), state["seconds"]
    for step in range(state["step"], recipe.vae.num_steps):
        pictures, _ = draw_pictures(recipe.vae.batch_size, np.random.default_rng([recipe.seed, 1, step]))
        pixels = to_pixels(pictures).to(device)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        optimizer.param_groups[0]["lr"] = learning_rate(
            step, recipe.vae.learning_rate, recipe.vae.num_steps, recipe.vae.warmup_steps, recipe.vae.decay_share
        )
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            terms = vae_loss(vae, pixels, recipe.vae.kl, generator)
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        report(step + 1, {name: float(value.detach()) for name, value in terms.items()})
        if (step + 1) % save_every == 0 or step + 1 == recipe.vae.num_steps:
            seconds = spent + time.monotonic() - start
            save_state(
                folder / "vae.pt",
                {"step": step + 1, "seconds": seconds, "model": vae.state_dict(), "optimizer": optimizer.state_dict()},
            )
    vae.register_to_config(scaling_factor=_measure_scale(vae, recipe.seed, device))
    return vae.eval()


@torch.no_grad()
def _measure_scale(vae: AutoencoderKL, seed: int, device: str) -> float:
    """1 / standard deviation of the latents: scaled latents have unit variance (Stable Diffusion's is 0.18215)."""
    pictures, _ = draw_pictures(256, np.random.default_rng([seed, 2]))
    latents = [vae.encode(to_pixels(part).to(device)).latent_dist.mean for part in np.split(pictures, 8)]
    return round(1 / float(torch.cat(latents).std()), 5)
