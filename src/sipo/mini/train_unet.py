"""Stages 3 and 4: the denoiser and the text encoder, jointly, on pictures encoded once."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sipo.mini.networks import make_scheduler, make_text_encoder, make_unet
from sipo.mini.recipe import Recipe, Schedule
from sipo.mini.tokenizer import make_tokenizer, tokenize
from sipo.mini.training import train


def make_networks(seed: int, device: str) -> nn.ModuleDict:
    """Fresh "unet" and "text_encoder"."""
    torch.manual_seed(seed)
    return nn.ModuleDict({"unet": make_unet(), "text_encoder": make_text_encoder(make_tokenizer())}).to(device)


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


def denoising_loss(
    networks: nn.ModuleDict, recipe: Recipe, batch_size: int, pool: dict[str, Tensor], empty: Tensor, step: int
) -> Tensor:
    """Weighted epsilon loss (scalar) of one step, every draw a function of (recipe.seed, step)."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + 17 + step)
    device = next(networks.parameters()).device
    abar = make_scheduler().alphas_cumprod
    rows = torch.randint(len(pool["tokens"]), (batch_size,), generator=generator)
    x0 = pool["latents"][rows].float()  # (B, 4, 16, 16)
    dropped = torch.rand(batch_size, generator=generator) < recipe.prompt_dropout
    tokens = torch.where(dropped[:, None], empty, pool["tokens"][rows])  # (B, 32)
    t = draw_timesteps(batch_size, recipe.t_power, generator)
    eps = torch.randn(x0.shape, generator=generator)
    signal = abar[t].view(-1, 1, 1, 1)
    xt = signal.sqrt() * x0 + (1 - signal).sqrt() * eps
    embeddings = networks["text_encoder"](tokens.to(device)).last_hidden_state
    pred = networks["unet"](xt.to(device), t.to(device), embeddings).sample.float()
    error = (pred - eps.to(device)).square().mean(dim=(1, 2, 3))  # (B,)
    return (error * snr_weight(abar, t, recipe.snr_gamma, recipe.snr_power).to(device)).mean()


def train_unet(
    start: nn.ModuleDict,
    recipe: Recipe,
    schedule: Schedule,
    pool: dict[str, Tensor],
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    autocast: bool,
    snapshot: Callable[[int, nn.Module], None] = lambda step, average: None,
    save_every: int = 100,
) -> nn.ModuleDict:
    """Train a copy of `start` by `schedule`, or resume from `folder`; returns the averaged (EMA) networks."""
    networks = copy.deepcopy(start).train().requires_grad_(True)
    device = next(networks.parameters()).device
    empty = tokenize(make_tokenizer(), [""])  # (1, 32)

    def loss(step: int) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return {"loss": denoising_loss(networks, recipe, schedule.batch_size, pool, empty, step)}

    average = train(networks, schedule, loss, folder / "state.pt", report, snapshot, save_every)
    assert isinstance(average, nn.ModuleDict)
    return average
