"""What a config holds: frozen dataclasses, one a section.

A component's config *is* the component's own dataclass: `loss: {name: sipo, beta: 1.0}` builds `SIPO(beta=1.0)`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field

from sipo import registry
from sipo.errors import UsageError
from sipo.kernels import DDIM
from sipo.size import Size
from sipo.terms import ImportanceWeight
from sipo.timesteps import Uniform

# Ranges, which the reader checks with the types; a computer holds what is below the upper ones.
NotNegative = Annotated[int, Field(ge=0, le=10**12)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Few = Annotated[int, Field(ge=1, le=16384)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Workers = Annotated[int, Field(ge=0, le=1024)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FromZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=0.9)]


def _project(name: str) -> str:
    """A project's name; YAML 1.2 reads `no` as a text, and nobody's project is called so."""
    if name.strip().lower() in ("", "no", "n", "off", "false", "none", "yes", "y", "on", "true"):
        raise ValueError("a project's name, or null for none")
    return name


def _sharding(kind: str) -> str:
    if kind not in ("none", "full", "grads"):
        raise ValueError(
            f"none, full or grads{' (which replaces zero1 and zero2)' if kind in ('zero1', 'zero2') else ''}"
        )
    return kind


Project = Annotated[str, AfterValidator(_project)]

Quantization = Literal["int8", "fp8", "nf4"]
Offload = Literal["blocks", "reference"]

COMPONENTS = {"loss": registry.objectives, "kernel": registry.kernels, "timesteps": registry.timesteps}


@dataclass(frozen=True)
class ModelConfig:
    """Which model is aligned."""

    path: str  # "miniature", a folder in diffusers layout, a hub id, or one .safetensors file
    config: str | None = (
        None  # of a file: the folder or hub id with its configs and tokenizers; null: what it looks like
    )
    revision: str | None = None
    variant: str | None = None
    vae: str | None = (
        None  # another VAE: a folder, a .safetensors file or a hub id, such as madebyollin/sdxl-vae-fp16-fix
    )
    lora: str | None = None  # merged into base and reference before anything else
    guidance: FromZero = 3.5  # what a guidance-distilled model (FLUX.1-dev) is told in training
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of frozen weights; null: as mixed_precision
    quantize: Quantization | None = None  # the denoiser's linear layers while adapters are trained on them
    # On the CPU until they run: frozen blocks under adapters, or the frozen copy of full fine-tuning.
    offload: Offload | None = None
    caption_windows: Annotated[int, Field(ge=1, le=64)] = 1  # of 75 tokens each, for CLIP; 1: the rest is cut off
    pipeline: str | None = (
        None  # the class in diffusers that opens the checkpoint; null: the one that its model_index.json names
    )

    def frozen_dtype(self, compute: torch.dtype) -> torch.dtype:
        """Of the frozen weights, in a training or a program that computes in `compute`."""
        return getattr(torch, self.dtype) if self.dtype else compute


@dataclass(frozen=True)
class DataConfig:
    """Which pairs, and what becomes of them on the way to the model."""

    path: str
    ties: Literal["drop", "error"] = "drop"
    on_bad_rows: Literal["stop", "skip"] = "stop"
    max_pairs: Count | None = None
    max_pixels: Count = 64_000_000  # larger images are reported, not decoded
    resolution: Few | tuple[Few, Few] | None = None  # pixels, a square's side or [height, width]; null: the model's own
    num_frames: Few | None = None  # of a video; null: the model's own
    fps: Positive | None = None  # frames are taken at this rate, from the first on; null: the model's own
    crop: Literal["center", "random"] = "center"
    flip: bool = False
    prompt_dropout: Probability = 0.0
    # The noise of training: drawn anew in every step and shared by both members, or what each was sampled from (flow models).
    noise: Literal["drawn", "sampled"] = "drawn"
    # The probability that a label is wrong: of every pair, or "strength", 1 less the pair's own. 0: labels are right.
    label_smoothing: Probability | Literal["strength"] = 0.0
    cache: str | None = None  # a folder that `sipo data encode` made, or where `sipo train` shall make it
    cache_dtype: Literal["float32", "float16", "bfloat16"] = (
        "float32"  # of what the cache would hold in float32; half of it, and rounded, in the others
    )
    validation: Share | str | None = None  # a share of the prompts held out, or a file of pairs
    max_validation_pairs: Count = 256
    workers: Workers = 2

    def __post_init__(self) -> None:
        if self.noise == "sampled" and self.flip:
            raise ValueError(
                "noise: sampled is the noise of a picture as it was drawn, which flip mirrors; leave one out"
            )

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
    rank: Few = 16
    alpha: Positive = 16.0
    target_modules: list[str] | None = None  # null: the backbone's attention projections
    start: str | None = None  # a run, or a folder of weights that one wrote; null: the model. Also p_old, see `weight`
    reference: Literal["base", "start"] = "base"  # base: the model, whatever the policy starts from

    def __post_init__(self) -> None:
        if self.reference == "start" and self.start is None:
            raise ValueError("reference: start needs the weights that the policy starts from, under start")


@dataclass(frozen=True)
class KeepBest:
    """Which weights a run keeps: those whose samples score best on held-out prompts, the same draws every time."""

    scorer: str  # as for `sipo score`: NAME, NAME=WEIGHTS or module:Class; with a worker, the name of its scores
    worker: str | None = None  # the command of a scorer in an environment of its own
    every: Count = 100  # steps; the untrained policy and the last step are scored too
    patience: Count | None = None  # stop after so many scores without a new best; null: take all steps
    prompts: str | None = None  # a prompt file; null: prompts of data.validation
    num_prompts: Count = 64
    images_per_prompt: Count = 1
    seed: Seed = 0


@dataclass(frozen=True)
class ReferenceConfig:
    """When the reference runs."""

    # In every step (null), or once: on so many fixed draws of timestep and noise per pair, which the epochs take in turn.
    precompute: Few | None = None


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained. The global batch is batch_size x gradient_accumulation x processes, in pairs."""

    num_steps: Count = 1000
    batch_size: Count = 4
    gradient_accumulation: Count = 1
    learning_rate: Annotated[float, Field(gt=0, le=1e9)] = 2.0e-5
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NotNegative = 0
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Positive = 1e-8
    weight_decay: FromZero = 0.0
    max_grad_norm: Positive = 1.0
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    compile: bool = False
    # Of the denoiser, over the processes: everything (full), or all but the weights between forward and backward (grads).
    sharding: Annotated[str, AfterValidator(_sharding)] = "none"
    deterministic: bool = False  # on a GPU: deterministic kernels, so that a resumed run is exact there too
    ema_decay: Inside | None = None
    seed: Seed = 0
    num_threads: Annotated[int, Field(ge=1, le=1024)] | None = (
        None  # CPU threads; a resumed run is exact at an equal number
    )
    checkpoint_every: Count = 100
    keep_checkpoints: Count = 2
    sample_every: NotNegative = 100
    validate_every: NotNegative = 100
    keep_best: KeepBest | None = None
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped_steps: NotNegative = 10

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of autocast."""
        return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.mixed_precision]

    def __post_init__(self) -> None:
        if self.sharding != "none" and (self.compile or self.optimizer != "adamw"):
            raise ValueError(f"sharding: {self.sharding} goes with optimizer: adamw and compile: false")


@dataclass(frozen=True)
class SampleConfig:
    """The sample grids during training, and the default settings of `generate` and `compare`."""

    prompts: str | None = None  # a file; null: prompts of the pairs
    num_prompts: Count = 8
    num_inference_steps: Count = 25
    guidance_scale: Annotated[float, Field(allow_inf_nan=False)] = 7.5
    seed: Seed = 0
    batch_size: Count | None = None  # samples at once; null: 8 pictures, 1 video


@dataclass(frozen=True)
class LogConfig:
    """Where metrics go beside metrics.jsonl. wandb and trackio take a project's name."""

    tensorboard: bool = True
    wandb: Project | None = None
    trackio: Project | None = None


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
        return self.loss.needs_reference or self.weighs_by_reference

    @property
    def runs_reference(self) -> bool:
        """Whether every step runs it."""
        return self.needs_reference and self.train.reference.precompute is None

    @property
    def weighs_by_reference(self) -> bool:
        """Whether the denominator of an importance weight is the reference, whose prediction it then reads."""
        weighs = self.loss.needs_importance_weights and self.weight.denominator != "posterior"
        return weighs and not self.needs_old

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
