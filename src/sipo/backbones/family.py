"""What the toolkit needs of a model family: a record of its parts, and an adapter with its rules and its forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]
from diffusers.loaders.lora_base import LoraBaseMixin
from PIL import Image
from torch import Tensor, nn

from sipo.errors import UserError
from sipo.schedule import Schedule
from sipo.size import Size

Configs = dict[str, dict[str, Any]]  # a checkpoint's configs by part, and its model_index
# What the denoiser reads besides (xt, t); every tensor (B, ...). Those of int64 stay on the CPU: lengths, by which `predict`
# cuts the others without waiting for a GPU.
Conditioning = dict[str, Tensor]
Media = Image.Image | list[Image.Image]  # a picture, or the frames of a video
Sampler = Callable[[list[str], list[int]], Sequence[Media]]  # (prompts, seeds) -> media


@dataclass(frozen=True)
class Sizes:
    """The sizes that a model takes: sides that are multiples of `height` and `width`, and `frames` n + 1 frames.

    native: what it was made for. only_native: its positions were learned for the native sides and fit no others. least_frames: of a
    model whose first frames are given, so that some are left.
    """

    native: Size
    height: int
    width: int
    frames: int = 1
    only_native: bool = False
    least_frames: int = 1

    def require(self, size: Size) -> None:
        """Raises UserError for a size that the model does not take."""
        sides = size.height, size.width
        multiples = f"{self.height}" if self.height == self.width else f"{self.height} and {self.width}"
        if sides[0] % self.height or sides[1] % self.width:
            raise UserError(
                f"data.resolution: {sides[0]} x {sides[1]}; this model takes sides that are multiples of {multiples}, "
                f"such as {_nearest(sides[0], self.height)} x {_nearest(sides[1], self.width)}"
            )
        if (size.num_frames - 1) % self.frames:
            raise UserError(
                f"data.num_frames: this model takes {self.frames} n + 1 frames, not {size.num_frames}; "
                f"{1 + _nearest(size.num_frames - 1, self.frames)} is the nearest"
            )
        if size.num_frames < self.least_frames:
            raise UserError(
                f"data.num_frames: {size.num_frames}; the first frame of this model is given, so it takes {self.least_frames} or more"
            )
        native = self.native.height, self.native.width
        if self.only_native and sides != native:
            raise UserError(
                f"data.resolution: {sides[0]} x {sides[1]}; this model's positions are learned for "
                f"{native[0]} x {native[1]} alone"
            )


def _nearest(number: int, multiple: int) -> int:
    return max(round(number / multiple), 1) * multiple


class Adapter(Protocol):
    """The rules of one family, built from a checkpoint's configs alone: `Adapter(configs)`. It holds no network.

    `configs` has the config.json of every network by its part, the scheduler's under "scheduler" (complete, defaults
    filled in) and model_index.json under "model_index". An adapter never noises, collates, or knows an objective.
    Raises UserError for a checkpoint of the same pipeline that it does not support.
    """

    # Timesteps, falling: the first denoiser takes t >= boundaries[0], ..., the last those below all. () for one denoiser.
    boundaries: tuple[float, ...]

    def __init__(self, configs: Configs) -> None: ...

    # Sizes and shapes.

    @property
    def sizes(self) -> Sizes: ...

    @property
    def tokens(self) -> dict[str, int]:
        """The length to which each text encoder's prompts are padded, by its part; and how many tokens an extra reads."""
        ...

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Of one sample's x0."""
        ...

    def meta_prompts(self, batch: int, dtype: torch.dtype) -> Conditioning:
        """The shapes that `encode_prompts` returns for `batch` prompts, on the meta device."""
        ...

    # Path and forward pass.

    def schedule(self, size: Size) -> Schedule:
        """The path of the checkpoint's own scheduler, with its shift at this size."""
        ...

    def conditioning_of(self, micro_conditioning: Tensor, size: Size) -> Conditioning:
        """micro_conditioning (B, 4): each picture's original height, width, crop top, crop left."""
        ...

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 (B, ...) from the VAE's moments with the given standard-normal noise, scaled for the denoiser."""
        ...

    def predict(
        self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, size: Size, guidance: float
    ) -> Tensor:
        """One network's raw prediction, shape of xt. `guidance`: for guidance-distilled networks, else unused."""
        ...

    # Through the pipeline, whose encoders are in memory.

    def encode_prompts(self, pipeline: Any, prompts: list[str]) -> Conditioning:
        """Text conditioning as the pipeline passes it, (B, ...) each: padded to one length, with a mask if it has one."""
        ...

    def encode_media(self, vae: Any, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) or (B, F, 3, H, W) in [-1, 1] -> mean and log-variance of the VAE, (B, 2, ...), float32."""
        ...

    def decode(self, pipeline: Any, x0: Tensor) -> Sequence[Media]:
        """Media of latents x0 (B, ...), as the pipeline ends its own loop."""
        ...

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
    ) -> Sequence[Media]:
        """Media by the pipeline's own loop and scheduler."""
        ...


