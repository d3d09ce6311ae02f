"""Stage 1: the autoencoder, trained on freshly drawn pictures, degraded ones among them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sipo.mini.networks import Autoencoder, make_vae
from sipo.mini.pictures import draw_pictures, to_pixels
from sipo.mini.recipe import Flaws, OfPictures
from sipo.mini.training import train


def vae_loss(vae: Autoencoder, pixels: Tensor, kl: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Loss terms (scalars) for pixels (B, 3, H, W), or (B, 3, F, H, W) of clips, in [-1, 1]."""
    posterior = vae.encode(pixels).latent_dist
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    noise = torch.randn(mean.shape, generator=generator).to(mean)
    decoded = vae.decode(mean + (0.5 * log_variance).exp() * noise).sample.float()
    error = decoded - pixels
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    l1, mse = error.abs().mean(), error.square().mean()
    return {"loss": l1 + mse + kl * divergence, "l1": l1, "mse": mse, "kl": divergence}


def fit_vae(
    vae: Autoencoder,
    recipe: Any,
    batch: Callable[[int], Tensor],
    measured: Tensor,
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    device: str,
    autocast: bool,
    save_every: int = 100,
) -> Autoencoder:
    """Train `vae`, or resume from `folder`, to the last step of the recipe's `vae`.

    `batch`: a step's media (B, 3, ..., H, W) in [-1, 1]; `measured`: media whose latents' scale the scaling factor undoes.
    """

    def loss(step: int) -> dict[str, Tensor]:
        pixels = batch(step)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            return vae_loss(vae, pixels.to(device), recipe.kl, generator)

    trained: Autoencoder = train(vae, recipe.vae, loss, folder / "state.pt", report, save_every=save_every)
    trained.register_to_config(scaling_factor=_measure_scale(trained, measured, device))
    return trained


@torch.no_grad()
def _measure_scale(vae: Autoencoder, pixels: Tensor, device: str) -> float:
    """1 / standard deviation of the latents: scaled latents have unit variance (Stable Diffusion's is 0.18215)."""
    latents = [vae.encode(part.to(device)).latent_dist.mean for part in pixels.chunk(8)]
    return round(1 / float(torch.cat(latents).std()), 5)


def train_vae(
    recipe: OfPictures,
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    device: str,
    autocast: bool,
    save_every: int = 100,
) -> Autoencoder:
    """The autoencoder of pictures, of which the share `vae_degraded` is degraded. See `fit_vae`."""

    def draw(number: int, key: list[int], flaws: Flaws) -> Tensor:
        return to_pixels(draw_pictures(number, np.random.default_rng([recipe.seed, *key]), flaws, recipe.mixture)[0])

    def batch(step: int) -> Tensor:
        return draw(recipe.vae.batch_size, [1, step], Flaws(degraded=recipe.vae_degraded))

    torch.manual_seed(recipe.seed)
    measured = draw(256, [2], Flaws())
    return fit_vae(make_vae().to(device), recipe, batch, measured, folder, report, device, autocast, save_every)
