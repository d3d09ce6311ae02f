"""A loaded model, as training, caching and generation see it."""

import contextlib
import functools
import gc
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from sipo.backbones import checkpoint, denoisers, lora
from sipo.backbones.architecture import Architecture, read_architecture, resolve_path
from sipo.backbones.family import Conditioning, Media, PartAdapter, Sampler, SourceAdapter
from sipo.backbones.finite import lacks_a_channel, nonfinite_weight
from sipo.backbones.lora_merge import Fitted, merge
from sipo.backbones.lora_names import Form
from sipo.backbones.meta import meta_text_encoders
from sipo.backbones.quantize import quantize
from sipo.backbones.residence import in_turn
from sipo.backbones.single_file import config_folder, is_single_file
from sipo.backbones.single_file_write import write_single_file
from sipo.config import ModelConfig, PolicyConfig
from sipo.errors import UserError
from sipo.files import hash_files
from sipo.samples.sources import SourceSampler
from sipo.size import Size

CPU_BATCH = 4 * 3 * 2**15  # bytes of 32,768 pixels: a CPU encodes larger batches more slowly, by half at 8 x 256 x 256


class Backbone:
    """A checkpoint's pipeline at one size. The encoders around the denoiser stay frozen, and may stay on disk.

    denoiser: the network that is trained. schedule: its path. What the methods take and return: see
    `sipo.backbones.family.Adapter`, whose rules they apply.
    """

    def __init__(self, architecture: Architecture, folder: Path, size: Size, dtype: torch.dtype, encoders: bool = True):
        self.architecture, self.folder, self.size, self.dtype = architecture, folder, size, dtype
        self.model, self.family, self.adapter = architecture.model, architecture.family, architecture.adapter
        self.schedule = self.adapter.schedule(size)
        self.pipeline = self._load({} if encoders else dict.fromkeys(self.family.encoders))
        parts = {part: getattr(self.pipeline, part) for part in self.family.denoisers}
        self.denoiser: nn.Module = denoisers.join(self.family.prepared(parts), self.adapter.boundaries)
        self.lora: list[tuple[str, Fitted]] = []
        if self.model.lora:
            self.merge_lora(self.model.lora)

    @property
    def lora_targets(self) -> tuple[str, ...]:
        return self.family.lora_targets

    def trains(self, name: str) -> bool:
        """Whether full fine-tuning changes the weight of that name in the denoiser."""
        return self.family.trains(name)

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def is_distilled(self) -> bool:
        """Whether the network is sampled without an unconditional prediction: guidance is an input, or distilled away."""
        configs = self.architecture.configs
        return bool(configs["model_index"].get("is_distilled")) or any(
            config.get("guidance_embeds") for config in configs.values()
        )

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        return self.adapter.encode_prompts(self.pipeline, prompts)

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> Tensor:
        return self.adapter.encode_media(self.pipeline.vae, pixels)

    @torch.no_grad()
    def encode_source(self, pixels: Tensor, prompts: list[str]) -> Conditioning:
        assert isinstance(self.adapter, SourceAdapter), "data with sources is refused for other models"
        return self.adapter.encode_source(self.pipeline, pixels, prompts, self.size)

    def condition(self, prompts: list[str], source: Tensor | None = None) -> Conditioning:
        """All that the denoiser reads of prompts and, in models that read one, of sources: pixels (B, 3, H, W) in [-1, 1]."""
        text = self.encode_prompts(prompts)
        return text if source is None else text | self.encode_source(source, prompts)

    def condition_guided(self, prompts: list[str], source: Tensor | None = None) -> tuple[Conditioning, Conditioning]:
        """`condition` of the prompts, and of empty ones; sources are encoded once where no text encoder sees them."""
        empty, adapter = [""] * len(prompts), self.adapter
        if source is None or (isinstance(adapter, SourceAdapter) and adapter.source_tokens(self.size)):
            return self.condition(prompts, source), self.condition(empty, source)
        seen = self.encode_source(source, prompts)
        return self.encode_prompts(prompts) | seen, self.encode_prompts(empty) | seen

    def conditioning_of(self, micro_conditioning: Tensor) -> Conditioning:
        return self.adapter.conditioning_of(micro_conditioning, self.size)

    def selection_of(self, t: Tensor) -> Conditioning:
        """Which of several denoisers each timestep on the CPU goes to, for `predict`; nothing for one denoiser."""
        boundaries = self.adapter.boundaries
        return {denoisers.SELECTED: denoisers.selection(t, boundaries)} if boundaries else {}

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        return self.adapter.latents(moments, noise)

    def predict(self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The raw prediction, shape of xt; `denoiser` may be wrapped, or a copy."""
        return denoisers.predict(self.adapter, denoiser, xt, t, conditioning, self.size, self.model.guidance)

    @property
    def noise_dtype(self) -> torch.dtype:
        """Of the noise with which `sampler` begins."""
        return self.family.noise_dtype or self.model.frozen_dtype(self.dtype)

    def initial_noise(self, seeds: Sequence[int], dtype: torch.dtype) -> Tensor:
        """(B, ...), float32 on the CPU: the noise with which a sampler began that drew in `dtype`, by the seeds of its samples. Of a
        `PartAdapter`, what it trains of that."""
        adapter = self.adapter
        part = isinstance(adapter, PartAdapter)
        shape = adapter.drawn_shape(self.size) if part else adapter.latent_shape(self.size)
        noise = torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(s), dtype=dtype) for s in seeds]
        ).float()
        return adapter.trained(noise) if part else noise

    def sampler(self, num_inference_steps: int, guidance_scale: float) -> Sampler | SourceSampler:
        """Media by the checkpoint's own pipeline and scheduler; a CPU generator a seed, so that devices agree.

        What it returns raises UserError where a weight that is not finite made NaN of a medium.
        """

        @torch.no_grad()
        def sample(prompts: list[str], seeds: list[int], *sources: Tensor) -> Sequence[Media]:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            training, half = self.denoiser.training, self.dtype != torch.float32
            self.denoiser.eval()
            with self.encoders(), self.in_turn(), torch.autocast(self.device.type, self.dtype, enabled=half):
                media = self.adapter.sample(
                    self.pipeline, prompts, generators, num_inference_steps, guidance_scale, self.size, *sources
                )
                broken = self.nonfinite_weight() if any(map(lacks_a_channel, media)) else None
            self.denoiser.train(training)
            if broken:
                raise UserError(f"{self.model.path} draws NaN: {broken}. Replace the file, or export the run again")
            return media

        return SourceSampler(self.size.picture, sample) if self.architecture.takes_source else sample

    def freeze(self, device: torch.device) -> None:
        """Everything to the device, for inference; training makes its own part trainable again."""
        self.denoiser.requires_grad_(False).eval().to(device)
        self.freeze_encoders()

    def freeze_encoders(self) -> None:
        """The encoders to where the denoiser is."""
        for name in self.family.encoders:
            if isinstance(part := getattr(self.pipeline, name, None), nn.Module):
                part.requires_grad_(False).eval().to(self.device)

    @contextlib.contextmanager
    def encoders(self) -> Iterator[None]:
        """The VAE and the text encoders in memory while the context lasts, wherever they were before."""
        if self.pipeline.vae is not None:
            yield
            return
        bare = self.pipeline
        # Another pipeline around the same denoiser, because pipelines derive settings from encoders when they are built.
        parts = {part: getattr(bare, part) for part in self.family.denoisers}
        self.pipeline = self._load({**parts, "scheduler": bare.scheduler})
        self._merge_into_text_encoders()
        self.freeze_encoders()
        try:
            yield
        finally:
            self.pipeline = bare
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def in_turn(self) -> contextlib.AbstractContextManager[None]:
        """While the context lasts, encoders are on the device only when they run: of videos always, of images where it has little memory."""
        texts, networks = list(self._text_encoders().values()), denoisers.networks_of(self.denoiser)
        return in_turn(texts, self.pipeline.vae, networks, self.device, always=self.size.is_video)

    def quantize(self) -> None:
        """Put the denoiser into the bits of `model.quantize`, once every LoRA is merged. Raises UserError (see `quantize`)."""
        if self.model.quantize:
            quantize(self.denoiser, self.model.quantize, self.dtype)

    def fingerprint(self) -> dict[str, str]:
        """What identifies the encoders, for caches: of a LoRA too, if it changes text encoders."""
        found = self._encoder_files
        changed = [f.file.path for _, f in self.lora if any(f.reaches(part) for part in self.family.text_encoders)]
        return {**found, **({"lora": hash_files(changed)} if changed else {})}

    @functools.cached_property
    def _encoder_files(self) -> dict[str, str]:
        return checkpoint.fingerprint(self.family, self.model, self.folder, self.dtype)

    def nonfinite_weight(self, trained: bool = True) -> str | None:
        """A weight in memory that is NaN or infinite, and of which part; None where all are finite.

        trained: False leaves out what takes gradients.
        """
        networks = dict(zip(self.family.denoisers, denoisers.networks_of(self.denoiser), strict=True))
        networks |= {part: getattr(self.pipeline, part, None) for part in self.family.encoders}
        found = (
            nonfinite_weight(part, each, trained) for part, each in networks.items() if isinstance(each, nn.Module)
        )
        return next((broken for broken in found if broken), None)

    def merge_lora(self, path: str | Path) -> None:
        """Add a LoRA to the weights of the denoiser and the text encoders, to those on disk when they are loaded.

        Raises UserError for a LoRA that would not be used in full.
        """
        text_encoders = self._text_encoders() or meta_text_encoders(self.architecture)
        found = lora.fit_lora(path, self.family.denoisers, self.denoiser, text_encoders)
        lora.merge_lora(found, self.family.denoisers, self.denoiser)
        self.lora += found
        self._merge_into_text_encoders(found)

    def _text_encoders(self) -> dict[str, nn.Module]:
        """Those in memory, by their part."""
        found = {part: getattr(self.pipeline, part) for part in self.family.text_encoders}
        return {part: network for part, network in found.items() if network is not None}

    def _merge_into_text_encoders(self, found: list[tuple[str, Fitted]] | None = None) -> None:
        for _, fitted in self.lora if found is None else found:
            merge(fitted, self._text_encoders())

    def save_lora(self, folder: Path, weights: dict[str, Tensor], form: Form | None = None) -> None:
        """Write adapter weights that plain diffusers loads with `load_lora_weights`, or in another program's form."""
        lora.save_lora(self.family.denoisers, self.denoiser, weights, folder, form)

    def save_full(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write the whole pipeline, which `from_pretrained` of diffusers loads, its denoiser with these weights."""
        with self.encoders():
            checkpoint.save_full(self.pipeline, self.family, self.denoiser, folder, weights)

    def save_single_file(self, path: Path, about: dict[str, str]) -> None:
        """Write the whole pipeline as one file (see `sipo.backbones.single_file_write`). Raises UserError."""
        with self.encoders():
            write_single_file(self.pipeline, self.family, path, about)

    def read_weights(self, policy: PolicyConfig, folder: Path) -> dict[str, Tensor]:
        """The weights that `save_lora` or `save_full` wrote, by their names in the denoiser. Raises UserError."""
        if policy.kind == "full":
            found = checkpoint.read_full(self.family, self.denoiser, folder)
            return {name: weight for name, weight in found.items() if self.trains(name)}
        return lora.read_lora(self.family.denoisers, self.denoiser, folder, policy.alpha)

    def _load(self, given: dict):
        return checkpoint.load_pipeline(self.architecture, self.folder, self.dtype, given)


def load_backbone(
    model: ModelConfig | Architecture,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    encoders: bool = True,
    size: Callable[[Size], Size] = lambda native: native,
) -> Backbone:
    """Load a checkpoint, whose configs may have been read before, with the adapter of its family.

    dtype: of computing, and of the frozen weights unless `model.dtype` differs. encoders: False leaves the VAE and the
    text encoders on disk. size: from the native size to the requested one, such as `DataConfig.size`.

    Raises UserError for a path without a pipeline, an unknown family, missing components, weights that do not load, a
    LoRA of another model, or a size that the network cannot take.
    """
    architecture = model if isinstance(model, Architecture) else read_architecture(model)
    architecture.size(size)  # refused before the download, not after
    model, name = architecture.model, architecture.family.name
    try:
        folder = download(architecture)
        if str(folder) != architecture.source or model.vae:
            architecture = read_architecture(model, folder)  # of the weights at hand
        backbone = Backbone(architecture, folder, architecture.size(size), dtype, encoders)
    except SafetensorError as error:
        raise UserError(
            f"model: {model.path} does not load: a file of weights is truncated or damaged ({error})"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SingleFileComponentError) as error:
        # diffusers raises any of these for a component of another class, or weights of other shapes
        detail = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model: {model.path} does not load as a {name}: {detail}") from error
    backbone.freeze(torch.device(device))
    return backbone


def download(architecture: Architecture) -> Path:
    """The checkpoint's folder on this machine."""
    path, model = resolve_path(architecture.model.path), architecture.model
    if is_single_file(path):
        return config_folder(model)
    if Path(path).is_dir():
        return Path(path)
    return Path(architecture.family.pipeline.download(
        path, revision=model.revision, variant=model.variant, use_safetensors=True
    ))  # fmt: skip


def quiet_libraries() -> None:
    """Silence diffusers and transformers except for errors; call it before they load anything."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="(diffusers|transformers|peft|huggingface_hub)")
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