@runtime_checkable
class WindowedAdapter(Adapter, Protocol):
    """An adapter whose text encoders can read a long caption in windows (see `sipo.backbones.windows`)."""

    def in_windows(self, windows: int) -> Adapter:
        """The adapter that reads every caption in so many windows; `tokens` are then those of all windows together."""
        ...


@runtime_checkable
class SourceAdapter(Adapter, Protocol):
    """An adapter of a model that reads a source: a picture that its media are edits of, or begin with, beside the prompt."""

    def source_tokens(self, size: Size) -> int:
        """How many tokens a text encoder reads of a source, beside the prompt's; 0 for models whose text encoders see none."""
        ...

    def encode_source(self, pipeline: Any, pixels: Tensor, prompts: list[str], size: Size) -> Conditioning:
        """All that depends on sources, as the pipeline makes it, (B, ...) each: latents in float32; and where a text encoder
        sees the source, the text conditioning, of which `encode_prompts` then returns nothing.

        pixels (B, 3, H, W) in [-1, 1], of `size`; prompts: those of the pairs.
        """
        ...

    def meta_source(self, batch: int, size: Size, dtype: torch.dtype) -> Conditioning:
        """The shapes that `encode_source` returns for `batch` sources, on the meta device; dtype: of text conditioning."""
        ...

    def sample(
        self,
        pipeline: Any,
        prompts: list[str],
        generators: list[torch.Generator],
        steps: int,
        guidance: float,
        size: Size,
        sources: Tensor | None = None,
    ) -> Sequence[Media]:
        """As `Adapter.sample`, of sources (B, 3, H, W) in [-1, 1], which are always given."""
        ...


@runtime_checkable
class PartAdapter(Adapter, Protocol):
    """An adapter of a model whose media lie in latents of which a source gives some: `latent_shape`, and all of training, is of the others."""

    def drawn_shape(self, size: Size) -> tuple[int, ...]:
        """Of one sample's noise, as the pipeline draws it: of all latents."""
        ...

    def trained(self, latents: Tensor) -> Tensor:
        """Of all latents (B, ...), those that are not given."""
        ...

    def whole(self, x0: Tensor, conditioning: Conditioning) -> Tensor:
        """All latents: those that the sources give, and these, noisy or not. `decode` takes them."""
        ...


