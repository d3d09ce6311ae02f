"""The base's prediction errors on encoded media: draws of timestep and noise for each item, a line of a journal each."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from sipo.backbones import Backbone
from sipo.data.batches import PairBatch, Slot, collate
from sipo.data.dataset import CachedPairs
from sipo.errors import UserError
from sipo.kernels import Kernel
from sipo.processes import ALONE, Processes, batches
from sipo.processes.journal import Journal
from sipo.rng import pair_randn
from sipo.terms import ImportanceWeight, pair_terms
from sipo.timesteps import Timesteps


@dataclass(frozen=True)
class Probe:
    """A network and the draws on which its errors are measured: one in the middle of each of `num_draws` equal strata of the
    density of timesteps. All items have the same timesteps, so that their errors differ by what they show and by noise."""

    backbone: Backbone
    timesteps: Timesteps
    kernel: Kernel
    num_inference_steps: int
    seed: int
    num_draws: int
    batch_size: int

    @property
    def edges(self) -> list[float]:
        """The timesteps between which the strata lie, (num_draws + 1,)."""
        return self._at(torch.linspace(0, 1 - 1e-9, self.num_draws + 1, dtype=torch.float64)).tolist()

    @property
    def t(self) -> Tensor:
        """(num_draws,): int64 on a VP schedule, float32 on a flow path."""
        t = self._at((torch.arange(self.num_draws, dtype=torch.float64) + 0.5) / self.num_draws)
        return t.float() if t.is_floating_point() else t

    def _at(self, u: Tensor) -> Tensor:
        return self.timesteps(self.backbone.schedule, u, self.num_inference_steps)


def measure(
    probe: Probe, pairs: CachedPairs, ids: list[str], file: Path, processes: Processes = ALONE,
    console: Console | None = None,
) -> list[dict]:  # fmt: skip
    """A line each: `id`, `t`, `coefficient` and the errors `chosen` and, where there is one, `rejected`, (num_draws,) each.

    ids: by which the items are told apart and their noise is drawn. Both members have the same noise, a function of (seed, id, draw). Lines are kept in `file`; the same call resumes. Raises UserError for an error that is not finite.
    """
    journal = Journal(file, processes, "id")
    done = journal.begin()
    units = batches(range(len(pairs)), probe.batch_size)  # as one process forms them, resumed or not
    units = [unit for unit in units if any(ids[place] not in done for place in unit)]
    left = sum(map(len, units))
    with processes.progress(console, f"errors of {file.stem}", len(pairs), len(pairs) - left) as advance:
        for unit in processes.share(units):
            batch = collate([pairs[Slot(place, 0, place)] for place in unit])
            journal.add(_lines(probe, replace(batch, ids=[ids[place] for place in unit])))
            advance(len(unit))
    lines = journal.finish(ids)
    return [lines[id] for id in ids]


@torch.no_grad()
def _lines(probe: Probe, batch: PairBatch) -> list[dict]:
    backbone, seed = probe.backbone, probe.seed
    x0, conditioning = _latents(probe, batch), _conditioning(probe, batch)

    def predict(xt: Tensor, t: Tensor) -> Tensor:
        return backbone.predict(backbone.denoiser, xt, t, conditioning)

    half = backbone.dtype != torch.float32
    columns: dict[str, list[Tensor]] = {"t": [], "coefficient": [], "chosen": [], "rejected": []}
    for number, each in enumerate(probe.t):
        draw, t = torch.full((len(batch.ids),), number), each.expand(len(batch.ids)).to(backbone.device)
        eps = pair_randn(x0[0].shape[1:], seed, batch.ids, draw, "eps").to(backbone.device)
        with torch.autocast(backbone.device.type, backbone.dtype, enabled=half):
            terms = pair_terms(
                predict, None, backbone.schedule, probe.kernel, probe.num_inference_steps, ImportanceWeight(), x0[0],
                x0[1] if len(x0) > 1 else None, eps, t,
            )  # fmt: skip
        columns["t"].append(t)
        if terms.step_coefficient is not None:
            columns["coefficient"].append(terms.step_coefficient)
        columns["chosen"].append(terms.chosen.policy_error)
        if terms.rejected is not None:
            columns["rejected"].append(terms.rejected.policy_error)
    table = {name: torch.stack(draws, 1).double().cpu() for name, draws in columns.items() if draws}  # (B, num_draws)
    _require_finite(backbone, batch.ids, table)
    return [
        {"id": id, **{name: values[place].tolist() for name, values in table.items()}}
        for place, id in enumerate(batch.ids)
    ]


def _latents(probe: Probe, batch: PairBatch) -> list[Tensor]:
    """x0 of each member, (B, ...)."""
    found, device = [], probe.backbone.device
    for member, moments in (("chosen", batch.chosen), ("rejected", batch.rejected)):
        if moments is not None:
            once = torch.zeros(len(batch.ids), dtype=torch.int64)
            noise = pair_randn(moments.shape[2:], probe.seed, batch.ids, once, f"vae {member}")
            found.append(probe.backbone.latents(moments.to(device), noise.to(device)))
    return found


def _conditioning(probe: Probe, batch: PairBatch) -> dict[str, Tensor]:
    """As a training conditions: the text repeated for the members, and what their crops add."""
    members, device = len(batch.micro_conditioning), probe.backbone.device
    text = {name: torch.cat([value.to(device)] * members) for name, value in (batch.conditioning or {}).items()}
    return text | probe.backbone.conditioning_of(batch.micro_conditioning.flatten(0, 1).to(device))


def _require_finite(backbone: Backbone, ids: list[str], table: dict[str, Tensor]) -> None:
    sound = torch.stack([values.isfinite().all(1) for values in table.values()]).all(0).tolist()
    if broken := [id for id, fine in zip(ids, sound, strict=True) if not fine]:
        why = backbone.nonfinite_weight() or "the model overflows in this train.mixed_precision"
        raise UserError(f"the base's error is NaN or infinite for {', '.join(broken[:8])}: {why}")
