"""One optimizer step: from the pairs of its slots, through terms and losses, to an update that the guard allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sipo.backbones.backbone import CPU_BATCH
from sipo.data.batches import PairBatch
from sipo.losses.smoothing import doubt_of, smoothed
from sipo.rng import pair_generator, pair_randn
from sipo.terms import PairTerms, Predict, pair_terms, term_metrics
from sipo.timesteps import draw_timesteps
from sipo.train.guard import nonfinite_flags
from sipo.train.optim import learning_rate
from sipo.train.policy import Other
from sipo.train.record import Clock
from sipo.train.table import Update, gather_pairs, pair_rows
from sipo.train.training import Training

Rows = list[dict[str, Tensor]]  # columns of pairs, a micro-batch each
VALIDATION_STEP = 0  # updates count from 1, so step 0 is free for the fixed draws of validation


def take_step(t: Training, step: int, stop: bool = False) -> Update:
    """Gradients of the global batch, clipped, checked, applied. `stop`: this process was asked to stop after it."""
    t.clock.restart()
    rows, ids = accumulate(t, step)
    return apply(t, step, rows, ids, stop)


def accumulate(
    t: Training, step: int, terms_of: Callable[..., Any] | None = None, metrics_of: Callable[..., Any] = term_metrics
) -> tuple[Rows, dict[int, str]]:
    """The gradients of this process's micro-batches; the columns of its pairs, and their ids by slot.

    terms_of: from a micro-batch to what the objective reads, `batch_terms` by default; metrics_of: its metrics.
    """
    rows, ids = [], {}
    for number in range(t.settings.gradient_accumulation):
        batch = next(t.batches)
        if t.known:
            batch = t.known.of_step(batch, step)
        ids.update(zip(batch.slots.tolist(), batch.ids, strict=True))
        with t.engine.micro_step(last=number == t.settings.gradient_accumulation - 1):
            terms = (terms_of or batch_terms)(t, batch, step, t.global_batch, t.clock)
            doubt = doubt_of(t.label_smoothing, batch.strength.to(t.processes.device, non_blocking=True))
            losses, metrics = smoothed(t.objective, terms, doubt)  # (B,), metrics (B,) each
            # Over ALL pairs of the global batch; every engine averages over processes, hence their number.
            t.updater.backward(losses.sum() * (t.processes.world / t.global_batch))
        several = t.settings.gradient_accumulation > 1  # see nonfinite_flags
        flags = nonfinite_flags(losses, t.engine.local_weights() if several else [], t.updater.scaler is not None)
        columns = {"loss": losses, **metrics, **metrics_of(terms), "nonfinite": flags}
        rows.append(pair_rows(columns, terms.t, batch.slots))
        t.clock.mark("policy")
    return rows, ids


def apply(t: Training, step: int, rows: Rows, ids: dict[int, str], stop: bool) -> Update:
    """Clip the gradients and, if the guard allows it, update the weights."""
    rate, length = learning_rate(t.settings, step), t.settings.gradient_accumulation * t.settings.batch_size
    pairs, scalars = gather_pairs(rows, t.processes, length, grad_norm=t.updater.clip(), stop=float(stop))
    norm = float(scalars["grad_norm"].max())
    allowed = t.guard.allows(step, pairs, norm, ids, t.processes)
    t.updater.finish(rate, allowed)
    if t.ema and allowed:
        t.ema.update()
    t.clock.mark("other")
    return Update(step, rate, pairs, norm, t.guard.counts(), bool(scalars["stop"].any()), t.clock.read())


def batch_terms(t: Training, batch: PairBatch, step: int, global_batch: int, clock: Clock) -> PairTerms:
    """Run reference and policy on one micro-batch; `slots` are the places of its pairs in the global batch."""
    seed, device, known = t.settings.seed, t.processes.device, batch.reference_error
    drawn = _draw(t, batch, step, global_batch)
    z = pair_randn(drawn.chosen.shape[1:], seed, step, batch.slots, "z").to(device, non_blocking=True)
    known = None if known is None else known.flatten().to(device, non_blocking=True)  # (members * B,)
    clock.mark("data")
    run = Networks(t, step, batch, clock, drawn.predict(t))
    with torch.autocast(device.type, t.compute, enabled=t.compute != torch.float32):
        return pair_terms(
            run.policy, run.frozen("reference") if t.needs_reference and known is None else None, t.backbone.schedule,
            t.kernel, t.num_inference_steps, t.weight, drawn.chosen, drawn.rejected, drawn.eps, drawn.timesteps, z,
            t.objective.needs_importance_weights, run.frozen("old") if t.needs_old else None, known,
        )  # fmt: skip


def reference_error(t: Training, batch: PairBatch, step: int, global_batch: int) -> Tensor:
    """`mse(reference, target)` of one micro-batch, (members, B)."""
    drawn, device = _draw(t, batch, step, global_batch), t.processes.device
    reference = Networks(t, step, batch, t.clock, drawn.predict(t)).frozen("reference")
    with torch.autocast(device.type, t.compute, enabled=t.compute != torch.float32):
        terms = pair_terms(
            reference, None, t.backbone.schedule, t.kernel, t.num_inference_steps, t.weight, drawn.chosen,
            drawn.rejected, drawn.eps, drawn.timesteps,
        )  # fmt: skip
    return torch.stack([branch.policy_error for branch in (terms.chosen, terms.rejected) if branch])


class Networks:
    """The networks of one micro-batch as functions of (x_t, t), by `predict` of (network, x_t, t)."""

    def __init__(
        self,
        t: Training,
        step: int,
        batch: PairBatch,
        clock: Clock,
        predict: Callable[[nn.Module, Tensor, Tensor], Tensor],
    ):
        self.engine, self.clock, self.predict = t.engine, clock, predict
        # Dropout inside a network: equal micro-batches get equal masks on any rank, and all networks get the same ones.
        self.dropout_seed = pair_generator(t.settings.seed, step, int(batch.slots[0]), "net").initial_seed()

    def policy(self, xt: Tensor, t_all: Tensor) -> Tensor:
        torch.manual_seed(self.dropout_seed)
        return self.predict(self.engine.network, xt, t_all)

    def frozen(self, which: Other) -> Predict:
        def run(xt: Tensor, t_all: Tensor) -> Tensor:
            torch.manual_seed(self.dropout_seed)
            with self.engine.policy.network(which) as network:
                prediction = self.predict(network, xt, t_all)
            self.clock.mark("reference")
            return prediction

        return run


@dataclass(frozen=True)
class Drawn:
    """What the networks see of one micro-batch: x0 (B, ...), noise (B, ...) or of each member (members * B, ...), timesteps
    (B,), conditioning of all members."""

    chosen: Tensor
    rejected: Tensor | None
    eps: Tensor
    timesteps: Tensor
    conditioning: dict[str, Tensor]

    def predict(self, t: Training) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
        """The prediction of a network at (x_t, t)."""
        return lambda network, xt, t_all: t.backbone.predict(network, xt, t_all, self.conditioning)


def _draw(t: Training, batch: PairBatch, step: int, global_batch: int) -> Drawn:
    """By the step and the slots; of fixed draws by the pairs' ids and the numbers of their draws."""
    seed, device = t.settings.seed, t.processes.device
    where, which, strata = step, batch.slots, global_batch
    if batch.draws is not None:
        where, which, strata = batch.ids, batch.draws, t.settings.reference.precompute or 1
    chosen, rejected = _latents(t, batch, where, which)
    rejected = rejected if t.objective.needs_rejected else None
    members = 1 if rejected is None else 2
    conditioning = _conditioning(t, batch, members)
    if batch.seeds is None or t.noise_dtype is None:
        eps = pair_randn(chosen.shape[1:], seed, where, which, "eps")
    else:
        eps = t.backbone.initial_noise(batch.seeds[:members].flatten().tolist(), t.noise_dtype)
    eps = eps.to(device, non_blocking=True)
    timesteps = draw_timesteps(t.timesteps, t.backbone.schedule, t.num_inference_steps, seed, where, which, strata)
    conditioning |= t.backbone.selection_of(timesteps.repeat(members))
    return Drawn(chosen, rejected, eps, timesteps.to(device, non_blocking=True), conditioning)


