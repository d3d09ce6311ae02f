"""A config becomes a plan: what one optimizer step costs on one GPU and on several."""

from dataclasses import dataclass

import torch
from torch import nn

from sipo.backbones.meta import (
    Architecture,
    meta_denoiser,
    meta_inputs,
    meta_pixels,
    meta_text_encoders,
    meta_vae,
    read_architecture,
    text_tokens,
)
from sipo.config import Config
from sipo.errors import UsageError
from sipo.plan.adapters import add_adapters
from sipo.plan.count import Counted, count, forward_flops
from sipo.plan.gpus import Gpu
from sipo.plan.memory import Memory, adamw8bit_bytes, adamw_bytes, data_parallel, sharded
from sipo.size import Size

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    """So many GPUs, each with all of the model ("ddp") or a share of it ("sharded"), or one ("single"). `pairs`: the global batch."""

    num_gpus: int
    kind: str
    memory: Memory
    pairs: int


@dataclass(frozen=True)
class Plan:
    """`forward_flops`: one sample through the denoiser as published, without adapters. `seconds`: the time floor of a
    step, FLOPs over the GPU's peak: real runs reach 30 to 60 percent of it. `activations`: bytes of a micro-batch,
    without and with gradient checkpointing, whichever the config says."""

    model: str
    size: Size
    gpu: Gpu
    parameters: int
    trained: int
    encoder_parameters: int
    forward_flops: int
    step: StepFlops
    seconds: float
    activations: int
    checkpointed: int
    layouts: tuple[Layout, ...]

    def fits(self, layout: Layout) -> bool:
        """Whether it leaves 1 GiB of the GPU's memory to CUDA and to what is not counted."""
        return layout.memory.total <= (self.gpu.memory - 1) * 2**30


def make_plan(config: Config, gpu: Gpu, num_gpus: list[int]) -> Plan:
    """Count everything on the meta device, without weights; seconds even for the largest models.

    A step is a forward and a backward of the policy over all samples of the batch (both members of a pair where the
    objective needs them), a forward of the reference where it needs one, and with gradient checkpointing the forward of
    the blocks once more. Raises UserError for a model, a size or a precision that
    cannot be planned.
    """
    settings, compute = config.train, DTYPES[config.train.mixed_precision]
    peak = gpu.peak(settings.mixed_precision)
    frozen = getattr(torch, config.model.dtype) if config.model.dtype else compute
    if compute == torch.float32 != frozen:
        raise UsageError(
            f"model.dtype: {config.model.dtype} weights compute under train.mixed_precision bf16 or fp16 only"
        )
    architecture = read_architecture(config.model)
    size = config.data.size(architecture.own_size)
    is_lora = config.policy.kind == "lora"
    denoiser = meta_denoiser(architecture, frozen if is_lora else torch.float32)
    parameters, block = _num_parameters(denoiser), _largest_block(denoiser)
    inputs = meta_inputs(architecture, size, 1, compute)
    plain_forward = forward_flops(denoiser, inputs, compute)
    denoiser.train()
    if is_lora:
        targets = config.policy.target_modules or architecture.family.lora_targets
        trained = add_adapters(denoiser, targets, config.policy.rank)
    else:
        trained = list(denoiser.requires_grad_(True).parameters())
    counted = count(denoiser, inputs, compute, trained)
    samples = (2 if config.loss.needs_rejected else 1) * settings.batch_size
    encoder_parameters, encoder_bytes, encoder_flops = _encoders(config, architecture, size, frozen, samples)
    step = _step_flops(config, counted, plain_forward, samples, encoder_flops)
    copies_reference = not is_lora and _needs_reference(config)
    one = Memory(
        weights=_num_bytes(denoiser) if is_lora else 0,
        trained=4 * _numel(trained),
        weight_copies=counted.weight_copies,
        reference=parameters * frozen.itemsize if copies_reference else 0,
        gradients=4 * _numel(trained),
        optimizer={"adamw": adamw_bytes, "adamw8bit": adamw8bit_bytes}[settings.optimizer](
            [w.numel() for w in trained]
        ),
        average=4 * _numel(trained) if settings.ema_decay else 0,
        encoders=encoder_bytes,
        activations=samples * (counted.checkpointed if settings.gradient_checkpointing else counted.activations),
    )
    gathered = block * compute.itemsize * (1 if is_lora else 2)
    pairs = settings.batch_size * settings.gradient_accumulation
    layouts = []
    for n in num_gpus:
        layouts.append(Layout(n, "ddp" if n > 1 else "single", data_parallel(one, n), pairs * n))
        if n > 1:
            layouts.append(Layout(n, "sharded", sharded(one, n, gathered), pairs * n))
    return Plan(
        config.model.path, size, gpu, parameters, _numel(trained), encoder_parameters, plain_forward, step,
        step.total / peak, samples * counted.activations, samples * counted.checkpointed, tuple(layouts),
    )  # fmt: skip


