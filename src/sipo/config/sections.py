"""What a config holds: frozen dataclasses, one a section.

A component's config *is* the component's own dataclass: `loss: {name: sipo, beta: 1.0}` builds `SIPO(beta=1.0)`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from sipo import registry
from sipo.errors import UsageError
from sipo.kernels import DDIM
from sipo.size import Size
from sipo.terms import ImportanceWeight
from sipo.timesteps import Uniform

COMPONENTS = {"loss": registry.objectives, "kernel": registry.kernels, "timesteps": registry.timesteps}


@dataclass(frozen=True)
class ModelConfig:
    """Which model is aligned."""

    path: str  # "miniature", a folder in diffusers layout, or a hub id
    revision: str | None = None
    variant: str | None = None
    vae: str | None = None  # another VAE, such as madebyollin/sdxl-vae-fp16-fix
    lora: str | None = None  # merged into base and reference before anything else
    guidance: float = 3.5  # what a guidance-distilled model (FLUX.1-dev) is told in training
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of frozen weights; null: as mixed_precision

    def frozen_dtype(self, compute: torch.dtype) -> torch.dtype:
        """Of the frozen weights, in a training or a program that computes in `compute`."""
        return getattr(torch, self.dtype) if self.dtype else compute


@dataclass(frozen=True)
class DataConfig:
    """Which pairs, and what becomes of them on the way to the model."""

    path: str
    ties: Literal["drop", "error"] = "drop"
    on_bad_rows: Literal["stop", "skip"] = "stop"
    max_pairs: int | None = None
    max_pixels: int = 64_000_000  # larger images are reported, not decoded
    resolution: int | tuple[int, int] | None = None  # pixels, a square's side or [height, width]; null: the model's own
    num_frames: int | None = None  # of a video; null: the model's own
    fps: float | None = None  # frames are taken at this rate, from the first on; null: the model's own
    crop: Literal["center", "random"] = "center"
    flip: bool = False
    prompt_dropout: float = 0.0
    cache: str | None = None  # a folder that `sipo data encode` made, or where `sipo train` shall make it
    validation: float | str | None = None  # a share of the prompts held out, or a file of pairs
    max_validation_pairs: int = 256
    workers: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.prompt_dropout <= 1:
            raise ValueError(f"prompt_dropout is a probability, got {self.prompt_dropout}")
        if isinstance(self.validation, float) and not 0 < self.validation < 1:
            raise ValueError(f"validation is a share between 0 and 1 or a file, got {self.validation}")
        _at_least(self, workers=0, max_validation_pairs=1, max_pixels=1)
        sides = self.resolution if isinstance(self.resolution, tuple) else [self.resolution or 1]
        if min(sides) < 1 or (self.num_frames is not None and self.num_frames < 1):
            raise ValueError("resolution and num_frames must be positive")
        if self.fps is not None and self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps}")

    def size(self, own: Size) -> Size:
        """The requested size; what the config leaves open is the model's own. Raises UsageError for frames of an image."""
        if not own.is_video and (self.num_frames, self.fps) != (None, None):
            raise UsageError("data.num_frames and data.fps are for video models; this model makes images")
        sides = self.resolution or (own.height, own.width)
        height, width = (sides, sides) if isinstance(sides, int) else sides
        return Size(height, width, self.num_frames or own.num_frames, self.fps or own.fps)


@dataclass(frozen=True)
class PolicyConfig:
    """What is trained: low-rank adapters on the denoiser, or all of it; and where it starts."""

    kind: Literal["lora", "full"] = "lora"
    rank: int = 16
    alpha: float = 16.0
    target_modules: list[str] | None = None  # null: the backbone's attention projections
    start: str | None = None  # a run, or a folder of weights that one wrote; null: the model. Also p_old, see `weight`
    reference: Literal["base", "start"] = "base"  # base: the model, whatever the policy starts from

    def __post_init__(self) -> None:
        _at_least(self, rank=1)
        if self.reference == "start" and self.start is None:
            raise ValueError("reference: start needs the weights that the policy starts from, under start")


