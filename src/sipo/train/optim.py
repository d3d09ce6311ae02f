"""Learning rate and moving average. The rate is a function of the step, so it has no state."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sipo.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of update `step` (1, 2, ...): a linear warm-up, then constant, linear to zero, or cosine to zero."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - 1 - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    decay = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
    return config.learning_rate * decay[config.lr_scheduler]


class Ema:
    """Exponential moving average of the trained weights, float32."""

    def __init__(self, weights: dict[str, nn.Parameter], decay: float):
        self.weights, self.decay = weights, decay
        self.average = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """average <- decay average + (1 - decay) weights."""
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            list(self.average.values()), [w.detach() for w in self.weights.values()], 1 - self.decay
        )

    def load_state(self, state: dict[str, Tensor]) -> None:
        for name, average in self.average.items():
            average.copy_(state[name])

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The network holds the average while the context lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self.weights.items():
            kept = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(kept)
