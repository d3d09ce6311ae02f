"""A config becomes a plan: what one optimizer step costs on one GPU and on several."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sipo.backbones import read_architecture
from sipo.backbones.denoisers import blocks_of, networks_of
from sipo.backbones.meta import MetaBackbone, meta_backbone, meta_text_encoders, meta_vae
from sipo.backbones.quantize import quantize
from sipo.config import Config
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError
from sipo.losses import D3PO
from sipo.plan.count import Counted, count, forward_flops
from sipo.plan.gpus import Gpu
from sipo.plan.memory import Memory, adamw8bit_bytes, adamw_bytes, data_parallel, sharded
from sipo.size import Size
from sipo.train.fit import require_fit
from sipo.train.policy import Policy, make_policy

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
    """Bytes of a pair and of a prompt in `data.cache`; `pairs`: the rows of the data, None where it is not at hand."""

    dtype: str
    pair: int
    prompt: int
    pairs: int | None

    @property
    def pairs_in_all(self) -> int | None:
        return None if self.pairs is None else self.pairs * self.pair


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
    cache: CacheSize | None = None

    def fits(self, layout: Layout) -> bool:
        """Whether it leaves 1 GiB of the GPU's memory to CUDA and to what is not counted."""
        return layout.memory.total <= (self.gpu.memory - 1) * 2**30


def make_plan(config: Config, gpu: Gpu, num_gpus: list[int]) -> Plan:
    """Count everything on the meta device, without weights; seconds even for the largest models.

    A step is a forward and a backward of the policy over all samples of the batch (both members of a pair where the
    objective needs them), a forward of the reference and of the old policy where it needs them, and with gradient checkpointing the forward of
    the blocks once more. Raises UserError for a model, a size or a precision that cannot be planned.
    """
    settings, compute = config.train, config.train.compute_dtype
    peak, frozen = gpu.peak(settings.mixed_precision), config.model.frozen_dtype(compute)
    architecture = read_architecture(config.model)
    size = architecture.size(config.data.size)
    require_fit(config, architecture, size, None)
    backbone = meta_backbone(architecture, size, frozen)
    denoiser = backbone.denoiser
    parameters, block = _numel(denoiser.parameters()), max(_numel(part.parameters()) for part in blocks_of(denoiser))
    plain_forward = forward_flops(lambda: backbone.predict(denoiser, 1, compute), compute) // len(networks_of(denoiser))
    if config.model.quantize:
        quantize(denoiser, config.model.quantize, compute)
    policy = make_policy(backbone, config.policy, config.runs_reference, settings.seed, config.needs_old)
    counted = count(denoiser, lambda: backbone.predict(denoiser, 1, compute), compute)
    samples = (2 if config.loss.needs_rejected else 1) * settings.batch_size
    if isinstance(config.loss, D3PO) and config.sample.guidance_scale != 1:
        samples *= 2  # with and without the prompt, as in sampling
    encoder_parameters, encoder_bytes, encoder_flops = _encoders(config, backbone, frozen, samples)
    step = _step_flops(config, counted, plain_forward, samples, encoder_flops)
    one = _memory(config, policy, counted, samples, encoder_bytes)
    gathered = block * compute.itemsize * (1 if config.policy.kind == "lora" else 2)
    pairs = settings.batch_size * settings.gradient_accumulation
    layouts = []
    for n in num_gpus:
        layouts.append(Layout(n, "ddp" if n > 1 else "single", data_parallel(one, n), pairs * n))
        if n > 1:
            layouts.append(Layout(n, "sharded", sharded(one, n, gathered), pairs * n))
    return Plan(
        config.model.path, backbone.size, gpu, parameters, _numel(policy.trainable.values()), encoder_parameters,
        plain_forward, step, step.total / peak, samples * counted.activations, samples * counted.checkpointed,
        tuple(layouts), _cache(config, backbone, frozen),
    )  # fmt: skip


def _memory(config: Config, policy: Policy, counted: Counted, samples: int, encoders: int) -> Memory:
    """Of one GPU that holds everything. `encoders`: bytes of the VAE and the text encoders."""
    settings, trained = config.train, list(policy.trainable.values())
    masters = _bytes(trained)
    return Memory(
        weights=_bytes(weight for weight in policy.denoiser.parameters() if not weight.requires_grad),
        trained=masters,
        weight_copies=counted.weight_copies,
        reference=sum(_bytes(copy.parameters()) for copy in policy.networks[1:]),
        gradients=masters,
        optimizer=OPTIMIZERS[settings.optimizer]([weight.numel() for weight in trained]),
        average=masters if settings.ema_decay else 0,
        encoders=encoders,
        activations=samples * (counted.checkpointed if settings.gradient_checkpointing else counted.activations),
    )


def _step_flops(config: Config, counted: Counted, plain_forward: int, samples: int, encoder_flops: int) -> StepFlops:
    """`encoder_flops`: of one micro-batch."""
    times, repeated = samples * config.train.gradient_accumulation, config.train.gradient_checkpointing
    return StepFlops(
        policy_forward=times * counted.forward,
        policy_backward=times * counted.backward,
        recomputed=times * counted.recomputed if repeated else 0,
        reference_forward=times * plain_forward * (config.runs_reference + config.needs_old),
        encoders=config.train.gradient_accumulation * encoder_flops,
    )


def _encoders(config: Config, backbone: MetaBackbone, frozen: torch.dtype, samples: int) -> tuple[int, int, int]:
    """Parameters; bytes and FLOPs of a micro-batch, which a cache makes 0: text once a pair, the VAE once a sample.

    The VAE's forward is counted; a text encoder's is 2 x parameters x tokens, without its embedding tables.
    """
    architecture = backbone.architecture
    vae = meta_vae(architecture, architecture.vae_dtype(frozen))
    texts = meta_text_encoders(architecture, frozen)
    networks = (vae, *texts.values())
    parameters = sum(_numel(network.parameters()) for network in networks)
    if config.data.cache is not None:
        return parameters, 0, 0
    flops = samples * forward_flops(lambda: backbone.encode_media(vae))
    for name, text in texts.items():
        tables = sum(m.weight.numel() for m in text.modules() if isinstance(m, nn.Embedding))
        tokens = architecture.adapter.tokens[name]
        flops += config.train.batch_size * 2 * (_numel(text.parameters()) - tables) * tokens
    return parameters, sum(_bytes(network.parameters()) for network in networks), flops


def _cache(config: Config, backbone: MetaBackbone, frozen: torch.dtype) -> CacheSize | None:
    """Means and log-variances of both members in both orientations where it flips, and the text embeddings of a prompt."""
    data, adapter = config.data, backbone.architecture.adapter
    if data.cache is None:
        return None
    try:
        source = open_pairs(data.path, data.ties, data.max_pairs)
    except UserError:
        source = None
    stored, has_rejected = (
        getattr(torch, data.cache_dtype),
        source.has_rejected if source else config.loss.needs_rejected,
    )
    members = (2 if has_rejected else 1) * (2 if data.flip else 1)
    pair = members * 2 * math.prod(adapter.latent_shape(backbone.size)) * stored.itemsize
    texts = adapter.meta_prompts(1, frozen).values()
    prompt = sum(text.numel() * (stored.itemsize if text.dtype == torch.float32 else text.itemsize) for text in texts)
    return CacheSize(data.cache_dtype, pair, prompt, len(source) if source else None)


def _numel(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def _bytes(weights: Iterable[Tensor]) -> int:
    return sum(weight.nbytes for weight in weights)
