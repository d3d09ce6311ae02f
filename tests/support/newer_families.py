"""Three newer families, each described by the public record alone, and tiny checkpoints of them.

Wan 2.2: two denoisers, switched by timestep. Stable Diffusion 3: three text encoders. Qwen-Image: prompts of their own
lengths, padded and masked. The package has none of them: `add` puts a record into its table.
"""

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from support.checkpoints import t5, t5_tokenizer, text_encoder, tokenizer
from support.checkpoints import wan as wan21
from torch.nn.functional import pad
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from sipo import registry
from sipo.backbones.family import Family, Sizes, draw, kl_stride, meta, vae_moments
from sipo.backbones.flux import FLUX, unpack
from sipo.backbones.wan import WAN, Wan
from sipo.schedule import FlowSchedule
from sipo.size import Size

BOUNDARY = 0.8


class Wan22(Wan):
    def __init__(self, configs):
        index = configs["model_index"]
        super().__init__({**configs, "model_index": {}})
        self.boundaries = (index["boundary_ratio"] * self.scheduler["num_train_timesteps"],)


WAN22 = replace(
    WAN,
    denoisers={"transformer": WanTransformer3DModel, "transformer_2": WanTransformer3DModel},
    adapter=Wan22,
)


def wan22(folder: Path) -> Path:
    """Two transformers with weights of their own."""
    wan21(folder)
    torch.manual_seed(1)
    second = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(folder / "transformer"))
    WanPipeline.from_pretrained(folder, transformer_2=second, boundary_ratio=BOUNDARY).save_pretrained(folder)
    return folder


class ImageAdapter:
    """What Stable Diffusion 3 and Qwen-Image have in common here."""

    boundaries = ()

    def __init__(self, configs):
        self.configs, self.transformer, self.vae = configs, configs["transformer"], configs["vae"]

    @property
    def sizes(self):
        return Sizes(Size(16, 16), 2 * self.stride, 2 * self.stride)

    def latent_shape(self, size):
        return self.channels, size.height // self.stride, size.width // self.stride

    def schedule(self, size):
        return FlowSchedule(1000, self.configs["scheduler"]["shift"])

    def conditioning_of(self, micro_conditioning, size):
        return {}

    def sample(self, pipeline, prompts, generators, steps, guidance, size):
        return pipeline(prompts, generator=generators, num_inference_steps=steps, height=size.height, width=size.width,
                        **self.keys(guidance)).images  # fmt: skip


class StableDiffusion3(ImageAdapter):
    T5 = 16  # tokens

    stride = property(lambda self: kl_stride(self.configs))
    channels = property(lambda self: self.transformer["in_channels"])

    @property
    def tokens(self):
        clip = {part: self.configs[part]["max_position_embeddings"] for part in ("text_encoder", "text_encoder_2")}
        return {**clip, "text_encoder_3": self.T5}

    def keys(self, guidance):
        return {"guidance_scale": guidance, "max_sequence_length": self.T5}

    def meta_prompts(self, batch, dtype):
        length, width = self.tokens["text_encoder"] + self.T5, self.transformer["joint_attention_dim"]
        pooled = meta(batch, self.transformer["pooled_projection_dim"], dtype=dtype)
        return {"encoder_hidden_states": meta(batch, length, width, dtype=dtype), "pooled_projections": pooled}

    def latents(self, moments, noise):
        return (draw(moments, noise) - self.vae["shift_factor"]) * self.vae["scaling_factor"]

    def predict(self, denoiser, xt, t, conditioning, size, guidance):
        return denoiser(xt, timestep=t, **conditioning).sample

    def encode_prompts(self, pipeline, prompts):
        hidden, _, pooled, _ = pipeline.encode_prompt(
            prompts, prompts, prompts, do_classifier_free_guidance=False, max_sequence_length=self.T5
        )
        return {"encoder_hidden_states": hidden, "pooled_projections": pooled}

    def encode_media(self, vae, pixels):
        return vae_moments(vae, pixels)


SD3 = Family(
    pipeline=StableDiffusion3Pipeline,
    denoisers={"transformer": SD3Transformer2DModel},
    vae=AutoencoderKL,
    text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    lora_targets=FLUX.lora_targets,
    adapter=StableDiffusion3,
)


