"""The configs of a checkpoint, read without its weights: which family it belongs to, its sizes, its shapes."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]

from sipo import registry
from sipo.backbones.family import Adapter, Configs, Family, Sizes, SourceAdapter, WindowedAdapter
from sipo.backbones.single_file import advice, config_source, is_single_file
from sipo.config import ModelConfig
from sipo.errors import UserError, printable
from sipo.jsonl import read_object
from sipo.size import Size

# The configs of published checkpoints, shipped without weights and named like the hub ids: what decides shapes, schedules
# and scales. The tests compare them with published parameter counts and forward FLOPs.
SHIPPED = Path(str(resources.files("sipo.backbones"))) / "architectures"
ALIASES = {  # the same files under an older or another name
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "THUDM/CogVideoX-2b": "zai-org/CogVideoX-2b",
    "THUDM/CogVideoX-5b": "zai-org/CogVideoX-5b",
}


@dataclass(frozen=True)
class Architecture:
    """A checkpoint as its configs describe it. source: the folder or hub id that they were read from."""

    model: ModelConfig
    source: str
    family: Family
    configs: Configs
    adapter: Adapter
    sizes: Sizes

    def size(self, asked: Callable[[Size], Size] = lambda native: native) -> Size:
        """From the native size to the requested one, as `DataConfig.size` does.

        Raises UserError for a size that the model does not take: the one rule for planning and training.
        """
        size = asked(self.sizes.native)
        self.sizes.require(size)
        return size

    @property
    def takes_source(self) -> bool:
        """Whether the model reads a source: a picture that each of its media is an edit of, or begins with."""
        return isinstance(self.adapter, SourceAdapter)

    def mixes_source(self, size: Size) -> bool:
        """Whether a text encoder sees the source beside the prompt, so that no embedding is of a prompt alone."""
        return isinstance(self.adapter, SourceAdapter) and self.adapter.source_tokens(size) > 0

    def vae_dtype(self, frozen: torch.dtype) -> torch.dtype:
        """Of the VAE among frozen weights of this dtype. SDXL's config has the flag that half precision overflows it."""
        if self.configs["vae"].get("force_upcast") and frozen == torch.float16:
            return torch.float32
        return self.family.vae_dtype or frozen


def family_of(name: str, where: str = "model.path") -> Family:
    """The family of a pipeline's class: one of these, or of an installed package's entry point in `sipo.backbones`.

    Raises UserError, which begins with `where`, if there is none. The name comes from a checkpoint, so it is never
    imported as `module:attribute`.
    """
    known = registry.families.names()
    if name not in known:
        raise UserError(f"{where} is a {name}; supported are {', '.join(known)}")
    return registry.families.load(name, where)


def architecture_folder(hub_id: str) -> Path | None:
    """The folder in diffusers layout (configs only) of a checkpoint whose configs are shipped, else None."""
    folder = SHIPPED / ALIASES.get(hub_id, hub_id)
    is_known = (folder / "model_index.json").is_file() and SHIPPED in folder.parents
    return folder if is_known else None


def known_architectures() -> list[str]:
    """The hub ids of the checkpoints whose configs are shipped."""
    return sorted(str(file.parent.relative_to(SHIPPED)) for file in SHIPPED.glob("*/*/model_index.json"))


def resolve_path(path: str) -> str:
    """A miniature's name becomes the folder of its weights; anything else is returned unchanged."""
    found = registry.miniature(path)
    return str(found.weights) if found else path


