"""Open a run, a config's model, a checkpoint or a hub id for generation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sipo import registry
from sipo.backbones.architecture import Architecture, read_architecture
from sipo.backbones.backbone import Backbone, load_backbone
from sipo.backbones.family import Sampler
from sipo.config import Config, ModelConfig, SampleConfig, is_config_file, load_config, parse_config
from sipo.errors import UserError
from sipo.files import hash_files
from sipo.run import RunDir
from sipo.samples.sources import SourceSampler
from sipo.size import Size


@dataclass(frozen=True)
class Opened:
    """A sampler, the settings that tell its pictures from others, and the model."""

    sampler: Sampler | SourceSampler
    settings: dict[str, Any]
    backbone: Backbone


def open_for_sampling(
    path: str, base_only: bool = False, num_inference_steps: int | None = None, guidance_scale: float | None = None
) -> Opened:
    """A run directory (its weights, or with `base_only` the model it started from), a config (the model that a training by
    it would start from, by all its settings), or what `model.path` takes.

    Steps and guidance default to the `sample` settings of the run or the config, or to the miniature's own. Raises UserError when
    the run has no weights yet.
    """
    if is_config_file(path):
        config = load_config(path)
        return open_weights(config, config.model, None, "base", num_inference_steps, guidance_scale)
    run = RunDir(Path(path))
    if not run.config.is_file():
        return open_weights(None, ModelConfig(path), None, "base", num_inference_steps, guidance_scale)
    config = parse_config(run.read_config(), str(run.config))
    weights = None if base_only else run.weights
    return open_weights(config, config.model, weights, run.path.name, num_inference_steps, guidance_scale)


def run_architecture(run: RunDir) -> tuple[Architecture, Size]:
    """What a run's model is and the size of its samples, without its weights.

    Raises UserError for a config, a model or a size that cannot be read or taken.
    """
    config = parse_config(run.read_config(), str(run.config))
    architecture = read_architecture(config.model)
    return architecture, architecture.size(config.data.size)


def open_weights(
    config: Config | None,
    model: ModelConfig,
    weights: Path | None,
    name: str,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    encoders: bool = True,
) -> Opened:
    """A model, with the weights that a training by `config` wrote; `name` tells in the settings whose they are.

    Steps and guidance default to the config's `sample`, without one to a miniature's own. encoders: False leaves them on
    disk while they are not needed. Raises UserError where the folder holds no weights.
    """
    sample = config.sample if config else _default_sample(model.path)
    steps = num_inference_steps or sample.num_inference_steps
    guidance = sample.guidance_scale if guidance_scale is None else guidance_scale
    device = torch.device(
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )
    is_full = config is not None and config.policy.kind == "full" and weights is not None
    windows = model.caption_windows
    opened = ModelConfig(str(weights), dtype=model.dtype, caption_windows=windows) if is_full else model
    name = "base" if weights is None else f"{name} {_hash(weights)}"
    architecture = read_architecture(opened)
    dtype = sampling_dtype(config, architecture, device)
    size = config.data.size if config else lambda own: own
    backbone = load_backbone(architecture, device, dtype, encoders, size)
    if weights is not None and not is_full:
        backbone.merge_lora(weights)
    settings = {"model": model.path, "weights": name, **backbone.size.to_dict(), "num_inference_steps": steps,
                "guidance_scale": guidance, "dtype": str(dtype)}  # fmt: skip
    settings |= {"caption_windows": windows} if windows > 1 else {}
    settings |= {"pipeline": model.pipeline} if model.pipeline else {}
    if backbone.schedule.prediction == "flow" and backbone.noise_dtype != torch.float32:
        settings["noise"] = str(backbone.noise_dtype).removeprefix("torch.")  # with the seed, all of it
    return Opened(backbone.sampler(steps, guidance), settings, backbone)


def _default_sample(path: str) -> SampleConfig:
    """With what a miniature samples well; else what a config without the section has."""
    found = registry.miniature(path)
    if found is None:
        return SampleConfig()
    return SampleConfig(num_inference_steps=found.num_inference_steps, guidance_scale=found.guidance_scale)


def sampling_dtype(config: Config | None, architecture: Architecture, device: torch.device) -> torch.dtype:
    """What samples are computed in: on a GPU as the training by `config` did, without one `model.dtype` or the family's
    own, because bfloat16's networks overflow float16; float32 elsewhere. Frozen weights have `model.dtype`, if given.
    """
    if device.type != "cuda":
        return torch.float32
    return config.train.compute_dtype if config else architecture.model.frozen_dtype(architecture.family.dtype)


def _hash(weights: Path) -> str:
    """Of the weights; changes when they do."""
    files = sorted(weights.rglob("*.safetensors"))
    if not files:
        raise UserError(f"{weights.parent} has no weights yet: `sipo train` writes them when it ends")
    return hash_files(files)[:12]