def _needs_reference(config: Config) -> bool:
    """For the objective, or for an importance weight whose denominator is the reference."""
    weighs = config.loss.needs_importance_weights and config.weight.denominator == "reference"
    return config.loss.needs_reference or weighs


def _step_flops(config: Config, counted: Counted, plain_forward: int, samples: int, encoder_flops: int) -> StepFlops:
    """`encoder_flops`: of one micro-batch."""
    times, repeated = samples * config.train.gradient_accumulation, config.train.gradient_checkpointing
    return StepFlops(
        policy_forward=times * counted.forward,
        policy_backward=times * counted.backward,
        recomputed=times * counted.recomputed if repeated else 0,
        reference_forward=times * plain_forward if _needs_reference(config) else 0,
        encoders=config.train.gradient_accumulation * encoder_flops,
    )


def _encoders(
    config: Config, architecture: Architecture, size: Size, frozen: torch.dtype, samples: int
) -> tuple[int, int, int]:
    """Parameters; bytes and FLOPs of a micro-batch, which a cache makes 0: text once a pair, the VAE once a sample.

    The VAE's forward is counted, a text encoder's taken as 2 x parameters x tokens, its embedding tables apart. Another
    VAE (`model.vae`) is taken to have the shape of the checkpoint's own.
    """
    vae, texts = meta_vae(architecture), meta_text_encoders(architecture)
    parameters = _num_parameters(vae) + sum(_num_parameters(text) for text in texts.values())
    if config.data.cache is not None:
        return parameters, 0, 0
    # As the adapters load it: a VAE that overflows in half precision stays float32.
    upcast = architecture.configs["vae"].get("force_upcast") and frozen == torch.float16
    num_bytes = _num_parameters(vae) * (4 if upcast and not config.model.vae else frozen.itemsize)
    num_bytes += sum(_num_parameters(text) for text in texts.values()) * frozen.itemsize
    flops = samples * forward_flops(vae.encode, {"x": meta_pixels(architecture, size, 1)})
    tokens = text_tokens(architecture)
    for name, text in texts.items():
        tables = sum(m.weight.numel() for m in text.modules() if isinstance(m, nn.Embedding))
        flops += config.train.batch_size * 2 * (_num_parameters(text) - tables) * tokens[name]
    return parameters, num_bytes, flops


def _largest_block(denoiser: nn.Module) -> int:
    """Parameters of the largest part that is gathered at once: an item of a top-level list, or another child."""
    parts = (part for child in denoiser.children() for part in (child if isinstance(child, nn.ModuleList) else [child]))
    return max(_num_parameters(part) for part in parts)


def _num_parameters(network: nn.Module) -> int:
    return _numel(network.parameters())


def _num_bytes(network: nn.Module) -> int:
    return sum(weight.numel() * weight.itemsize for weight in network.parameters())


def _numel(weights) -> int:
    return sum(weight.numel() for weight in weights)