def sd3(folder: Path) -> Path:
    torch.manual_seed(0)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=4,
            pos_embed_max_size=16,
        ),
        vae=AutoencoderKL(
            block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1, scaling_factor=1.5305,
            shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=text_encoder(projection=True, width=16), tokenizer=tokenizer(),
        text_encoder_2=text_encoder(projection=True, width=16), tokenizer_2=tokenizer(),
        text_encoder_3=t5(), tokenizer_3=t5_tokenizer(16),
    ).save_pretrained(folder)  # fmt: skip
    return folder


class QwenImage(ImageAdapter):
    TOKENS = 256  # of single characters, the template's among them

    stride = property(lambda self: 2 ** len(self.vae["temperal_downsample"]))
    channels = property(lambda self: self.transformer["in_channels"] // 4)

    @property
    def tokens(self):
        return {"text_encoder": self.TOKENS}

    def keys(self, guidance):
        return {"max_sequence_length": self.TOKENS}

    def meta_prompts(self, batch, dtype):
        hidden = meta(batch, self.TOKENS, self.transformer["joint_attention_dim"], dtype=dtype)
        return {"encoder_hidden_states": hidden, "mask": meta(batch, self.TOKENS, dtype=torch.bool)}

    def latents(self, moments, noise):
        mean, std = (moments.new_tensor(self.vae[key]).view(-1, 1, 1) for key in ("latents_mean", "latents_std"))
        return (draw(moments, noise) - mean) / std

    def predict(self, denoiser, xt, t, conditioning, size, guidance):
        batch, channels, height, width = xt.shape
        packed = denoiser(
            hidden_states=QwenImagePipeline._pack_latents(xt, batch, channels, height, width), timestep=t / 1000,
            encoder_hidden_states=conditioning["encoder_hidden_states"], encoder_hidden_states_mask=conditioning["mask"],
            img_shapes=[[(1, height // 2, width // 2)]] * batch,
        ).sample  # fmt: skip
        return unpack(packed, height, width)

    def encode_prompts(self, pipeline, prompts):
        """Padded to one length, whatever the pipeline padded them to; True where there is a token."""
        hidden, mask = pipeline.encode_prompt(prompts, max_sequence_length=self.TOKENS)
        mask = torch.ones(hidden.shape[:2]) if mask is None else mask
        rest = self.TOKENS - hidden.shape[1]
        return {"encoder_hidden_states": pad(hidden, (0, 0, 0, rest)), "mask": pad(mask, (0, rest)).bool()}

    def encode_media(self, vae, pixels):
        return vae_moments(vae, pixels.unsqueeze(2)).squeeze(3)


QWEN_IMAGE = Family(
    pipeline=QwenImagePipeline,
    denoisers={"transformer": QwenImageTransformer2DModel},
    vae=AutoencoderKLQwenImage,
    text_encoders=("text_encoder",),
    lora_targets=FLUX.lora_targets,
    adapter=QwenImage,
)


def qwen_image(folder: Path) -> Path:
    torch.manual_seed(0)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    characters = [chr(code) for code in range(33, 127)] + ["\u0120", "\u010a"]  # space and newline, as bytes
    vocab = {piece: number for number, piece in enumerate([*special, *characters])}
    text = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        text_config={"vocab_size": len(vocab), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
                     "num_attention_heads": 2, "num_key_value_heads": 2,
                     "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
    ))  # fmt: skip
    QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
            latents_mean=[-0.7, 0.2, 0.1, -0.3], latents_std=[2.8, 1.4, 2.3, 1.9],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        text_encoder=text,
        tokenizer=Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=special[1:]),
    ).save_pretrained(folder)  # fmt: skip
    return folder


NEWER = {  # as support.checkpoints.FAMILIES, and the record
    "wan2.2": (wan22, {"resolution": 16, "num_frames": 5}, WAN22),
    "sd3": (sd3, {}, SD3),
    "qwen-image": (qwen_image, {}, QWEN_IMAGE),
}


def add(name: str, monkeypatch) -> None:
    record = NEWER[name][2]
    monkeypatch.setitem(registry.families.table, record.name, record)
