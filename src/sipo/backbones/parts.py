"""The parts of a diffusers pipeline: which are in memory, what identifies them, and how what was trained is written."""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from safetensors import SafetensorError
from torch import Tensor, nn

from sipo.backbones.components import ENCODERS, Layout, load_pipeline
from sipo.config import ModelConfig
from sipo.errors import UserError
from sipo.files import hash_files


class Parts:
    """A pipeline whose encoders come and go."""

    def __init__(self, model: ModelConfig, folder: Path, dtype: torch.dtype, layout: Layout, encoders: bool = True):
        self.model, self.folder, self.dtype, self.layout = model, folder, dtype, layout
        self.pipeline = self._load({} if encoders else dict.fromkeys(ENCODERS))
        if model.lora:
            self.merge_lora(model.lora)

    @property
    def denoiser(self) -> nn.Module:
        return getattr(self.pipeline, self.layout.denoiser)

    @property
    def vae_config(self) -> dict[str, Any]:
        """The VAE's config, read from disk: the VAE itself may not be in memory."""
        source, subfolder = (self.model.vae, None) if self.model.vae else (self.folder, "vae")
        return AutoencoderKL.load_config(source, subfolder=subfolder)

    def freeze(self, device: torch.device) -> None:
        """Everything to the device, for inference; training makes its own part trainable again."""
        self.denoiser.requires_grad_(False).eval().to(device)
        self.freeze_encoders()

    def freeze_encoders(self) -> None:
        """The encoders to where the denoiser is."""
        for name in ENCODERS:
            if isinstance(part := getattr(self.pipeline, name, None), nn.Module):
                part.requires_grad_(False).eval().to(self.denoiser.device)

    @contextlib.contextmanager
    def encoders(self) -> Iterator[None]:
        """The VAE and the text encoders in memory while the context lasts, wherever they were before."""
        if self.pipeline.vae is not None:
            yield
            return
        bare = self.pipeline
        # Another pipeline around the same denoiser, because pipelines derive settings from encoders when they are built.
        self.pipeline = self._load({self.layout.denoiser: self.denoiser, "scheduler": bare.scheduler})
        self.freeze_encoders()
        try:
            yield
        finally:
            self.pipeline = bare
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the files of the VAE, the tokenizers and the text encoders: what a cache depends on."""
        found = {name: _hash_folder(self.folder / name) for name in ENCODERS if (self.folder / name).is_dir()}
        if self.model.vae:
            found["vae"] = _hash_folder(Path(self.model.vae)) if Path(self.model.vae).is_dir() else self.model.vae
        return {**found, "dtype": str(self.model.dtype or self.dtype).removeprefix("torch.")}

    def merge_lora(self, path: str | Path) -> None:
        """Add an adapter to the denoiser's own weights, which then cost nothing more.

        Raises UserError for an adapter that is not this model's; diffusers alone would warn and go on without it.
        """
        try:
            self.pipeline.load_lora_weights(path)
        except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
            detail = str(error).strip().splitlines()[0][:200]
            raise UserError(f"{path} does not fit this {type(self.pipeline).__name__}: {detail}") from error
        if not any("lora_" in name for name, _ in self.denoiser.named_parameters()):
            kind = type(self.pipeline).__name__
            raise UserError(f"the LoRA {path} holds no weight for the {self.layout.denoiser} of this {kind}")
        self.pipeline.fuse_lora()
        self.pipeline.unload_lora_weights()

    def save_lora(self, folder: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Adapter weights for `load_lora_weights`. Without the metadata, diffusers would forget alpha."""
        layers = {
            f"{self.layout.denoiser}_lora_layers": state,
            f"{self.layout.denoiser}_lora_adapter_metadata": metadata,
        }
        type(self.pipeline).save_lora_weights(folder, safe_serialization=True, **layers)

    def save_full(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """The whole pipeline for `DiffusionPipeline.from_pretrained`, its denoiser with these weights.

        They are put into a denoiser of the pipeline's own class: ours may be sharded, which changes its class.
        """
        ours, (_, name) = self.denoiser, self.pipeline.config[self.layout.denoiser]
        with torch.device("meta"):
            plain = getattr(diffusers, name).from_config(ours.config)
        plain.load_state_dict({**ours.state_dict(), **weights}, assign=True)
        with self.encoders():
            self.pipeline.register_modules(**{self.layout.denoiser: plain})
            try:
                self.pipeline.save_pretrained(folder, safe_serialization=True)
            finally:
                self.pipeline.register_modules(**{self.layout.denoiser: ours})

    def _load(self, given: dict[str, Any]) -> DiffusionPipeline:
        return load_pipeline(self.model, self.folder, self.dtype, self.layout, given)


def _hash_folder(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".txt", ".model"))
    return hash_files(files, with_names=True)
