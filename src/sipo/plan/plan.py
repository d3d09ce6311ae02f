"""A config becomes a plan: what one optimizer step costs on one GPU and on several."""

import math
from dataclasses import dataclass

import torch

from sipo.backbones.family import Conditioning, SourceAdapter
from sipo.backbones.offload import COPIES
from sipo.config import Config
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError
from sipo.losses import D3PO
from sipo.plan.gpus import Gpu
from sipo.plan.measure import Measured, measure
from sipo.plan.memory import Memory, adamw8bit_bytes, adamw_bytes, data_parallel, sharded
from sipo.size import Size
from sipo.train.policy import frozen_copies

OPTIMIZERS = {"adamw": adamw_bytes, "adamw8bit": adamw8bit_bytes}


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of one optimizer step on one GPU. `encoders`: VAE and text encoders, where there is no cache."""

    policy_forward: int
    policy_backward: int
    recomputed: int
    reference_forward: int
    encoders: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


@dataclass(frozen=True)
class Layout:
    """`num_gpus` GPUs, each with all of the model ("ddp") or a shard of it ("sharded"), or one ("single"). `pairs`: the global batch."""

    num_gpus: int
    kind: str
    memory: Memory
    pairs: int


@dataclass(frozen=True)
class CacheSize:
    """Bytes of a pair and of a prompt, if any, in `data.cache`; `pairs`: the rows of the data, None where it is not at hand."""

    dtype: str
    pair: int
    prompt: int
    pairs: int | None

    @property
    def pairs_in_all(self) -> int | None:
        return None if self.pairs is None else self.pairs * self.pair


@dataclass(frozen=True)
class Plan:
    """`forward_flops`: one sample through the denoiser as published, without adapters. `activations`: bytes of a
    micro-batch, without and with gradient checkpointing, whichever the config says. Of a step, in seconds: `computing`,
    FLOPs over the GPU's peak; `dequantizing`, quantised weights read and written in the compute dtype; `moving`, offloaded
    weights over PCI Express, which happens beside the first two. `seconds`: the time floor of these; real runs reach 30
    to 60 percent of it."""

    model: str
    size: Size
    gpu: Gpu
    parameters: int
    trained: int
    encoder_parameters: int
    forward_flops: int
    step: StepFlops
    computing: float
    dequantizing: float
    moving: float
    activations: int
    checkpointed: int
    layouts: tuple[Layout, ...]
    cache: CacheSize | None = None

    @property
    def seconds(self) -> float:
        return max(self.computing + self.dequantizing, self.moving)

    def fits(self, layout: Layout) -> bool:
        """Whether it leaves 1 GiB of the GPU's memory to CUDA and to what is not counted."""
        return layout.memory.total <= (self.gpu.memory - 1) * 2**30


def make_plan(config: Config, gpu: Gpu, num_gpus: list[int], measured: Measured | None = None) -> Plan:
    """Count everything on the meta device, without weights. With `measured`, what was counted before is used, and the size of the
    cache, for which the pairs are opened, is left out.

    A step is a forward and a backward of the policy over all samples of the batch (both members of a pair where the
    objective needs them), a forward of the reference and of the old policy where it needs them, and with gradient checkpointing the forward of
    the blocks once more. Raises UserError for a model, a size or a precision that cannot be planned.
    """
    settings, peak = config.train, gpu.peak(config.train.mixed_precision)
    cache = None if measured else _cache
    measured = measured or measure(config)
    samples = (2 if config.loss.needs_rejected else 1) * settings.batch_size
    if isinstance(config.loss, D3PO) and config.sample.guidance_scale != 1:
        samples *= 2  # with and without the prompt, as in sampling
    step = _step_flops(config, measured, samples)
    one = _memory(config, measured, samples)
    gathered = measured.gathered * settings.compute_dtype.itemsize * (1 if config.policy.kind == "lora" else 2)
    pairs = settings.batch_size * settings.gradient_accumulation
    layouts = []
    for n in num_gpus:
        layouts.append(Layout(n, "ddp" if n > 1 else "single", data_parallel(one, n), pairs * n))
        if n > 1:
            layouts.append(Layout(n, "sharded", sharded(one, n, gathered), pairs * n))
    dequantized, moved = _traffic(config, measured)
    return Plan(
        model=config.model.path,
        size=measured.size,
        gpu=gpu,
        parameters=measured.parameters,
        trained=measured.trained,
        encoder_parameters=measured.encoder_parameters,
        forward_flops=measured.forward,
        step=step,
        computing=step.total / peak,
        dequantizing=dequantized / (1e9 * gpu.bandwidth),
        moving=moved / (1e9 * gpu.pcie),
        activations=samples * measured.counted.activations,
        checkpointed=samples * measured.counted.checkpointed,
        layouts=tuple(layouts),
        cache=cache and cache(config, measured),
    )


