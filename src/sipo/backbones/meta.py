"""Networks on the meta device: every shape of a checkpoint from its configs, without weights or memory."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor, nn

from sipo.architectures import architecture_folder, known_architectures
from sipo.backbones.meta_families import META_FAMILIES, MetaFamily
from sipo.backbones.paths import resolve_path
from sipo.config import ModelConfig
from sipo.errors import UserError
from sipo.size import Size

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@dataclass(frozen=True)
class Architecture:
    """The configs of a checkpoint as diffusers writes them. `configs`: part -> its config.json."""

    name: str
    family: MetaFamily
    configs: dict[str, dict[str, Any]]

    @property
    def own_size(self) -> Size:
        """Pixels, and frames of a video, that the model was made for. Raises UserError where a config does not say it."""
        try:
            return self.family.own_size(self.configs)
        except KeyError as error:
            raise UserError(f"model.path: the configs of {self.name} lack {error.args[0]!r}") from error


def read_architecture(model: ModelConfig) -> Architecture:
    """The configs of `model.path`: of a shipped architecture, a local folder, or the hub (configs only, no weights).

    Raises UserError for a path without a pipeline, an unknown family, parts of another family, a missing config, or a
    hub that is out of reach.
    """
    path = resolve_path(model.path)
    source = path if Path(path).exists() else architecture_folder(path) or path
    index = _load(DiffusionPipeline, source, None, model)
    name = index.get("_class_name")
    if name not in META_FAMILIES:
        raise UserError(f"model.path: {model.path} is a {name}; supported are {', '.join(META_FAMILIES)}")
    family = META_FAMILIES[name]
    parts = [part for part in (family.denoiser, "vae", *TEXT_ENCODERS) if (index.get(part) or [None])[0] is not None]
    if missing := {family.denoiser, "vae"} - set(parts):
        raise UserError(f"model.path: the model_index.json of {model.path} names no {missing.pop()}")
    # load_config reads the config.json of any part, whichever class it is called on.
    own = {part: _load(AutoencoderKL, source, part, model) for part in parts}
    _require_family(model.path, name, family, own)
    configs = {part: {**config, "_class_name": index[part][1]} for part, config in own.items()}
    return Architecture(model.path, family, configs)


def meta_denoiser(architecture: Architecture, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The UNet or transformer, frozen, in `dtype`, on the meta device. Raises UserError when its config is not valid."""
    return _meta_diffusers(architecture, architecture.family.denoiser, dtype)


def meta_vae(architecture: Architecture, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The VAE, frozen, on the meta device."""
    return _meta_diffusers(architecture, "vae", dtype)


def meta_text_encoders(architecture: Architecture, dtype: torch.dtype = torch.float32) -> dict[str, nn.Module]:
    """The text encoders by the name of their part, frozen, on the meta device."""
    found = {}
    for part in (part for part in TEXT_ENCODERS if part in architecture.configs):
        config = {k: v for k, v in architecture.configs[part].items() if k != "_class_name"}
        cls = getattr(transformers, architecture.configs[part]["_class_name"])
        with torch.device("meta"):
            found[part] = cls(cls.config_class.from_dict(config)).to(dtype).requires_grad_(False).eval()
    return found


def meta_inputs(
    architecture: Architecture, size: Size, batch: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The arguments of one forward of the denoiser, as the family's pipeline passes them, on the meta device.

    Raises UserError for a size that the model cannot take.
    """
    return architecture.family.inputs(architecture.configs, size, batch, dtype)


def meta_pixels(architecture: Architecture, size: Size, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """What the VAE encodes: (B, 3, H, W) of images, (B, 3, F, H, W) of videos, on the meta device."""
    frames = (size.num_frames,) if size.is_video else ()
    return torch.empty(batch, 3, *frames, size.height, size.width, dtype=dtype, device="meta")


def text_tokens(architecture: Architecture) -> dict[str, int]:
    """Tokens of one prompt for each text encoder."""
    return {
        part: architecture.configs[part].get("max_position_embeddings")
        or architecture.family.tokens(architecture.configs)
        for part in TEXT_ENCODERS
        if part in architecture.configs
    }


def _require_family(path: str, name: str, family: MetaFamily, configs: dict[str, dict[str, Any]]) -> None:
    """Raises UserError where the parts are not those of the pipeline that the index names."""
    for part, wanted in zip((family.denoiser, "vae"), family.classes, strict=True):
        found = configs[part].get("_class_name", wanted)
        if found != wanted:
            raise UserError(f"model.path: {path} says it is a {name}, whose {part} is a {wanted}; its own is a {found}")
    count = sum(part in configs for part in TEXT_ENCODERS)
    if count != family.num_text_encoders:
        raise UserError(
            f"model.path: {path} says it is a {name}, which has {family.num_text_encoders} text encoder(s); it has {count}"
        )


def _meta_diffusers(architecture: Architecture, part: str, dtype: torch.dtype) -> nn.Module:
    config = architecture.configs[part]
    cls = getattr(diffusers, config["_class_name"], None)
    if cls is None:
        raise UserError(f"model.path: {architecture.name}: diffusers has no {config['_class_name']} ({part})")
    try:
        with torch.device("meta"):
            network = cls.from_config(config)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"model.path: {architecture.name}: the config of its {part} is not valid: {error}") from error
    return network.to(dtype).requires_grad_(False).eval()


def _load(cls, source: str | Path, part: str | None, model: ModelConfig) -> dict[str, Any]:
    """One config file, from a folder or the hub."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers passes the hub's client an argument that is deprecated
            return cls.load_config(source, subfolder=part, revision=model.revision)
    except (OSError, ValueError) as error:
        is_local = Path(source).exists() or str(source).startswith((".", "/", "~"))
        if part and is_local and not (Path(source) / part).is_dir():
            raise UserError(f"model.path: {model.path} lacks {part}, which its model_index.json names") from error
        what = f"the config of its {part}" if part else "a model_index.json"
        hint = f"the folder should hold {what}" if is_local else (
            f"neither a folder here nor a hub id in reach; without the hub, plans are made of local folders and of "
            f"{', '.join(known_architectures())}"
        )  # fmt: skip
        raise UserError(f"model.path: {model.path!r} does not load; {hint}") from error
