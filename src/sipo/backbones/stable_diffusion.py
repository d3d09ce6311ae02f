"""Stable Diffusion 1.x, 2.x and XL: UNet, VAE with a scale, one or two CLIP text encoders."""

import contextlib
import gc
import hashlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline
from torch import Tensor, nn

from sipo.backbones.base import Conditioning, Sampler
from sipo.config import ModelConfig
from sipo.schedule import VPSchedule

ENCODERS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


class StableDiffusion:
    """Adapter for `StableDiffusionPipeline` and `StableDiffusionXLPipeline` (see `sipo.backbones.base.Backbone`)."""

    denoiser_name = "unet"
    # The targets of diffusers' examples/research_projects/diffusion_dpo: the UNet's attention projections.
    lora_targets = ("to_k", "to_q", "to_v", "to_out.0")

    def __init__(self, pipeline: DiffusionPipeline, model: ModelConfig, folder: Path, dtype: torch.dtype):
        self.pipeline, self.model, self.folder, self.dtype = pipeline, model, folder, dtype
        self.is_xl = "text_encoder_2" in pipeline.config
        # DDPMScheduler computes alphas_cumprod from any SD scheduler config, zero-terminal-SNR rescaling included.
        scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.schedule = VPSchedule(scheduler.alphas_cumprod, scheduler.config["prediction_type"])
        self.vae_config = AutoencoderKL.load_config(model.vae or folder, subfolder=None if model.vae else "vae")
        self.vae_stride = 2 ** (len(self.vae_config["block_out_channels"]) - 1)
        self.resolution = pipeline.unet.config["sample_size"] * self.vae_stride

    @classmethod
    def load(cls, model: ModelConfig, folder: Path, device: torch.device, dtype: torch.dtype, encoders: bool):
        """Load from a local folder in diffusers layout; without `encoders` the VAE and text encoders stay on disk."""
        skip = () if encoders else ENCODERS
        pipeline = _load_pipeline(model, folder, dtype, dict.fromkeys(skip))
        if model.lora:
            pipeline.load_lora_weights(model.lora)
            pipeline.fuse_lora()
            pipeline.unload_lora_weights()
        backbone = cls(pipeline, model, folder, dtype)
        backbone._freeze(device)
        return backbone

    @property
    def denoiser(self) -> nn.Module:
        """The UNet, which is what training changes."""
        return self.pipeline.unet

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """`encoder_hidden_states` (B, L, D); for XL those of both encoders, and `text_embeds` (B, D) of the second."""
        encoded = self.pipeline.encode_prompt(
            prompts, device=self.denoiser.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        if self.is_xl:
            return {"encoder_hidden_states": encoded[0], "text_embeds": encoded[2]}
        return {"encoder_hidden_states": encoded[0]}

    @torch.no_grad()
    def encode_media(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] -> the VAE's mean and log-variance (B, 2, C, h, w), float32."""
        vae = self.pipeline.vae
        posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        return torch.stack([posterior.mean, posterior.logvar], dim=1).float()

    def latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """x0 = scale (mean + std noise - shift), (B, C, h, w)."""
        mean, logvar = moments.unbind(1)
        shift = self.vae_config.get("shift_factor") or 0.0
        return (mean + torch.exp(0.5 * logvar) * noise - shift) * self.vae_config["scaling_factor"]

    def predict(self, denoiser: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's raw prediction, (B, C, h, w)."""
        hidden = conditioning["encoder_hidden_states"]
        if not self.is_xl:
            return denoiser(xt, t, encoder_hidden_states=hidden).sample
        # As the reference implementation: original size, crop corner and target size of an uncropped square picture.
        height, width = (float(side * self.vae_stride) for side in xt.shape[-2:])
        time_ids = torch.tensor([height, width, 0.0, 0.0, height, width], device=xt.device, dtype=hidden.dtype)
        added = {"text_embeds": conditioning["text_embeds"], "time_ids": time_ids.expand(len(xt), 6)}
        return denoiser(xt, t, encoder_hidden_states=hidden, added_cond_kwargs=added).sample

    def without_encoders(self) -> None:
        """Give the memory of the VAE and the text encoders back; `encoders()` reads them from disk again."""
        self.pipeline.register_modules(**{name: None for name in ENCODERS if name in self.pipeline.config})
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def encoders(self):
        """The VAE and the text encoders in memory while the context lasts."""
        if self.pipeline.vae is not None:
            yield
            return
        kept = {"unet": self.pipeline.unet, "scheduler": self.pipeline.scheduler}
        whole = _load_pipeline(self.model, self.folder, self.dtype, kept)
        self.pipeline.register_modules(**{name: getattr(whole, name) for name in ENCODERS if name in whole.config})
        del whole
        for name in ("vae", "text_encoder", "text_encoder_2"):
            if (part := getattr(self.pipeline, name, None)) is not None:
                part.requires_grad_(False).eval().to(self.denoiser.device)
        try:
            yield
        finally:
            self.without_encoders()

    def sampler(self, num_inference_steps: int, guidance_scale: float, resolution: int | None = None) -> Sampler:
        """Images by the checkpoint's own pipeline and scheduler; a CPU generator a seed, so devices agree."""
        side = resolution or self.resolution

        @torch.no_grad()
        def sample(prompts: list[str], seeds: list[int]):
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            training = self.denoiser.training
            self.denoiser.eval()
            half = self.dtype != torch.float32
            with self.encoders(), torch.autocast(self.denoiser.device.type, self.dtype, enabled=half):
                images = self.pipeline(
                    prompts, generator=generators, num_inference_steps=num_inference_steps,
                    guidance_scale=guidance_scale, height=side, width=side,
                ).images  # fmt: skip
            self.denoiser.train(training)
            return images

        return sample

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the files of the VAE, the tokenizers and the text encoders: what a cache depends on."""
        parts = {name: _hash_folder(self.folder / name) for name in ENCODERS if (self.folder / name).is_dir()}
        if self.model.vae:
            parts["vae"] = _hash_folder(Path(self.model.vae)) if Path(self.model.vae).is_dir() else self.model.vae
        return {**parts, "dtype": str(self.model.dtype or self.dtype).removeprefix("torch.")}

    def load_lora(self, folder: Path) -> None:
        """Put the adapter that `save_lora` wrote onto the denoiser, as any user of diffusers would."""
        self.pipeline.load_lora_weights(folder)

    def save_lora(self, folder: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Adapter weights for `load_lora_weights`. Without the metadata, diffusers would forget alpha."""
        type(self.pipeline).save_lora_weights(
            folder, unet_lora_layers=state, unet_lora_adapter_metadata=metadata, safe_serialization=True
        )

    def save_full(self, folder: Path) -> None:
        """The whole pipeline for `DiffusionPipeline.from_pretrained`."""
        with self.encoders():
            self.pipeline.save_pretrained(folder, safe_serialization=True)

    def _freeze(self, device: torch.device) -> None:
        for part in self.pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval().to(device)


def _load_pipeline(model: ModelConfig, folder: Path, dtype: torch.dtype, given: dict[str, Any]) -> DiffusionPipeline:
    """The pipeline in `folder` with the `given` components (None: left on disk), of those that its index names."""
    index = DiffusionPipeline.load_config(folder)
    parts = {name: part for name, part in (dict.fromkeys(UNUSED) | given).items() if name in index}
    if "safety_checker" in parts:
        parts["requires_safety_checker"] = False
    frozen = getattr(torch, model.dtype) if model.dtype else dtype
    if "vae" not in parts:
        source, subfolder = (model.vae, None) if model.vae else (folder, "vae")
        # The VAE of SDXL says itself that half precision overflows it.
        upcast = AutoencoderKL.load_config(source, subfolder=subfolder).get("force_upcast")
        vae_dtype = torch.float32 if upcast and frozen == torch.float16 else frozen
        variant = None if model.vae else model.variant
        parts["vae"] = AutoencoderKL.from_pretrained(source, subfolder=subfolder, variant=variant, dtype=vae_dtype)
    pipeline = DiffusionPipeline.from_pretrained(
        folder, variant=model.variant, dtype=frozen, use_safetensors=True, **parts
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".txt", ".model")):
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return digest.hexdigest()