def read_architecture(model: ModelConfig, folder: Path | None = None) -> Architecture:
    """The configs of `model.path`: of a local folder, a shipped architecture, or the hub (configs only, no weights).

    folder: where the checkpoint lies that is about to be loaded; then the config of a `model.vae` on the hub is read as
    well, which a plan takes to have the shapes of the checkpoint's own.

    Raises UserError for a path without a pipeline, an unknown family, parts of another family, a missing or invalid
    config, or a hub that is out of reach.
    """
    path = resolve_path(model.path)
    where = f"model.path: {model.path}"
    if not folder and is_single_file(path):
        path = config_source(model)
    source = str(folder or (path if Path(path).exists() else architecture_folder(path) or path))
    index = _load(DiffusionPipeline, source, None, model)
    named = (model.pipeline, "model.pipeline") if model.pipeline else (str(index.get("_class_name")), where)
    family = family_of(*named).of(index)
    with _what_fits(where, family):
        configs = _read_configs(source, index, family, model)
    if model.vae and (folder or Path(model.vae).is_dir()):
        configs["vae"] = configs["vae"] if is_single_file(model.vae) else dict(family.vae.load_config(model.vae))
    elif model.vae and not is_single_file(model.vae):
        configs["vae"]["force_upcast"] = False
    with _what_fits(where, family):
        adapter = family.adapter(configs)
        if model.caption_windows > 1:
            if not isinstance(adapter, WindowedAdapter):
                raise UserError(
                    f"model.caption_windows: {model.caption_windows}; windows are for CLIP's 77 tokens in Stable Diffusion 1.x, "
                    f"2.x and XL. A {family.name} reads captions in one piece"
                )
            adapter = adapter.in_windows(model.caption_windows)
        return Architecture(model, source, family, configs, adapter, adapter.sizes)


@contextmanager
def _what_fits(where: str, family: Family) -> Iterator[None]:
    """Raises UserError for configs, which come from outside, whose values are not those of the family."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{where}: its configs lack {error.args[0]!r}") from error
    except UserError as error:
        if str(error).startswith("model.path: "):
            raise
        raise UserError(f"{where}: {error}") from error
    except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: its configs do not make a {family.name} ({type(error).__name__}: {printable(str(error))})"
        ) from error


def _read_configs(source: str, index: dict[str, Any], family: Family, model: ModelConfig) -> Configs:
    """Those of the networks and the scheduler. Raises UserError where the parts are not those of the family."""
    text = [part for part in index if part.startswith("text_encoder") and (index[part] or [None])[0] is not None]
    networks = {**family.denoisers, "vae": family.vae}
    for part in (*networks, *family.extras, "scheduler"):
        if (index.get(part) or [None])[0] is None:
            raise UserError(f"model.path: the model_index.json of {model.path} names no {part}")
    configs = {
        part: _load(AutoencoderKL, source, part, model) for part in (*networks, *family.extras, *text)
    }  # reads any config.json
    for part, classes in {**{part: (cls,) for part, cls in networks.items()}, **family.extras}.items():
        known = [cls.__name__ for cls in classes]
        found = configs[part].get("_class_name", known[0])
        if found not in known:
            raise UserError(
                f"model.path: {model.path} is declared as a {family.name}, whose {part} is a {' or '.join(known)}; its own is a "
                f"{found}"
            )
    if len(text) != len(family.text_encoders):
        raise UserError(
            f"model.path: {model.path} is declared as a {family.name}, which has {len(family.text_encoders)} text "
            f"encoder(s); it has {len(text)}"
        )
    for part in text:
        configs[part]["_class_name"] = index[part][1]
    scheduler = getattr(diffusers, index["scheduler"][1], None)
    if scheduler is None:
        raise UserError(f"model.path: {model.path}: diffusers has no {index['scheduler'][1]}, its scheduler")
    configs["scheduler"] = dict(scheduler.from_config(_load(scheduler, source, "scheduler", model)).config)
    return {**configs, "model_index": index}


def _load(cls: Any, source: str, part: str | None, model: ModelConfig) -> dict[str, Any]:
    """One config file, from a folder or the hub."""
    file = Path(source) / (part or "") / cls.config_name
    if Path(source).is_dir() and os.path.lexists(file):
        return read_object(file, advice="A checkpoint's folder holds it as it was downloaded")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers passes the hub's client an argument that is deprecated
            return dict(cls.load_config(source, subfolder=part, revision=model.revision))
    except (OSError, ValueError) as error:
        if is_single_file(model.path):
            raise UserError(f"model.path: {source!r} gives no configs. {advice(model)}") from error
        is_local = Path(source).exists() or source.startswith((".", "/", "~"))
        if part and is_local and not (Path(source) / part).is_dir():
            raise UserError(f"model.path: {model.path} lacks {part}, which its model_index.json names") from error
        what = f"the config of its {part}" if part else "a model_index.json"
        hint = f"the folder should hold {what}" if is_local else (
            f"neither a folder here nor a hub id in reach; without the hub, there are local folders, and for plans "
            f"{', '.join(known_architectures())}"
        )  # fmt: skip
        raise UserError(f"model.path: {model.path!r} does not load; {hint}") from error
