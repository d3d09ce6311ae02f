"""Open a run, a checkpoint or a hub id for generation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sipo.backbones.backbone import load_backbone
from sipo.backbones.family import Sampler
from sipo.config import Config, ModelConfig, SampleConfig, parse_config
from sipo.errors import UserError
from sipo.files import hash_files
from sipo.run import RunDir


@dataclass(frozen=True)
class Opened:
    """A sampler, and the settings that tell its pictures from others."""

    sampler: Sampler
    settings: dict[str, Any]


def open_for_sampling(
    path: str, base_only: bool = False, num_inference_steps: int | None = None, guidance_scale: float | None = None
) -> Opened:
    """A run directory (its weights, or with `base_only` the model it started from), or what `model.path` takes.

    Steps and guidance default to the run's `sample` settings. Raises UserError when the run has no weights yet.
    """
    run = RunDir(Path(path))
    config = parse_config(run.read_config(), str(run.config)) if run.config.is_file() else None
    sample = config.sample if config else SampleConfig()
    steps = num_inference_steps or sample.num_inference_steps
    guidance = sample.guidance_scale if guidance_scale is None else guidance_scale
    device = torch.device(
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    model = config.model if config else ModelConfig(path)
    weights = "base"
    if config and not base_only:
        model, weights = _with_weights(run, config)
    backbone = load_backbone(model, device, dtype, size=config.data.size if config else lambda own: own)
    if config and not base_only and config.policy.kind == "lora":
        backbone.merge_lora(run.weights)
    settings = {"model": model.path if not config else config.model.path, "weights": weights,
                **backbone.size.to_dict(), "num_inference_steps": steps, "guidance_scale": guidance,
                "dtype": str(dtype)}  # fmt: skip
    return Opened(backbone.sampler(steps, guidance), settings)


def _with_weights(run: RunDir, config: Config) -> tuple[ModelConfig, str]:
    """The model to load, and a name for the weights that changes when they do."""
    files = sorted(run.weights.rglob("*.safetensors"))
    if not files:
        raise UserError(f"{run.path} has no weights yet: `sipo train` writes them when it ends")
    name = f"{run.path.name} {hash_files(files)[:12]}"
    return (config.model if config.policy.kind == "lora" else ModelConfig(str(run.weights))), name
