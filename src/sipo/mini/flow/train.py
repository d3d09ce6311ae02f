"""The flow miniature's stages 3 and 4: transformer and text encoder, jointly, on pictures encoded once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline  # pyright: ignore[reportPrivateImportUsage]
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from sipo.mini.flow.recipe import FlowRecipe
from sipo.mini.lookup import lookup_cross_entropy, normed_attentions
from sipo.mini.recipe import Schedule
from sipo.mini.tokenizer import make_tokenizer, tokenize
from sipo.mini.train_text import reading_loss
from sipo.mini.training import train_jointly
from sipo.schedule import FlowSchedule, add_noise


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h/2 w/2, 4 C), as the pipeline packs them."""
    return FluxPipeline._pack_latents(latents, *latents.shape)


def velocity(networks: nn.ModuleDict, xt: Tensor, s: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The packed velocity of latents (B, C, h, w) at the noise s (B,), and the encoder's states (B, 32, width)."""
    encoded = networks["text_encoder"](tokens)
    height, width = xt.shape[2] // 2, xt.shape[3] // 2
    predicted = networks["transformer"](
        hidden_states=pack(xt),
        timestep=s,
        pooled_projections=encoded.pooler_output,
        encoder_hidden_states=encoded.last_hidden_state,
        txt_ids=torch.zeros(tokens.shape[1], 3, device=xt.device),
        img_ids=FluxPipeline._prepare_latent_image_ids(len(xt), height, width, xt.device, torch.float32),
    ).sample
    return predicted.float(), encoded.last_hidden_state


def draw_noise_levels(number: int, shift: float, generator: torch.Generator) -> Tensor:
    """s (number,) in (0, 1] from u, which is stratified: one in each of `number` equal parts of (0, 1]."""
    u = (torch.arange(number) + 1 - torch.rand(number, generator=generator)) / number
    return FlowSchedule(shift=shift).shifted(u)


def flow_terms(
    networks: nn.ModuleDict, recipe: FlowRecipe, batch_size: int, pool: dict[str, Tensor], empty: Tensor, step: int
) -> dict[str, Tensor]:
    """The velocity's and the encoder's reading loss (scalars) of a step, every draw by (recipe.seed, step)."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + 17 + step)
    device = next(networks.parameters()).device
    rows = torch.randint(len(pool["tokens"]), (batch_size,), generator=generator)
    x0 = pool["latents"][rows].float()  # (B, 4, 16, 16)
    dropped = torch.rand(batch_size, generator=generator)[:, None] < recipe.prompt_dropout
    tokens = torch.where(dropped, empty, pool["tokens"][rows]).to(device)  # (B, 32)
    cells = pool["cells"][rows].masked_fill(dropped, -100).to(device)  # (B, 16)
    s = draw_noise_levels(batch_size, recipe.shift, generator)
    eps = torch.randn(x0.shape, generator=generator)
    xt = add_noise(FlowSchedule(), x0, eps, 1000 * s)
    predicted, states = velocity(networks, xt.to(device), s.to(device), tokens)
    flow = (predicted - pack(eps - x0).to(device)).square().mean()
    return {"flow": flow, "reading": reading_loss(networks["head"], states, cells)}


def lookup_loss(transformer: nn.Module, seen: list[dict[str, Tensor]], heads: int, places: int) -> Tensor:
    """Cross-entropy (scalar) between where the first `heads` heads of each place attend in the text and its own token.

    Positions are rotations of queries and keys. Those of the text are all 0 and rotate nothing.
    """
    side = round(places**0.5)
    ids = FluxPipeline._prepare_latent_image_ids(1, side, side, next(transformer.parameters()).device, torch.float32)
    rotation = transformer.get_submodule("pos_embed")(ids)
    losses = []
    for passed in seen:
        query: Any = passed["norm_q"][:, -places:, :heads].float()  # (B, places, heads, width); the picture comes last
        query = apply_rotary_emb(query, rotation, sequence_dim=1)
        text = passed.get(
            "norm_added_k", passed["norm_k"][:, :-places]
        )  # with layers of its own, or of a block for both
        losses.append(lookup_cross_entropy(query.transpose(1, 2), text[:, :, :heads].float().transpose(1, 2)))
    return torch.stack(losses).mean()


def train_transformer(
    start: nn.ModuleDict,
    recipe: FlowRecipe,
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
    places = pool["latents"].shape[-1] * pool["latents"].shape[-2] // 4

    def terms(networks: nn.ModuleDict, step: int) -> dict[str, Tensor]:
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=autocast),
            normed_attentions(networks["transformer"]) as seen,
        ):
            found = flow_terms(networks, recipe, schedule.batch_size, pool, empty, step)
        return (
            {**found, "lookup": lookup_loss(networks["transformer"], seen, recipe.lookup_heads, places)}
            if guided
            else found
        )

    weight = recipe.guide_weight if guided else None
    return train_jointly(start, schedule, terms, weight, folder, report, snapshot, compiled, save_every)
