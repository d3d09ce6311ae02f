"""A family that the package does not know, on diffusers' parts: three text encoders, a text mask, two denoisers."""

from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from support import checkpoints

from sipo.backbones.family import Family, Sizes, draw, kl_stride, meta, vae_moments
from sipo.schedule import VPSchedule
from sipo.size import Size

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
LENGTH = 16


class Images(NamedTuple):
    images: list


class TwoStagePipeline(DiffusionPipeline):
    """`unet` from t = T down to `boundary_ratio` T, `unet_2` from there on."""

    def __init__(self, vae, text_encoder, text_encoder_2, text_encoder_3, tokenizer, tokenizer_2, tokenizer_3, unet,
                 unet_2, scheduler, boundary_ratio=0.5):  # fmt: skip
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, text_encoder_2=text_encoder_2, text_encoder_3=text_encoder_3, unet=unet,
            tokenizer=tokenizer, tokenizer_2=tokenizer_2, tokenizer_3=tokenizer_3, unet_2=unet_2, scheduler=scheduler,
        )  # fmt: skip
        self.register_to_config(boundary_ratio=boundary_ratio)

    def encode_prompt(self, prompts):
        """Features of all encoders side by side (B, L, 3 D), and the mask of real tokens (B, L)."""
        hidden = []
        for part in ENCODERS:
            tokenizer = getattr(self, part.replace("text_encoder", "tokenizer"))
            text = tokenizer(prompts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
            hidden.append(getattr(self, part)(text.input_ids.to(self.unet.device)).last_hidden_state)
        return torch.cat(hidden, dim=-1), text.attention_mask.bool().to(self.unet.device)

    @torch.no_grad()
    def __call__(self, prompts, generators, steps, height, width):
        hidden, mask = self.encode_prompt(prompts)
        shape = 4, height // 2, width // 2
        xt = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        self.scheduler.set_timesteps(steps)
        for t in self.scheduler.timesteps:
            unet = self.unet if t >= self.config.boundary_ratio * 1000 else self.unet_2
            pred = unet(xt, t, encoder_hidden_states=hidden, encoder_attention_mask=mask).sample
            xt = self.scheduler.step(pred, t, xt).prev_sample
        pixels = self.vae.decode(xt / self.vae.config.scaling_factor).sample / 2 + 0.5
        return Images(self.numpy_to_pil(pixels.clamp(0, 1).permute(0, 2, 3, 1).float().numpy()))


class TwoStage:
    """The adapter of `TwoStagePipeline`."""

    def __init__(self, configs):
        self.unet, self.vae, self.scheduler = configs["unet"], configs["vae"], configs["scheduler"]
        self.stride = kl_stride(configs)
        self.boundaries = (configs["model_index"]["boundary_ratio"] * 1000,)

    @property
    def sizes(self):
        side, multiple = self.unet["sample_size"] * self.stride, 2 * self.stride
        return Sizes(Size(side, side), multiple, multiple)

    @property
    def tokens(self):
        return dict.fromkeys(ENCODERS, LENGTH)

    def latent_shape(self, size):
        return self.unet["in_channels"], size.height // self.stride, size.width // self.stride

    def meta_prompts(self, batch, dtype):
        hidden = meta(batch, LENGTH, self.unet["cross_attention_dim"], dtype=dtype)
        return {"hidden": hidden, "mask": meta(batch, LENGTH, dtype=torch.bool)}

    def schedule(self, size):
        return VPSchedule(DDPMScheduler.from_config(self.scheduler).alphas_cumprod, "epsilon")

    def conditioning_of(self, micro_conditioning, size):
        return {}

    def latents(self, moments, noise):
        return draw(moments, noise) * self.vae["scaling_factor"]

    def predict(self, denoiser, xt, t, conditioning, size, guidance):
        hidden, mask = conditioning["hidden"], conditioning["mask"]
        return denoiser(xt, t, encoder_hidden_states=hidden, encoder_attention_mask=mask).sample

    def encode_prompts(self, pipeline, prompts):
        hidden, mask = pipeline.encode_prompt(prompts)
        return {"hidden": hidden, "mask": mask}

    def encode_media(self, vae, pixels):
        return vae_moments(vae, pixels)

    def sample(self, pipeline, prompts, generators, steps, guidance, size):
        return pipeline(prompts, generators, steps, size.height, size.width).images


TWO_STAGE = Family(
    pipeline=TwoStagePipeline,
    denoisers={"unet": UNet2DConditionModel, "unet_2": UNet2DConditionModel},
    vae=AutoencoderKL,
    text_encoders=ENCODERS,
    lora_targets=("to_q", "to_v"),
    adapter=TwoStage,
)


def two_stage(folder: Path) -> Path:
    """A tiny checkpoint for 16 x 16 pixels."""
    torch.manual_seed(0)
    parts = {part: checkpoints.text_encoder() for part in ENCODERS}
    parts |= {part.replace("text_encoder", "tokenizer"): checkpoints.tokenizer() for part in ENCODERS}
    unets = {part: checkpoints.unet(96) for part in ("unet", "unet_2")}
    scheduler = DDIMScheduler(**checkpoints.SD_BETAS)
    TwoStagePipeline(vae=checkpoints.vae(), scheduler=scheduler, **parts, **unets).save_pretrained(folder)
    return folder


def declare(folder: Path) -> None:
    """The metadata of an installed package, for a folder on Python's path, that adds the family by an entry point."""
    info = folder / "two_stage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: two-stage\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sipo.backbones]\nTwoStagePipeline = support.own_family:TWO_STAGE\n")
