"""Networks on the meta device: every shape of a checkpoint from its configs, without weights or memory."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from sipo.backbones.architecture import Architecture
from sipo.backbones.denoisers import join, predict
from sipo.backbones.family import SourceAdapter, meta
from sipo.errors import UserError
from sipo.size import Size


@dataclass(frozen=True)
class MetaBackbone:
    """What a loaded `Backbone` computes, on the meta device. denoiser: frozen, in the dtype that it was made in."""

    architecture: Architecture
    size: Size
    denoiser: nn.Module

    @property
    def lora_targets(self) -> tuple[str, ...]:
        return self.architecture.family.lora_targets

    def trains(self, name: str) -> bool:
        """Whether full fine-tuning changes the weight of that name in the denoiser."""
        return self.architecture.family.trains(name)

    def predict(self, denoiser: nn.Module, batch: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        """One forward over `batch` samples, with the conditioning in `dtype`, as a training calls it."""
        adapter = self.architecture.adapter
        xt = meta(batch, *adapter.latent_shape(self.size))
        conditioning = adapter.meta_prompts(batch, dtype) | adapter.conditioning_of(meta(batch, 4), self.size)
        if isinstance(adapter, SourceAdapter):
            conditioning |= adapter.meta_source(batch, self.size, dtype)
        guidance = self.architecture.model.guidance
        return predict(adapter, denoiser, xt, meta(batch), conditioning, self.size, guidance)

    def encode_media(self, vae: nn.Module, batch: int = 1) -> Tensor:
        """The moments of `batch` media."""
        return self.architecture.adapter.encode_media(vae, meta(batch, *self.size.pixel_shape))


def meta_backbone(architecture: Architecture, size: Size, dtype: torch.dtype = torch.float32) -> MetaBackbone:
    """The denoiser of an architecture at one size. Raises UserError where its config is not valid."""
    parts = {part: _meta(architecture, part, cls, dtype) for part, cls in architecture.family.denoisers.items()}
    return MetaBackbone(architecture, size, join(architecture.family.prepared(parts), architecture.adapter.boundaries))


def meta_vae(architecture: Architecture, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The VAE, frozen."""
    return _meta(architecture, "vae", architecture.family.vae, dtype)


def meta_text_encoders(architecture: Architecture, dtype: torch.dtype = torch.float32) -> dict[str, nn.Module]:
    """The text encoders by the name of their part, frozen."""
    with torch.device("meta"):
        made = {part: make_text_encoder(architecture.configs[part]) for part in architecture.family.text_encoders}
    return {part: network.to(dtype).requires_grad_(False).eval() for part, network in made.items()}


def meta_extras(architecture: Architecture, dtype: torch.dtype = torch.float32) -> dict[str, nn.Module]:
    """The other frozen networks by the name of their part."""
    found = {part: extra_class(architecture, part) for part in architecture.family.extras}
    return {part: _meta(architecture, part, cls, dtype) for part, cls in found.items()}


def extra_class(architecture: Architecture, part: str) -> Any:
    """Of the classes that an extra may have, its own."""
    classes = architecture.family.extras[part]
    own = architecture.configs[part].get("_class_name")
    return next((cls for cls in classes if cls.__name__ == own), classes[0])


def make_text_encoder(config: dict[str, Any], **changes: Any) -> nn.Module:
    """One with fresh weights; `_class_name` is its class in transformers."""
    settings = {key: value for key, value in config.items() if key != "_class_name"}
    cls = getattr(transformers, config["_class_name"])
    return cls(cls.config_class.from_dict({**settings, **changes}))


def make_network(cls: Any, config: dict[str, Any]) -> Any:
    """One of a class of diffusers or transformers, with fresh weights."""
    if hasattr(cls, "from_config"):  # of diffusers
        return cls.from_config(config)
    return cls(cls.config_class.from_dict(config))


def _meta(architecture: Architecture, part: str, cls: Any, dtype: torch.dtype) -> nn.Module:
    try:
        with torch.device("meta"):
            network = make_network(cls, architecture.configs[part])
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"model.path: {architecture.model.path}: the config of its {part} is not valid: {error}"
        ) from error
    return network.to(dtype).requires_grad_(False).eval()
