"""Whether a config suits its model and this machine, found from the model's configs alone: before data, before weights."""

import torch

from sipo.backbones import Architecture
from sipo.config import Config
from sipo.errors import UsageError
from sipo.size import Size
from sipo.timesteps import draw_timesteps


def require_fit(config: Config, architecture: Architecture, size: Size, device: torch.device | None) -> None:
    """Raises UsageError with every key that the model's schedule or the device refuses. device: None for any."""
    schedule, steps, mistakes = architecture.adapter.schedule(size), config.num_inference_steps, []
    last = torch.tensor([schedule.num_train_timesteps - 1])
    try:
        config.kernel.coefficients(schedule, last, last - 1)
    except ValueError as error:
        mistakes.append(f"kernel.name: {error}")
    if schedule.prediction != "flow" and steps > schedule.num_train_timesteps:
        mistakes.append(
            f"kernel.num_inference_steps: found {steps}; the model has {schedule.num_train_timesteps} timesteps"
        )
    try:
        draw_timesteps(config.timesteps, schedule, steps, config.train.seed, 1, torch.tensor([0]), 1)
    except ValueError as error:
        mistakes.append(f"timesteps: {str(error).removeprefix('timesteps ')}")
    if config.data.noise == "sampled" and schedule.prediction != "flow":
        mistakes.append(
            "data.noise: sampled joins each member to its noise by the straight path of a flow model; this one predicts "
            f"{schedule.prediction}: use drawn"
        )
    if device is not None and device.type != "cuda" and config.train.mixed_precision == "fp16":
        mistakes.append("train.mixed_precision: fp16 trains on a CUDA GPU only; use bf16, or no")
    if device is not None and device.type == "cpu" and config.model.dtype == "float16":
        mistakes.append("model.dtype: float16 weights compute on a GPU only; use bfloat16, or null")
    if mistakes:
        raise UsageError("\n".join(mistakes))