@dataclass(frozen=True)
class Family:
    """One model family. What holds of every checkpoint stands here, what depends on its configs in the `adapter`.

    pipeline: the class that model_index.json names. denoisers: class by part, in the order in which sampling uses them,
    from noise to data; `Adapter.boundaries` says at which timesteps they take over. optional: those denoisers, extras and
    processors that a checkpoint may lack. vae: its class. text_encoders: parts, of classes in transformers, with tokenizers of the same
    numbers. lora_targets: what LoRA adapts by default. dtype: what samples are computed in on a GPU where no training says.
    noise_dtype: of the noise with which the pipeline begins a sample; None for that of its text embeddings. vae_dtype: None
    for that of the other frozen weights. tiled_vae: encode and decode in slices and, above the VAE's own size, in tiles.
    template: tokens of a chat template, which take room from a prompt. idle_weights: the denoiser has weights that its
    prediction does not depend on, which never get a gradient. encoder_layers: so many of a text encoder's layers the
    pipeline reads, so that a rehearsal keeps them. excerpts: text encoders that read parts of a prompt, so that its own length
    is not what they cut. processors: parts that make an encoder's inputs of pictures, which may have a tokenizer of their own.
    prepare: what is done to a denoiser when it was loaded, or built without weights. extras: other networks of
    the pipeline that stay frozen, with the classes that each may have; they lie where the encoders do. trains: whether full
    fine-tuning changes a weight of a denoiser, by its name in that. note: what the model card says of the training.
    """

    pipeline: type[DiffusionPipeline]
    denoisers: dict[str, type]
    vae: type
    text_encoders: tuple[str, ...]
    lora_targets: tuple[str, ...]
    adapter: Callable[[Configs], Adapter]
    dtype: torch.dtype = torch.float16
    noise_dtype: torch.dtype | None = None
    vae_dtype: torch.dtype | None = None
    tiled_vae: bool = False
    optional: tuple[str, ...] = ()
    template: int = 0
    idle_weights: bool = False
    encoder_layers: int = 1
    excerpts: tuple[str, ...] = ()
    processors: tuple[str, ...] = ()
    prepare: Callable[[nn.Module], None] = lambda network: None
    extras: Mapping[str, tuple[type, ...]] = field(default_factory=dict)
    trains: Callable[[str], bool] = lambda name: True
    note: str = ""

    @property
    def name(self) -> str:
        return self.pipeline.__name__

    @property
    def encoders(self) -> tuple[str, ...]:
        """What a cache of latents and text embeddings replaces: the VAE, the text encoders, their tokenizers and processors, the extras."""
        tokenizers = (part.replace("text_encoder", "tokenizer") for part in self.text_encoders)
        return ("vae", *self.text_encoders, *tokenizers, *self.processors, *self.extras)

    @property
    def unused(self) -> tuple[str, ...]:
        """Parts that are never loaded, where a checkpoint has them."""
        parts = ("safety_checker", "feature_extractor", "image_encoder", "processor")
        return tuple(part for part in parts if part not in (*self.processors, *self.extras))

    @property
    def loads_lora(self) -> bool:
        """Whether the pipeline has `load_lora_weights`; networks of all others have `load_lora_adapter`."""
        return issubclass(self.pipeline, LoraBaseMixin)

    def prepared(self, parts: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """The denoisers, each after `prepare`."""
        for network in parts.values():
            self.prepare(network)
        return parts

    def of(self, index: dict[str, Any]) -> "Family":
        """With those parts that a checkpoint's model_index.json names, of the optional ones."""
        missing = [part for part in self.optional if not (index.get(part) or [None])[0]]
        return replace(
            self,
            denoisers={part: cls for part, cls in self.denoisers.items() if part not in missing},
            extras={part: classes for part, classes in self.extras.items() if part not in missing},
            processors=tuple(part for part in self.processors if part not in missing),
        )


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor with a shape and no data."""
    return torch.empty(*shape, dtype=dtype, device="meta")


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """A few numbers with the dtype of `like` on its device, whose queue the host does not wait for."""
    return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)


def vae_moments(vae: Any, pixels: Tensor) -> Tensor:
    """Mean and log-variance (B, 2, ...), float32, of pixels in the VAE's own layout."""
    posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    return torch.stack([posterior.mean, posterior.logvar], dim=1).float()


def draw(moments: Tensor, noise: Tensor) -> Tensor:
    """mean + std noise, the VAE's latent before any scaling."""
    mean, logvar = moments.unbind(1)
    return mean + torch.exp(0.5 * logvar) * noise


def kl_stride(configs: Configs) -> int:
    """Pixels per latent of an AutoencoderKL or AutoencoderKLCogVideoX: each block but the last halves the sides."""
    return 2 ** (len(configs["vae"]["block_out_channels"]) - 1)


def scaled(latents: Tensor, vae: dict[str, Any]) -> Tensor:
    """x0 = scale (latents - shift), of a VAE with one scale."""
    return (latents - (vae.get("shift_factor") or 0.0)) * vae["scaling_factor"]


def unscaled(x0: Tensor, vae: dict[str, Any]) -> Tensor:
    """The inverse of `scaled`."""
    return x0 / vae["scaling_factor"] + (vae.get("shift_factor") or 0.0)


def standardized(latents: Tensor, vae: dict[str, Any]) -> Tensor:
    """x0 = (latents - latents_mean) / latents_std, channel by channel, (B, C, ...)."""
    mean, std = _statistics(latents, vae)
    return (latents - mean) / std


def unstandardized(x0: Tensor, vae: dict[str, Any]) -> Tensor:
    """The inverse of `standardized`."""
    mean, std = _statistics(x0, vae)
    return x0 * std + mean


def _statistics(like: Tensor, vae: dict[str, Any]) -> list[Tensor]:
    shape = (-1, *[1] * (like.ndim - 2))
    return [constant(vae[key], like).view(shape) for key in ("latents_mean", "latents_std")]
