"""A training that is open: everything that its steps, validation, samples and checkpoints need."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sipo.backbones import Backbone
from sipo.config import SampleConfig, TrainConfig
from sipo.data.batches import PairBatch
from sipo.data.dataset import PairDataset
from sipo.kernels import Kernel
from sipo.losses import Objective
from sipo.losses.smoothing import Smoothing
from sipo.processes import Processes
from sipo.run import RunDir
from sipo.samples.folder import PromptItem
from sipo.terms import ImportanceWeight
from sipo.timesteps import Timesteps
from sipo.train.best import Best
from sipo.train.engine import Engine
from sipo.train.guard import Guard
from sipo.train.known import KnownErrors
from sipo.train.optim import Ema, Updater
from sipo.train.record import Clock, NoRecorder, Recorder


@dataclass(frozen=True)
class Training:
    """The parts of a config's training, made once by `open_training`."""

    run: RunDir
    settings: TrainConfig
    processes: Processes
    start: int  # the step that it resumes after
    # The model.
    backbone: Backbone
    engine: Engine
    compute: torch.dtype
    # The objective, and the transition whose importance weights it reads.
    objective: Objective
    label_smoothing: Smoothing
    needs_reference: bool
    needs_old: bool
    timesteps: Timesteps
    kernel: Kernel
    num_inference_steps: int
    weight: ImportanceWeight
    # The pairs.
    global_batch: int
    batches: Iterator[PairBatch]  # the micro-batches of this process, step after step
    validation: PairDataset | None
    # What changes from step to step, besides the weights.
    updater: Updater
    ema: Ema | None
    guard: Guard
    clock: Clock
    recorder: Recorder | NoRecorder
    best: Best | None
    # The sample grids.
    sample: SampleConfig
    prompts: list[PromptItem]
    # In which samplers drew the noise that members are trained with, where that is not drawn anew.
    noise_dtype: torch.dtype | None = None
    # The reference's errors, where they were computed before: it does not run then.
    known: KnownErrors | None = None
