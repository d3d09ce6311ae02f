"""A batch of pairs becomes terms: latents, conditioning and the draws that depend on (seed, step, slot) alone."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sipo.backbones import Backbone
from sipo.config import Config
from sipo.data.batches import PairBatch
from sipo.losses import Objective
from sipo.rng import pair_randn
from sipo.terms import PairTerms, pair_terms
from sipo.timesteps import draw_timesteps
from sipo.train.clock import Clock
from sipo.train.policy import Policy

VALIDATION_STEP = 0  # updates count from 1, so step 0 is free for the fixed draws of validation


@dataclass(frozen=True)
class Alignment:
    """What stays the same over a whole training: the model, what is trained of it, and towards what."""

    config: Config
    backbone: Backbone
    policy: Policy
    model: nn.Module  # the policy's denoiser, wrapped or sharded
    loss: Objective
    accelerator: Accelerator
    sharded: bool = False  # each process holds a share of the network, so all of them compute together


def latents_of(align: Alignment, batch: PairBatch, step: int) -> tuple[Tensor, Tensor | None]:
    """x0 of chosen and rejected, (B, C, h, w) each: drawn anew each step from the VAE's mean and log-variance."""
    device, seed = align.accelerator.device, align.config.train.seed
    members = {"chosen": batch.chosen} | ({} if batch.rejected is None else {"rejected": batch.rejected})
    x0 = {}
    for member, media in members.items():
        media = media.to(device, non_blocking=True)
        moments = media if batch.encoded else align.backbone.encode_media(media)
        noise = pair_randn(moments.shape[2:], seed, step, batch.slots, f"vae {member}").to(device, non_blocking=True)
        x0[member] = align.backbone.latents(moments, noise)
    return x0["chosen"], x0.get("rejected")


def conditioning_of(align: Alignment, batch: PairBatch, members: int) -> dict[str, Tensor]:
    """Text conditioning (B, ...) repeated for the members of the pairs, and that of each one's geometry: (members * B, ...)."""
    device = align.accelerator.device
    one = batch.conditioning if batch.encoded else align.backbone.encode_prompts(batch.prompts)
    text = {name: torch.cat([value.to(device, non_blocking=True)] * members) for name, value in one.items()}
    geometry = torch.cat([batch.chosen_geometry, batch.rejected_geometry][:members]).to(device, non_blocking=True)
    return text | align.backbone.conditioning_of(geometry)


def batch_terms(align: Alignment, batch: PairBatch, step: int, global_batch: int, clock: Clock) -> PairTerms:
    """Run reference and policy on one micro-batch; `slots` place its pairs in the global batch of the step."""
    config, backbone, loss = align.config, align.backbone, align.loss
    seed, device = config.train.seed, align.accelerator.device
    x0_chosen, x0_rejected = latents_of(align, batch, step)
    x0_rejected = x0_rejected if loss.needs_rejected else None
    conditioning = conditioning_of(align, batch, 1 if x0_rejected is None else 2)
    eps = pair_randn(x0_chosen.shape[1:], seed, step, batch.slots, "eps").to(device, non_blocking=True)
    z = pair_randn(x0_chosen.shape[1:], seed, step, batch.slots, "z").to(device, non_blocking=True)
    t = draw_timesteps(
        config.timesteps, backbone.schedule, config.num_inference_steps, seed, step, batch.slots, global_batch
    ).to(device, non_blocking=True)
    clock.mark("data")

    def predict(network: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda xt, t: backbone.predict(network, xt, t, conditioning)

    def reference(xt: Tensor, t: Tensor) -> Tensor:
        with align.policy.reference() as network:
            prediction = predict(network)(xt, t)
        clock.mark("reference")
        return prediction

    with align.accelerator.autocast():
        return pair_terms(
            predict(align.model), reference if loss.needs_reference or needs_reference_weight(config) else None,
            backbone.schedule, config.kernel, config.num_inference_steps, config.weight, x0_chosen, x0_rejected,
            eps, t, z, loss.needs_importance_weights,
        )  # fmt: skip


def needs_reference_weight(config: Config) -> bool:
    """Whether the importance weight itself asks for the reference."""
    return config.loss.needs_importance_weights and config.weight.denominator == "reference"


class Batches:
    """Batch sampler of one process: for each step from `first`, its micro-batches of slots. A pure function."""

    def __init__(self, schedule: Callable[[int], list], first: int, last: int, batch_size: int, rank: int, world: int):
        self.schedule, self.first, self.last = schedule, first, last
        self.batch_size, self.rank, self.world = batch_size, rank, world

    def __iter__(self):
        for step in range(self.first, self.last + 1):
            slots = self.schedule(step)
            for start in range(self.rank * self.batch_size, len(slots), self.world * self.batch_size):
                yield slots[start : start + self.batch_size]
