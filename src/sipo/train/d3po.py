"""D3PO's step: its pairs are steps of two trajectories, whose densities take the place of prediction errors."""

import torch
from torch import Tensor, nn

from sipo.backbones.trajectory import guided
from sipo.config import Config
from sipo.data.batches import PairBatch
from sipo.errors import UsageError
from sipo.losses import D3PO
from sipo.schedule import VPSchedule
from sipo.terms import StepTerms, step_terms
from sipo.train.record import Clock
from sipo.train.step import Networks, accumulate, apply
from sipo.train.table import Update
from sipo.train.training import Training


def take_d3po_step(t: Training, step: int, stop: bool = False) -> Update:
    """As `sipo.train.step.take_step`, on steps of trajectories."""
    t.clock.restart()
    rows, ids = accumulate(t, step, trajectory_terms, lambda terms: {})
    return apply(t, step, rows, ids, stop)


def trajectory_terms(t: Training, batch: PairBatch, step: int, global_batch: int, clock: Clock) -> StepTerms:
    """Run reference and policy, guided as in sampling, on one micro-batch of steps."""
    assert batch.times is not None
    assert batch.rejected is not None
    device = t.processes.device
    chosen, rejected = (
        x.to(device, non_blocking=True) for x in (batch.chosen, batch.rejected)
    )  # (B, 2, ...): x_t, x_s
    source = None if batch.source is None else batch.source.to(device, non_blocking=True)
    text, empty = (
        {name: torch.cat([value] * 2) for name, value in conditioning.items()}
        for conditioning in t.backbone.condition_guided(batch.prompts, source)
    )
    now, then = batch.times.to(device, non_blocking=True).unbind(1)
    if isinstance(t.backbone.schedule, VPSchedule):
        now, then = now.long(), then.long()
    clock.mark("data")

    def predict(network: nn.Module, xt: Tensor, t_all: Tensor) -> Tensor:
        return guided(t.backbone, network, xt, t_all, text, empty, t.sample.guidance_scale)

    run = Networks(t, step, batch, clock, predict)
    with torch.autocast(device.type, t.compute, enabled=t.compute != torch.float32):
        return step_terms(
            run.policy, run.frozen("reference"), t.backbone.schedule, t.kernel, chosen, rejected, now, then
        )


def require_trajectories(config: Config) -> None:
    """UsageError for keys that D3PO has no use for: its data are states of trajectories, whole and encoded already."""
    if not isinstance(config.loss, D3PO):
        return
    data = config.data
    useless = {
        "validation": data.validation,
        "cache": data.cache,
        "flip": data.flip,
        "prompt_dropout": data.prompt_dropout,
        "noise": data.noise != "drawn",
    }
    if given := [f"data.{key}" for key, value in useless.items() if value]:
        raise UsageError(
            f"loss.name: d3po trains on trajectories, for which {', '.join(given)} does nothing: leave it out"
        )
    if config.kernel.deterministic:
        raise UsageError("loss.name: d3po compares densities of steps, which kernel.eta: 0 does not have")
