"""Stages 3 and 4: the denoiser and the text encoder, jointly, on pictures encoded once."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sipo.mini.lookup import cross_attentions, lookup_loss
from sipo.mini.networks import make_scheduler, make_unet
from sipo.mini.recipe import Recipe, Schedule
from sipo.mini.tokenizer import make_tokenizer, tokenize
from sipo.mini.train_text import make_reader, reading_loss
from sipo.mini.training import train_jointly


def make_networks(seed: int, device: str) -> nn.ModuleDict:
    """Fresh "unet", and the "text_encoder" and "head" of `train_text`."""
    torch.manual_seed(seed)
    return nn.ModuleDict({"unet": make_unet(), **make_reader()}).to(device)


def snr_weight(alphas_cumprod: Tensor, t: Tensor, gamma: float, power: float) -> Tensor:
    """min(SNR^-power, gamma / SNR) of the timesteps (B,), for an epsilon-prediction loss.

    power 0 is min-SNR's weight (Hang et al. 2023, arXiv 2303.09556). The error of x_0 then counts SNR times, which is
    next to nothing where the noise still leaves open what stands where; with power 1/2 it counts SNR^1/2 times.
    """
    snr = alphas_cumprod[t] / (1 - alphas_cumprod[t])  # (B,)
    return torch.minimum(snr**-power, gamma / snr)


def draw_timesteps(number: int, power: float, generator: torch.Generator) -> Tensor:
    """1000 (1 - u^power), rounded down, (number,) int64; u is stratified: one in each of `number` equal parts of (0, 1]."""
    u = (torch.arange(number) + 1 - torch.rand(number, generator=generator)) / number
    return (1000 * (1 - u**power)).long().clamp(0, 999)


def denoising_terms(
    networks: nn.ModuleDict, recipe: Recipe, batch_size: int, pool: dict[str, Tensor], empty: Tensor, step: int
) -> dict[str, Tensor]:
    """Weighted epsilon loss and the encoder's reading loss (scalars) of a step, every draw by (recipe.seed, step)."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + 17 + step)
    device = next(networks.parameters()).device
    abar = make_scheduler().alphas_cumprod
    rows = torch.randint(len(pool["tokens"]), (batch_size,), generator=generator)
    x0 = pool["latents"][rows].float()  # (B, 4, 16, 16)
    dropped = torch.rand(batch_size, generator=generator)[:, None] < recipe.prompt_dropout
    tokens = torch.where(dropped, empty, pool["tokens"][rows])  # (B, 32)
    cells = pool["cells"][rows].masked_fill(dropped, -100)  # (B, 16)
    t = draw_timesteps(batch_size, recipe.t_power, generator)
    eps = torch.randn(x0.shape, generator=generator)
    signal = abar[t].view(-1, 1, 1, 1)
    xt = signal.sqrt() * x0 + (1 - signal).sqrt() * eps
    states = networks["text_encoder"](tokens.to(device)).last_hidden_state
    pred = networks["unet"](xt.to(device), t.to(device), states).sample.float()
    error = (pred - eps.to(device)).square().mean(dim=(1, 2, 3))  # (B,)
    weight = snr_weight(abar, t, recipe.snr_gamma, recipe.snr_power).to(device)
    return {"denoising": (error * weight).mean(), "reading": reading_loss(networks["head"], states, cells.to(device))}


def train_unet(
    start: nn.ModuleDict,
    recipe: Recipe,
    schedule: Schedule,
    pool: dict[str, Tensor],
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    autocast: bool,
    snapshot: Callable[[int, nn.Module], None] = lambda step, average: None,
    guided: bool = False,
    compiled: bool = False,
    save_every: int = 100,
) -> nn.ModuleDict:
    """Stages `clean` (guided) and `noisy`, see `train_jointly`."""
    device = next(start.parameters()).device
    empty = tokenize(make_tokenizer(), [""])  # (1, 32)

    def terms(networks: nn.ModuleDict, step: int) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast), cross_attentions(networks["unet"]) as seen:
            found = denoising_terms(networks, recipe, schedule.batch_size, pool, empty, step)
        return {**found, "lookup": lookup_loss(seen, recipe.lookup_heads)} if guided else found

    weight = recipe.guide_weight if guided else None
    return train_jointly(start, schedule, terms, weight, folder, report, snapshot, compiled, save_every)
