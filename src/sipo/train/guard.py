"""NaN and infinity: found on the device, read once a step, stopped before the update with the pairs that caused it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sipo.config import TrainConfig
from sipo.errors import UserError
from sipo.processes import Processes

Cause = Callable[[int, list[int]], str | None]
MAX_OVERFLOWS_IN_A_ROW = 20
LOSS, GRADIENT = 2.0, 1.0


def nonfinite_flags(losses: Tensor, weights: list[nn.Parameter], scaled: bool) -> Tensor:
    """(B,): 2 where the pair's own loss is not finite, 1 where the gradients are not after this micro-batch, else 0.

    The overflows of `scaled` gradients (fp16) are the scaler's to handle. No weights, where `Guard` has the norm of the
    step alone: sharded gradients are seen only when the micro-batches are averaged, and of one micro-batch the norm says all.
    """
    flags = (~torch.isfinite(losses.detach())).float() * LOSS
    if scaled or not weights:
        return flags
    grads = [weight.grad for weight in weights if weight.grad is not None]
    norms = torch._foreach_norm(grads)  # pyright: ignore[reportPrivateImportUsage]
    bad = ~torch.isfinite(torch.stack(norms)).all()
    return torch.maximum(flags, bad.float() * GRADIENT)


class Guard:
    """Decides whether an update may happen, and counts those that did not.

    scaled: fp16, whose scaler handles overflows. cause: from a step and the slots of its pairs without a finite loss to
    what is broken outside of the training, if anything is.
    """

    def __init__(self, config: TrainConfig, scaled: bool, cause: Cause = lambda step, slots: None):
        self.config, self.scaled, self.cause = config, scaled, cause
        self.overflows_in_a_row = self.total_skipped = 0
        self.overflow = self.skipped = 0  # of the current step

    def allows(
        self, step: int, pairs: dict[str, np.ndarray], grad_norm: float, ids: dict[int, str], processes: Processes
    ) -> bool:
        """Whether to apply the update. `pairs`: the (N,) columns of the global batch; `ids`: those of this process's slots.

        Raises UserError naming pairs and timesteps, or after 20 fp16 overflows in a row, or over the limit of skips.
        """
        self.overflow = self.skipped = 0
        finite = np.isfinite(grad_norm)
        if self.scaled and not finite and not (pairs["nonfinite"] == LOSS).any():
            self._overflow(step)
            return True  # the scaler skips the update itself and lowers its scale
        self.overflows_in_a_row = 0
        if finite and not pairs["nonfinite"].any():
            return True
        everyone = {slot: id for found in processes.gather_objects(ids) for slot, id in found.items()}
        self.skipped, self.total_skipped = 1, self.total_skipped + 1
        if self.config.on_nonfinite == "skip" and self.total_skipped <= self.config.max_skipped_steps:
            return False
        slots = [int(slot) for slot in pairs["slot"][_where(pairs)]]
        if cause := next((each for each in processes.gather_objects(self.cause(step, slots)) if each), None):
            raise UserError(f"step {step}: NaN or infinity in {cause}")
        limit = f" (more than {self.config.max_skipped_steps} skipped steps)" if self.total_skipped > 1 else ""
        raise UserError(
            f"step {step}: NaN or infinity in {_culprits(pairs, everyone)}{limit}. The weights are those before this step, "
            "and the checkpoints are good. Look at these pairs; lower train.learning_rate; or set train.on_nonfinite: skip."
        )

    def counts(self) -> dict[str, int]:
        """0 or 1 each, for the step's line of metrics.jsonl."""
        return {"overflows": self.overflow, "skipped": self.skipped}

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"skipped": self.total_skipped, "overflows_in_a_row": self.overflows_in_a_row}

    def load_state(self, state: dict[str, Any]) -> None:
        self.total_skipped, self.overflows_in_a_row = state["skipped"], state["overflows_in_a_row"]

    def _overflow(self, step: int) -> None:
        self.overflow = 1
        self.overflows_in_a_row += 1
        if self.overflows_in_a_row >= MAX_OVERFLOWS_IN_A_ROW:
            raise UserError(
                f"step {step}: the fp16 gradients overflowed {MAX_OVERFLOWS_IN_A_ROW} times in a row. "
                "Lower train.learning_rate, or use train.mixed_precision: bf16."
            )


def _where(pairs: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) bool: the pairs that `_culprits` names."""
    flags = pairs["nonfinite"]
    return flags == LOSS if (flags == LOSS).any() else flags > 0 if flags.any() else np.ones(len(flags), bool)


def _culprits(pairs: dict[str, np.ndarray], ids: dict[int, str]) -> str:
    """The pairs with a non-finite loss, else those of the first micro-batch whose gradients were not finite."""
    flags, where = pairs["nonfinite"], _where(pairs)
    named = [f"{ids[int(slot)]} (t = {t:g})" for slot, t in zip(pairs["slot"][where], pairs["t"][where], strict=True)]
    what = "the loss of" if (flags == LOSS).any() else "the gradients of a micro-batch among"
    return f"{what} {', '.join(named[:8])}" + (f" and {len(named) - 8} more" if len(named) > 8 else "")
