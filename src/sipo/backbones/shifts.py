"""The time shift of flow-matching checkpoints, by the configs of their schedulers."""

import math
from typing import Any

from sipo.schedule import FlowSchedule


def flow_schedule(scheduler: dict[str, Any], tokens: int) -> FlowSchedule:
    """The path of a FlowMatchEulerDiscreteScheduler for so many image tokens: its static shift, or the dynamic one.

    The dynamic shift is e^mu, or mu where `time_shift_type` is "linear"; mu is linear in the number of tokens.
    """
    shift = scheduler.get("shift", 1.0)
    if scheduler.get("use_dynamic_shifting"):
        keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        base, most, lowest, highest = (scheduler[key] for key in keys)
        mu = lowest + (highest - lowest) * (tokens - base) / (most - base)
        shift = dynamic_shift(scheduler, mu)
    return FlowSchedule(scheduler["num_train_timesteps"], shift)


def dynamic_shift(scheduler: dict[str, Any], mu: float) -> float:
    return mu if scheduler.get("time_shift_type") == "linear" else math.exp(mu)