def _memory(config: Config, measured: Measured, samples: int) -> Memory:
    """Of one GPU that holds everything."""
    settings, counted, model = config.train, measured.counted, config.model
    masters = 4 * measured.trained
    copies = frozen_copies(config.policy, config.runs_reference, config.needs_old)
    reference = copies.model * measured.full + copies.start * 4 * measured.parameters
    away = max(measured.streamed - COPIES * measured.largest_block, 0)
    return Memory(
        weights=measured.frozen[model.quantize]
        + copies.adapters * masters
        - (away if model.offload == "blocks" else 0),
        trained=masters,
        weight_copies=counted.weight_copies - (counted.frozen_copies if model.quantize else 0),
        reference=reference - (away * copies.model if model.offload == "reference" else 0),
        gradients=masters,
        optimizer=OPTIMIZERS[settings.optimizer](measured.entries),
        average=masters if settings.ema_decay else 0,
        encoders=0 if config.data.cache is not None else measured.encoder_bytes,
        activations=samples * (counted.checkpointed if settings.gradient_checkpointing else counted.activations),
    )


def _step_flops(config: Config, measured: Measured, samples: int) -> StepFlops:
    settings, counted = config.train, measured.counted
    times = samples * settings.gradient_accumulation
    pairs = settings.batch_size * settings.gradient_accumulation
    encoders = times * measured.vae_flops + pairs * measured.pair_flops
    return StepFlops(
        policy_forward=times * counted.forward,
        policy_backward=times * counted.backward,
        recomputed=times * counted.recomputed if settings.gradient_checkpointing else 0,
        reference_forward=times * measured.forward * (config.runs_reference + config.needs_old),
        encoders=0 if config.data.cache is not None else encoders,
    )


def _traffic(config: Config, measured: Measured) -> tuple[int, int]:
    """Bytes of a step that dequantising reads and writes, and that offloading moves to the GPU.

    Every micro-batch uses the weights in each forward, in the forward again of gradient checkpointing, and in the backward,
    which finds what that forward moved.
    """
    model, settings = config.model, config.train
    times, forwards = settings.gradient_accumulation, config.runs_reference + config.needs_old
    uses = forwards + 1 + settings.gradient_checkpointing
    dequantized = 0
    if model.quantize:
        half = (
            measured.linear[None]
            * settings.compute_dtype.itemsize
            // model.frozen_dtype(settings.compute_dtype).itemsize
        )
        dequantized = times * (uses + 1) * (measured.linear[model.quantize] + half)
    moved = {None: 0, "blocks": uses, "reference": forwards}[model.offload]
    return dequantized, times * moved * measured.streamed


def _cache(config: Config, measured: Measured) -> CacheSize | None:
    """Means and log-variances of both members, and what is read of a source, in both orientations where it flips, with the empty
    prompt too where that matters; and the text embeddings of a prompt."""
    data, adapter = config.data, measured.architecture.adapter
    if data.cache is None:
        return None
    try:
        source = open_pairs(data.path, data.ties, data.max_pairs, ask_hub=False)
    except UserError:
        source = None
    stored, has_rejected = (
        getattr(torch, data.cache_dtype),
        source.has_rejected if source else config.loss.needs_rejected,
    )

    def stored_bytes(tensors: Conditioning) -> int:
        return sum(t.numel() * (stored.itemsize if t.dtype == torch.float32 else t.itemsize) for t in tensors.values())

    pair = (2 if has_rejected else 1) * 2 * math.prod(adapter.latent_shape(measured.size)) * stored.itemsize
    frozen = config.model.frozen_dtype(config.train.compute_dtype)
    if isinstance(adapter, SourceAdapter):
        times = 2 if data.prompt_dropout and measured.architecture.mixes_source(measured.size) else 1
        pair += times * stored_bytes(adapter.meta_source(1, measured.size, frozen))
    prompt = stored_bytes(adapter.meta_prompts(1, frozen))
    return CacheSize(data.cache_dtype, pair * (2 if data.flip else 1), prompt, len(source) if source else None)