@dataclass(frozen=True)
class KeepBest:
    """Which weights a run keeps: those whose samples score best on held-out prompts, the same draws every time."""

    scorer: str  # as for `sipo score`: NAME, NAME=WEIGHTS or module:Class; with a worker, the name of its scores
    worker: str | None = None  # the command of a scorer in an environment of its own
    every: int = 100  # steps; the untrained policy and the last step are scored too
    patience: int | None = None  # stop after so many scores without a new best; null: take all steps
    prompts: str | None = None  # a prompt file; null: prompts of data.validation
    num_prompts: int = 64
    images_per_prompt: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, every=1, num_prompts=1, images_per_prompt=1, seed=0)
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience must be at least 1, or null, got {self.patience}")


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained. The global batch is batch_size x gradient_accumulation x processes, in pairs."""

    num_steps: int = 1000
    batch_size: int = 4
    gradient_accumulation: int = 1
    learning_rate: float = 2.0e-5
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    compile: bool = False
    # Of the denoiser, over the processes: everything (full), or all but the weights between forward and backward (grads).
    sharding: str = "none"
    deterministic: bool = False  # on a GPU: deterministic kernels, so that a resumed run is exact there too
    ema_decay: float | None = None
    seed: int = 0
    num_threads: int | None = None  # CPU threads; a resumed run is exact at an equal number
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    sample_every: int = 100
    validate_every: int = 100
    keep_best: KeepBest | None = None
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped_steps: int = 10

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of autocast."""
        return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.mixed_precision]

    def __post_init__(self) -> None:
        _at_least(
            self, num_steps=1, batch_size=1, gradient_accumulation=1, warmup_steps=0, checkpoint_every=1,
            keep_checkpoints=1, sample_every=0, validate_every=0, max_skipped_steps=0, seed=0,
        )  # fmt: skip
        if self.learning_rate <= 0 or self.max_grad_norm <= 0:
            raise ValueError("learning_rate and max_grad_norm must be positive")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay lies between 0 and 1, got {self.ema_decay}")
        if self.sharding not in ("none", "full", "grads"):
            zero = " (which replaces zero1 and zero2)" if self.sharding in ("zero1", "zero2") else ""
            raise ValueError(f"sharding: found {self.sharding!r}; expected none, full or grads{zero}")
        if self.sharding != "none" and (self.compile or self.optimizer != "adamw"):
            raise ValueError(f"sharding: {self.sharding} goes with optimizer: adamw and compile: false")


@dataclass(frozen=True)
class SampleConfig:
    """The sample grids during training, and the default settings of `generate` and `compare`."""

    prompts: str | None = None  # a file; null: prompts of the pairs
    num_prompts: int = 8
    num_inference_steps: int = 25
    guidance_scale: float = 7.5
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        _at_least(self, num_prompts=1, num_inference_steps=1, batch_size=1, seed=0)


@dataclass(frozen=True)
class LogConfig:
    """Where metrics go beside metrics.jsonl. wandb and trackio take a project's name."""

    tensorboard: bool = True
    wandb: str | None = None
    trackio: str | None = None


@dataclass(frozen=True)
class Config:
    """Everything a run is made of; see docs/training.md for each key."""

    run: str
    model: ModelConfig
    data: DataConfig
    loss: Any
    weight: ImportanceWeight = field(default_factory=ImportanceWeight)
    kernel: Any = field(default_factory=DDIM)
    num_inference_steps: int = 50  # K of the transition grid; in YAML it stands under `kernel`
    timesteps: Any = field(default_factory=Uniform)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def needs_reference(self) -> bool:
        """Whether the objective reads the reference, or an importance weight whose denominator it is."""
        weighs = self.loss.needs_importance_weights and self.weight.denominator != "posterior"
        return self.loss.needs_reference or (weighs and not self.needs_old)

    @property
    def needs_old(self) -> bool:
        """Whether an importance weight reads p_old, the policy that produced the data, and that is not the reference."""
        weighs = self.loss.needs_importance_weights and self.weight.denominator == "old"
        return weighs and self.policy.start is not None and self.policy.reference == "base"

    def to_dict(self) -> dict[str, Any]:
        """The config as in YAML, every default written out."""
        plain: dict[str, Any] = {"run": self.run}
        for key, section in vars(self).items():
            if key in ("run", "num_inference_steps"):
                continue
            head = {"name": COMPONENTS[key].name_of(type(section))} if key in COMPONENTS else {}
            head |= {"num_inference_steps": self.num_inference_steps} if key == "kernel" else {}
            values = dataclasses.asdict(section)
            plain[key] = head | {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
        return plain


def component_class(section: str, name: Any) -> type:
    """The dataclass that a component's `name` stands for. Raises UsageError for an unknown one, or something else."""
    found = COMPONENTS[section].load(name, f"{section}.name")
    if not isinstance(found, type) or not dataclasses.is_dataclass(found):
        raise UsageError(f"{section}.name: {name} is no dataclass, whose fields would be the keys of {section}")
    return found


def _at_least(config, **bounds: int) -> None:
    low = [f"{name} must be at least {bound}, got {getattr(config, name)}"
           for name, bound in bounds.items() if getattr(config, name) < bound]  # fmt: skip
    if low:
        raise ValueError("; ".join(low))
