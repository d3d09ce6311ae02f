"""From gradients to an update: learning rate, fp16's gradient scaler, clipping, AdamW, moving average."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from sipo.config import TrainConfig
from sipo.errors import UserError


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of update `step` (1, 2, ...): a linear warm-up, then constant, linear to zero, or cosine to zero. No state."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - 1 - config.warmup_steps) / max(1, config.num_steps - config.warmup_steps)
    decay = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
    return config.learning_rate * decay[config.lr_scheduler]


class Updater:
    """The optimizer over the float32 master weights, whole or sharded (DTensors).

    A step is `backward` once a micro-batch, then `clip`, then `finish`.
    """

    def __init__(self, config: TrainConfig, weights: list[nn.Parameter], device: torch.device):
        self.weights, self.max_norm = weights, config.max_grad_norm
        self.optimizer = make_optimizer(config, weights, device)
        self.scaler = torch.amp.GradScaler(device.type) if config.mixed_precision == "fp16" else None

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def clip(self) -> Tensor:
        """Scale the gradients to the norm `max_grad_norm` at most, over all weights and shards; the norm before, ()."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in self.weights if weight.grad is not None])
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        torch.nn.utils.clip_grads_with_norm_(self.weights, self.max_norm, norm)
        return norm

    def finish(self, learning_rate: float, apply: bool) -> None:
        """Update the weights, or leave them; forget the gradients. On an fp16 overflow the scaler leaves them itself."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.scaler is None:
            if apply:
                self.optimizer.step()
        elif apply:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.scaler.update(self.scaler.get_scale())  # keeps the scale; without a call the next unscale_ would fail
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def scaler_state(self) -> dict[str, Any] | None:
        return None if self.scaler is None else self.scaler.state_dict()

    def load_state(self, optimizer: dict[str, Any], scaler: dict[str, Any] | None) -> None:
        self.optimizer.load_state_dict(optimizer)
        if self.scaler is not None and scaler:
            self.scaler.load_state_dict(scaler)


def make_optimizer(config: TrainConfig, weights: list[nn.Parameter], device: torch.device) -> torch.optim.Optimizer:
    """AdamW, fused on a GPU, all weights in one call on a CPU; or its 8-bit form. The paper's Adam is `weight_decay: 0`."""
    shared: dict[str, Any] = {
        "lr": config.learning_rate, "betas": tuple(config.betas), "eps": config.epsilon, "weight_decay": config.weight_decay,
    }  # fmt: skip
    if config.optimizer == "adamw8bit":
        try:
            import bitsandbytes  # pyright: ignore[reportMissingImports]  # an extra
        except ImportError:
            raise UserError("train.optimizer: adamw8bit needs bitsandbytes: pip install 'sipo[8bit]'") from None
        return bitsandbytes.optim.AdamW8bit(weights, **shared)
    return torch.optim.AdamW(weights, **shared, fused=device.type == "cuda", foreach=device.type == "cpu")


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
