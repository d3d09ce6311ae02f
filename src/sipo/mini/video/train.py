"""The video miniature's stages: autoencoder, text encoder, then transformer and text encoder jointly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sipo.mini.cells import GRID
from sipo.mini.lookup import lookup_cross_entropy, normed_attentions
from sipo.mini.networks import Autoencoder
from sipo.mini.recipe import Flaws, Schedule
from sipo.mini.tokenizer import tokenize
from sipo.mini.train_vae import fit_vae
from sipo.mini.training import train, train_jointly
from sipo.mini.video.clips import FRAMES
from sipo.mini.video.data import draw_clip, draw_clips, to_pixels, what_moves_where
from sipo.mini.video.networks import AFTER, make_reader, make_scheduler, make_vae, video_tokenizer
from sipo.mini.video.recipe import VideoRecipe
from sipo.schedule import VPSchedule, add_noise, training_target

STILLS = 4
"""Single frames that take the place of a clip while the autoencoder learns from them."""

Report = Callable[[int, dict[str, float]], None]


def train_vae(
    recipe: VideoRecipe, folder: Path, report: Report, device: str, autocast: bool, save_every: int = 100
) -> Autoencoder:
    """The autoencoder of clips, of which the share `vae_degraded` is degraded. See `fit_vae`.

    The first `stills` steps see single frames, STILLS in the place of a clip: what a frame looks like is learned sooner from
    many scenes. CogVideoX's autoencoder is causal and takes a frame as it takes a clip's first.
    """

    def draw(number: int, key: list[int], flaws: Flaws) -> np.ndarray:
        return draw_clips(number, np.random.default_rng([recipe.seed, *key]), flaws, recipe.mixture)[0]

    def batch(step: int) -> Tensor:
        flaws, size = Flaws(degraded=recipe.vae_degraded), recipe.vae.batch_size
        if step >= recipe.stills:
            return to_pixels(draw(size, [1, step], flaws))
        clips = draw(STILLS * size, [1, step], flaws)  # (B, F, 64, 64, 3)
        frames = np.arange(len(clips)) % FRAMES
        return to_pixels(clips[np.arange(len(clips)), frames][:, None])

    torch.manual_seed(recipe.seed)
    measured = to_pixels(draw(256, [2], Flaws()))
    return fit_vae(make_vae().to(device), recipe, batch, measured, folder, report, device, autocast, save_every)


def reading_loss(head: nn.Module, states: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy (scalar) of the kinds `cells` (B, 16, 3) by the encoder's states (B, 32, width)."""
    logits = head(states[:, AFTER : AFTER + GRID**2]).float().unflatten(-1, (3, -1))  # (B, 16, 3, kinds + 1)
    return F.cross_entropy(logits.flatten(0, 2), cells.flatten())


