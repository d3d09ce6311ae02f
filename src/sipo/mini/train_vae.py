"""Stage 1: the autoencoder, trained on freshly drawn pictures, degraded ones among them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sipo.mini.networks import Autoencoder, make_vae
from sipo.mini.pictures import draw_pictures, to_pixels
from sipo.mini.recipe import Flaws, OfPictures
from sipo.mini.training import train


def vae_loss(vae: Autoencoder, pixels: Tensor, kl: float, generator: torch.Generator) -> dict[str, Tensor]:
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
    recipe: OfPictures,
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    device: str,
    autocast: bool,
    save_every: int = 100,
) -> Autoencoder:
    """Train, or resume from `folder`, to the recipe's last step; the scaling factor is measured at the end."""
    torch.manual_seed(recipe.seed)
    vae = make_vae().to(device)

    def loss(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([recipe.seed, 1, step])
        pictures, *_ = draw_pictures(recipe.vae.batch_size, rng, Flaws(degraded=recipe.vae_degraded), recipe.mixture)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            return vae_loss(vae, to_pixels(pictures).to(device), recipe.kl, generator)

    trained: Autoencoder = train(vae, recipe.vae, loss, folder / "state.pt", report, save_every=save_every)
    trained.register_to_config(scaling_factor=_measure_scale(trained, recipe, device))
    return trained


@torch.no_grad()
def _measure_scale(vae: Autoencoder, recipe: OfPictures, device: str) -> float:
    """1 / standard deviation of the latents: scaled latents have unit variance (Stable Diffusion's is 0.18215)."""
    pictures, *_ = draw_pictures(256, np.random.default_rng([recipe.seed, 2]), mixture=recipe.mixture)
    latents = [vae.encode(to_pixels(part).to(device)).latent_dist.mean for part in np.split(pictures, 8)]
    return round(1 / float(torch.cat(latents).std()), 5)
