"""What of a config is counted on the meta device, once: everything else of a plan is arithmetic on it."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from sipo.backbones import read_architecture
from sipo.backbones.architecture import Architecture
from sipo.backbones.denoisers import blocks_of, networks_of, streamed_blocks
from sipo.backbones.family import SourceAdapter
from sipo.backbones.meta import meta_backbone, meta_extras, meta_text_encoders, meta_vae
from sipo.backbones.quantize import linear_layers, quantized_bytes
from sipo.config import Config, Quantization
from sipo.plan.count import Counted, count, forward_flops
from sipo.size import Size
from sipo.train.fit import require_fit
from sipo.train.policy import make_policy

Kind = Quantization | None
KINDS: tuple[Kind, ...] = (None, "int8", "fp8", "nf4")


@dataclass(frozen=True)
class Measured:
    """Shapes of a model, a size, a policy and a precision. Bytes of weights by `model.quantize`.

    `entries`: of each trained weight. `frozen`: the frozen weights; `linear`: those of linear layers among them, as they are
    and as they are stored. `full`: bytes of all weights as they were loaded; `streamed`, `largest_block`: of the blocks that
    `model.offload` moves, together and the largest. `gathered`: entries of the largest block that FSDP2 gathers.
    `vae_flops` for a sample, `pair_flops` for a pair: of the text encoders, and of the VAE for its source if the model reads one.
    """

    architecture: Architecture
    size: Size
    counted: Counted
    forward: int
    parameters: int
    entries: list[int]
    frozen: dict[Kind, int]
    linear: dict[Kind, int]
    full: int
    streamed: int
    largest_block: int
    gathered: int
    encoder_parameters: int
    encoder_bytes: int
    vae_flops: int
    pair_flops: int

    @property
    def trained(self) -> int:
        return sum(self.entries)


class Measurements:
    """Those of configs that differ in switches (see `sipo.plan.switches`): of these, the policy's kind alone is counted anew."""

    def __init__(self) -> None:
        self.known: dict[str, Measured] = {}

    def of(self, config: Config) -> Measured:
        if config.policy.kind not in self.known:
            self.known[config.policy.kind] = measure(config)
        return self.known[config.policy.kind]


def measure(config: Config) -> Measured:
    """Seconds even for the largest models. Raises UserError for a model, a size or a precision that cannot be planned.

    Of the config it reads model, size, policy and precision: plans that differ in other keys, in `model.quantize` or in
    `model.offload` can share it.
    """
    compute = config.train.compute_dtype
    frozen = config.model.frozen_dtype(compute)
    architecture = read_architecture(config.model)
    size = architecture.size(config.data.size)
    require_fit(config, architecture, size, None)
    backbone = meta_backbone(architecture, size, frozen)
    denoiser = backbone.denoiser
    parameters, full = _numel(denoiser.parameters()), _bytes(denoiser.parameters())
    gathered = max(_numel(part.parameters()) for part in blocks_of(denoiser))
    blocks = [_bytes(block.parameters()) for block in streamed_blocks(denoiser)]
    layers = [layer for network in networks_of(denoiser) for _, layer in linear_layers(network)]
    linear: dict[Kind, int] = {None: _bytes(layer.weight for layer in layers)}
    for kind in KINDS[1:]:
        assert kind is not None
        linear[kind] = sum(quantized_bytes(kind, layer.out_features, layer.in_features, compute) for layer in layers)
    forward = forward_flops(lambda: backbone.predict(denoiser, 1, compute), compute) // len(networks_of(denoiser))
    policy = make_policy(backbone, config.policy, needs_reference=False, seed=config.train.seed)
    counted = count(denoiser, lambda: backbone.predict(denoiser, 1, compute), compute)
    plain = _bytes(weight for weight in denoiser.parameters() if not weight.requires_grad)
    vae = meta_vae(architecture, architecture.vae_dtype(frozen))
    texts = meta_text_encoders(architecture, frozen)
    extras = meta_extras(architecture, frozen)
    networks = (vae, *texts.values(), *extras.values())
    vae_flops = forward_flops(lambda: backbone.encode_media(vae))
    adapter, of_text = architecture.adapter, {**texts, **extras}
    seen = adapter.source_tokens(size) if isinstance(adapter, SourceAdapter) else 0
    text_flops = sum(_text_flops(of_text[name], number + seen) for name, number in adapter.tokens.items())
    return Measured(
        architecture=architecture,
        size=size,
        counted=counted,
        forward=forward,
        parameters=parameters,
        entries=[weight.numel() for weight in policy.trainable.values()],
        frozen={kind: plain - (linear[None] - linear[kind] if plain else 0) for kind in KINDS},
        linear=linear,
        full=full,
        streamed=sum(blocks),
        largest_block=max(blocks, default=0),
        gathered=gathered,
        encoder_parameters=sum(_numel(network.parameters()) for network in networks),
        encoder_bytes=sum(_bytes(network.parameters()) for network in networks),
        vae_flops=vae_flops,
        pair_flops=text_flops + (vae_flops if architecture.takes_source else 0),
    )


def _text_flops(text: nn.Module, tokens: int) -> int:
    """2 x parameters x tokens, without the embedding tables."""
    tables = sum(m.weight.numel() for m in text.modules() if isinstance(m, nn.Embedding))
    return 2 * (_numel(text.parameters()) - tables) * tokens


def _numel(weights: Iterable[Tensor]) -> int:
    return sum(weight.numel() for weight in weights)


def _bytes(weights: Iterable[Tensor]) -> int:
    return sum(weight.nbytes for weight in weights)