def train_text(
    recipe: VideoRecipe, folder: Path, report: Report, device: str, autocast: bool, save_every: int = 100
) -> nn.ModuleDict:
    """Train the reader, or resume from `folder`, to the recipe's last step. See `sipo.mini.train_text`."""
    torch.manual_seed(recipe.seed)
    reader, tokenizer = make_reader().to(device), video_tokenizer()

    def loss(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([recipe.seed, 4, step])
        clips, prompts = zip(*[draw_clip(rng, recipe.mixture) for _ in range(recipe.text.batch_size)], strict=True)
        cells = torch.stack([what_moves_where(clip) for clip in clips]).to(device)
        tokens = tokenize(tokenizer, [prompt["prompt"] for prompt in prompts]).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            return {"loss": reading_loss(reader["head"], reader["text_encoder"](tokens).last_hidden_state, cells)}

    trained = train(reader, recipe.text, loss, folder / "state.pt", report, save_every=save_every)
    assert isinstance(trained, nn.ModuleDict)
    return trained


def video_schedule() -> VPSchedule:
    return VPSchedule(make_scheduler().alphas_cumprod, "v_prediction")


def velocity(networks: nn.ModuleDict, xt: Tensor, t: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """v of latents (B, 5, 6, 16, 16), and the encoder's states (B, 32, width)."""
    states = networks["text_encoder"](tokens).last_hidden_state
    predicted = networks["transformer"](hidden_states=xt, timestep=t, encoder_hidden_states=states).sample
    return predicted.float(), states


def video_terms(
    networks: nn.ModuleDict,
    recipe: VideoRecipe,
    batch_size: int,
    pool: dict[str, Tensor],
    empty: Tensor,
    step: int,
) -> dict[str, Tensor]:
    """The loss of v and the encoder's reading loss (scalars) of a step, every draw by (recipe.seed, step).

    Timesteps are uniform and stratified: one in each of `batch_size` equal parts.
    """
    generator, schedule = torch.Generator().manual_seed(recipe.seed * 1_000_003 + 17 + step), video_schedule()
    device = next(networks.parameters()).device
    rows = torch.randint(len(pool["tokens"]), (batch_size,), generator=generator)
    x0 = pool["latents"][rows].float()  # (B, 5, 6, 16, 16)
    dropped = torch.rand(batch_size, generator=generator)[:, None] < recipe.prompt_dropout
    tokens = torch.where(dropped, empty, pool["tokens"][rows]).to(device)  # (B, 32)
    cells = pool["cells"][rows].masked_fill(dropped[..., None], -100).to(device)  # (B, 16, 3)
    u = (torch.arange(batch_size) + torch.rand(batch_size, generator=generator)) / batch_size
    t = (schedule.num_train_timesteps * u).long().clamp(max=schedule.num_train_timesteps - 1)
    eps = torch.randn(x0.shape, generator=generator)
    xt = add_noise(schedule, x0, eps, t)
    predicted, states = velocity(networks, xt.to(device), t.to(device), tokens)
    errors = (predicted - training_target(schedule, x0, eps, t).to(device)).square().mean(dim=(1, 2, 3, 4))  # (B,)
    weights = error_weight(schedule.alphas_cumprod[t]).to(device)
    return {"v": (weights * errors).mean(), "reading": reading_loss(networks["head"], states, cells)}


def error_weight(abar: Tensor) -> Tensor:
    """The weight (B,) of v's error where the share of the signal is `abar` (B,): all noise levels count about alike.

    Near pure noise most of the error is what no network can know of the clip. In the middle, where shapes are decided, it is
    a tenth of that and would hardly count. The fit of the error after 2,000 unweighted steps, up to a factor. The idea is
    that of EDM2 (arXiv 2312.02696, section 2.2), which learns these weights.
    """
    return 1 / (0.3 + 2.7 * (1 - abar.sqrt()) ** 12)


def train_transformer(
    start: nn.ModuleDict,
    recipe: VideoRecipe,
    schedule: Schedule,
    pool: dict[str, Tensor],
    folder: Path,
    report: Report,
    autocast: bool,
    snapshot: Callable[[int, nn.Module], None] = lambda step, average: None,
    guided: bool = False,
    compiled: bool = False,
    save_every: int = 100,
) -> nn.ModuleDict:
    """Stages `clean` (guided) and `noisy`, see `train_jointly`."""
    device = next(start.parameters()).device
    empty = tokenize(video_tokenizer(), [""])  # (1, 32)

    def terms(networks: nn.ModuleDict, step: int) -> dict[str, Tensor]:
        with (
            torch.autocast(device.type, torch.bfloat16, enabled=autocast),
            normed_attentions(networks["transformer"]) as seen,
        ):
            found = video_terms(networks, recipe, schedule.batch_size, pool, empty, step)
        return {**found, "lookup": lookup_loss(seen, recipe.lookup_heads, pool["tokens"].shape[1])} if guided else found

    weight = recipe.guide_weight if guided else None
    return train_jointly(start, schedule, terms, weight, folder, report, snapshot, compiled, save_every)


def lookup_loss(seen: list[dict[str, Tensor]], heads: int, num_tokens: int) -> Tensor:
    """Cross-entropy (scalar) between where the first `heads` heads of each place attend in the text and its own token, in
    every frame."""
    losses = []
    for passed in seen:
        query, key = (
            passed[name][:, :heads].float() for name in ("norm_q", "norm_k")
        )  # (B, heads, text + places, width)
        query = query[:, :, num_tokens:].unflatten(2, (-1, GRID**2))  # (B, heads, latent frames, places, width)
        losses.append(lookup_cross_entropy(query, key[:, :, None, :num_tokens], AFTER))
    return torch.stack(losses).mean()
