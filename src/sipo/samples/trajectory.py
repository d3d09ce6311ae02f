"""Trajectories beside samples: the states that a sampler went through, for objectives that compare their steps.

00000.trajectory.safetensors   states (n + 1, ...), float32, from noise to data; times (n + 1,), float64; in the metadata
                               the guidance scale, the kernel and the number of steps of its grid
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from sipo.errors import UserError
from sipo.tensors import open_tensors


@dataclass(frozen=True, eq=False)
class Traced:
    """One sample with its trajectory. `settings`: what a training must know to compute the same densities, as text."""

    media: Image.Image | list[Image.Image]
    states: Tensor
    times: Tensor
    settings: dict[str, str]

    def file(self) -> bytes:
        """The content of the trajectory's file."""
        return save({"states": self.states.contiguous(), "times": self.times}, self.settings)


def trajectory_settings(kernel: object, num_inference_steps: int, guidance_scale: float) -> dict[str, str]:
    """What the densities of a trajectory's steps depend on, besides the weights."""
    return {"kernel": repr(kernel), "grid": str(num_inference_steps), "guidance_scale": f"{guidance_scale:g}"}


def trajectory_of(media: Path) -> Path:
    """The trajectory's file beside a sample."""
    return media.with_suffix(".trajectory.safetensors")


def read_times(media: Path) -> tuple[list[float], dict[str, str]]:
    """Times and settings of the trajectory of a sample. Raises UserError where there is none."""
    path = trajectory_of(media)
    try:
        with open_tensors(path) as file:
            return file.get_tensor("times").flatten().tolist(), file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path}: {media.name} has no trajectory that can be read ({error})") from error


def read_step(media: Path, step: int) -> Tensor:
    """(2, ...): x_t and x_s of a step of the trajectory. Raises UserError for a damaged file."""
    path = trajectory_of(media)
    try:
        with open_tensors(path) as file:
            return file.get_slice("states")[step : step + 2]
    except (SafetensorError, IndexError) as error:
        raise UserError(f"{path} has no states of step {step} ({error})") from error