def _latents(
    t: Training, batch: PairBatch, where: int | Sequence[str], which: Tensor
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """x0 of chosen and rejected, (B, C, h, w) each, drawn from the VAE's mean and log-variance."""
    device = t.processes.device
    media = [each.to(device, non_blocking=True) for each in (batch.chosen, batch.rejected) if each is not None]
    x0 = []
    for member, moments in zip(("chosen", "rejected"), media if batch.encoded else _moments(t, media), strict=False):
        noise = pair_randn(moments.shape[2:], t.settings.seed, where, which, f"vae {member}")
        x0.append(t.backbone.latents(moments, noise.to(device, non_blocking=True)))
    return x0[0], x0[1] if len(x0) == 2 else None


def _moments(t: Training, members: list[Tensor]) -> Sequence[Tensor]:
    """The VAE's mean and log-variance (B, 2, ...) of each member's pixels (B, 3, H, W), of videos (B, F, 3, H, W).

    On a CPU pictures of all members in batches of the size that it encodes fastest, channels last, as they are decoded.
    """
    if members[0].device.type != "cpu" or members[0].ndim != 4:
        return [t.backbone.encode_media(pixels) for pixels in members]
    pixels = torch.cat(members).contiguous(memory_format=torch.channels_last)
    batches = pixels.split(max(1, CPU_BATCH // pixels[0].nbytes))
    return torch.cat([t.backbone.encode_media(batch) for batch in batches]).chunk(len(members))


def _conditioning(t: Training, batch: PairBatch, members: int) -> dict[str, Tensor]:
    """Conditioning by prompt and source, repeated for the members of the pairs, and by each one's crop: (members * B, ...)."""
    device = t.processes.device
    source = None if batch.source is None else batch.source.to(device, non_blocking=True)
    one = batch.conditioning or t.backbone.condition(batch.prompts, source)
    repeated = {name: torch.cat([value if value.dtype == torch.int64 else value.to(device, non_blocking=True)] * members)
            for name, value in one.items()}  # fmt: skip
    crops = batch.micro_conditioning[:members].flatten(0, 1).to(device, non_blocking=True)
    return repeated | t.backbone.conditioning_of(crops)
