"""NaN and infinity: found on the device, read once a step, stopped before the update with the pairs that caused it."""

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from sipo.config import TrainConfig
from sipo.errors import UserError

MAX_OVERFLOWS_IN_A_ROW = 20
LOSS, GRADIENT = 2.0, 1.0


def nonfinite_flags(losses: Tensor, weights: list[nn.Parameter], scaled: bool) -> Tensor:
    """(B,): 2 where the pair's own loss is not finite, 1 where the gradients are not after this micro-batch, else 0.

    `scaled` gradients (fp16) overflow as a matter of course and are the scaler's to judge. No weights: where
    they are sharded, gradients are not seen before the micro-batches are averaged, so `Guard` has their norm alone.
    """
    flags = (~torch.isfinite(losses.detach())).float() * LOSS
    if scaled or not weights:
        return flags
    grads = [weight.grad for weight in weights if weight.grad is not None]
    bad = ~torch.isfinite(torch.stack(torch._foreach_norm(grads))).all()
    return torch.maximum(flags, bad.float() * GRADIENT)


class Guard:
    """Decides whether an update may happen, and counts those that did not."""

    def __init__(self, config: TrainConfig):
        self.config = config
        self.overflows_in_a_row = self.total_skipped = 0
        self.overflow = self.skipped = 0  # of the step at hand
        self.grad_norm: float | None = None

    def allows(self, step: int, pairs: dict[str, np.ndarray], ids: dict[int, str], accelerator: Accelerator) -> bool:
        """Whether to call the optimizer. `pairs` are the (N,) columns of the global batch, `ids` this process's pairs.

        Raises UserError naming pairs and timesteps, or after 20 fp16 overflows in a row, or over the limit of skips.
        """
        self.overflow = self.skipped = 0
        norm = float(pairs["grad_norm"].max())
        self.grad_norm = float(f"{norm:.6g}") if np.isfinite(pairs["grad_norm"]).all() else None
        if accelerator.scaler is not None and self.grad_norm is None and not (pairs["nonfinite"] == LOSS).any():
            self._overflow(step)
            return True  # the scaler skips the update itself and lowers its scale
        self.overflows_in_a_row = 0
        if self.grad_norm is not None and not pairs["nonfinite"].any():
            return True
        culprits = _culprits(pairs, ids, accelerator)
        self.skipped, self.total_skipped = 1, self.total_skipped + 1
        if self.config.on_nonfinite == "skip" and self.total_skipped <= self.config.max_skipped_steps:
            return False
        limit = f" (more than {self.config.max_skipped_steps} skipped steps)" if self.total_skipped > 1 else ""
        raise UserError(
            f"step {step}: NaN or infinity in {culprits}{limit}. The weights are those before this step, and the "
            "checkpoints are good. Look at these pairs; lower train.learning_rate; or set train.on_nonfinite: skip."
        )

    def counts(self) -> dict[str, int]:
        """0 or 1 each, for the step's line of metrics.jsonl."""
        return {"overflows": self.overflow, "skipped": self.skipped}

    def state(self, scaler: Any) -> dict[str, Any]:
        """For the checkpoint."""
        return {"skipped": self.total_skipped, "overflows_in_a_row": self.overflows_in_a_row,
                "scaler": scaler.state_dict() if scaler is not None else None}  # fmt: skip

    def load_state(self, state: dict[str, Any], scaler: Any) -> None:
        self.total_skipped, self.overflows_in_a_row = state["skipped"], state["overflows_in_a_row"]
        if scaler is not None and state["scaler"]:
            scaler.load_state_dict(state["scaler"])

    def _overflow(self, step: int) -> None:
        self.overflow = 1
        self.overflows_in_a_row += 1
        if self.overflows_in_a_row >= MAX_OVERFLOWS_IN_A_ROW:
            raise UserError(
                f"step {step}: the fp16 gradients overflowed {MAX_OVERFLOWS_IN_A_ROW} times in a row. "
                "Lower train.learning_rate, or use train.mixed_precision: bf16."
            )


def _culprits(pairs: dict[str, np.ndarray], ids: dict[int, str], accelerator: Accelerator) -> str:
    """The pairs with a non-finite loss, else those of the first micro-batch whose gradients were not finite."""
    everyone = dict(gather_object(list(ids.items()))) if accelerator.num_processes > 1 else ids
    flags = pairs["nonfinite"]
    where = flags == LOSS if (flags == LOSS).any() else flags > 0 if flags.any() else np.ones(len(flags), bool)
    named = [
        f"{everyone[int(slot)]} (t = {t:g})" for slot, t in zip(pairs["slot"][where], pairs["t"][where], strict=True)
    ]
    what = "the loss of" if (flags == LOSS).any() else "the gradients of a micro-batch among"
    return f"{what} {', '.join(named[:8])}" + (f" and {len(named) - 8} more" if len(named) > 8 else "")
