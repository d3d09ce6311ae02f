"""Tiny pipelines of the newer families with random weights, as those of `support.checkpoints`."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from support.encoders import (
    Qwen3ForCausalLM,
    chat_tokenizer,
    clip_vision,
    gemma3,
    gemma_tokenizer,
    qwen3,
    qwen25_vl,
    qwen25_vl_text,
    qwen_tokenizer,
    t5,
    t5_tokenizer,
    text_encoder,
    tokenizer,
)
from transformers import ByT5Tokenizer, Qwen2VLImageProcessorPil, UMT5Config, UMT5EncoderModel


def kl(scaling_factor: float, shift_factor: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1, scaling_factor=scaling_factor,
        shift_factor=shift_factor, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def sd3(folder: Path) -> Path:
    """A Stable Diffusion 3.5-type checkpoint for 16 x 16 pixels, its first block with medium's second attention."""
    torch.manual_seed(0)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=4,
            pos_embed_max_size=16, qk_norm="rms_norm", dual_attention_layers=(0,),
        ),
        vae=kl(1.5305, 0.0609), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=text_encoder(projection=True, width=16), tokenizer=tokenizer(),
        text_encoder_2=text_encoder(projection=True, width=16), tokenizer_2=tokenizer(),
        text_encoder_3=t5(), tokenizer_3=t5_tokenizer(256),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def qwen_image(folder: Path) -> Path:
    """A Qwen-Image-type checkpoint with its dynamic shift; use it at 16 x 16 pixels."""
    torch.manual_seed(0)
    QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=4, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
            latents_mean=[-0.7, 0.2, 0.1, -0.3], latents_std=[2.8, 1.4, 2.3, 1.9],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=1.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192
        ),
        text_encoder=qwen25_vl(), tokenizer=qwen_tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def qwen_image_edit(folder: Path, pipeline: type[DiffusionPipeline] = QwenImageEditPipeline) -> Path:
    """A Qwen-Image-Edit-type checkpoint, whose VAE is of 8 x 8; use it at multiples of 16 pixels. Its processor's files are those
    of transformers, which builds the processor itself with torchvision alone. Its decoder has contrast."""
    torch.manual_seed(0)
    vae = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[-0.7, 0.2, 0.1, -0.3], latents_std=[2.8, 1.4, 2.3, 1.9],
    )  # fmt: skip
    vae.decoder.conv_out.weight.data *= 20
    pipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        ),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(
            shift=1.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192
        ),
        text_encoder=qwen25_vl(), tokenizer=qwen_tokenizer(), processor=None,
    ).save_pretrained(folder)  # fmt: skip
    qwen_tokenizer().save_pretrained(folder / "processor")
    Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 16384).save_pretrained(folder / "processor")
    index = json.loads((folder / "model_index.json").read_text())
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def qwen_image_edit_plus(folder: Path) -> Path:
    """The same of Qwen-Image-Edit-2509."""
    return qwen_image_edit(folder, QwenImageEditPlusPipeline)


def z_image(folder: Path) -> Path:
    """A Z-Image-type checkpoint; use it at 16 x 16 pixels. Its tokens of padding are not zeros, of which norms are steep."""
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[1024, 32, 32],
    )  # fmt: skip
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    ZImagePipeline(
        transformer=transformer,
        vae=kl(0.3611, 0.1159), scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        text_encoder=qwen3(), tokenizer=qwen_tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def flux2_klein(folder: Path) -> Path:
    """A FLUX.2-klein-base-type checkpoint, whose VAE's statistics are not those of a fresh one; use it at 16 x 16 pixels."""
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, layers_per_block=1,
    )  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 4)
    Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        text_encoder=qwen3(Qwen3ForCausalLM, 28), tokenizer=qwen_tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def wan_transformer(channels: int, source_channels: int = 0, **keys) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=channels + source_channels,
        out_channels=channels, text_dim=32, freq_dim=16, ffn_dim=32, num_layers=2, cross_attn_norm=True, rope_max_seq_len=32,
        **keys,
    )  # fmt: skip


def wan_vae() -> AutoencoderKLWan:
    """That of Wan 2.1 and of 2.2's A14B: 4 x 8 x 8."""
    return AutoencoderKLWan(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[-0.7, 0.2, 0.1, -0.3], latents_std=[2.8, 1.4, 2.3, 1.9],
    )  # fmt: skip


def wan_pipeline(folder: Path, shift: float, pipeline: type[DiffusionPipeline] = WanPipeline, **parts) -> Path:
    pipeline(
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, num_train_timesteps=1000
        ),
        text_encoder=t5(UMT5Config, UMT5EncoderModel), tokenizer=t5_tokenizer(512), **parts,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def wan22_5b(folder: Path, pipeline: type[DiffusionPipeline] = WanPipeline) -> Path:
    """A Wan2.2-TI2V-5B-type checkpoint with its residual VAE of 4 x 16 x 16; use it at 5 frames of 32 x 32 pixels."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=8, z_dim=6, dim_mult=[1, 1, 1, 1], num_res_blocks=1, is_residual=True,
        temperal_downsample=[False, True, True], in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16, scale_factor_temporal=4, latents_mean=[-0.2, 0.1, 0.3, -0.1, 0.5, 0.0],
        latents_std=[0.5, 1.0, 0.4, 1.2, 0.8, 0.6],
    )  # fmt: skip
    return wan_pipeline(folder, 5.0, pipeline, transformer=wan_transformer(6), vae=vae, expand_timesteps=True)


def wan22_14b(folder: Path) -> Path:
    """A Wan2.2-T2V-A14B-type checkpoint, two transformers that differ; use it at 5 frames of 16 x 16 pixels."""
    torch.manual_seed(0)
    networks = {part: wan_transformer(4) for part in ("transformer", "transformer_2")}
    return wan_pipeline(folder, 3.0, **networks, vae=wan_vae(), boundary_ratio=0.875)


def hunyuan_video_15(folder: Path) -> Path:
    """A HunyuanVideo-1.5-type checkpoint, text to video, of 4 x 4 x 4; use it at 5 frames of 16 x 16 pixels."""
    torch.manual_seed(0)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, num_refiner_layers=2,
        mlp_ratio=2.0, text_embed_dim=16, text_embed_2_dim=32, image_embed_dim=8, rope_axes_dim=(4, 6, 6), target_size=64,
        task_type="t2v",
    )  # fmt: skip
    HunyuanVideo15Pipeline(
        transformer=transformer,
        vae=AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(8, 16, 16), layers_per_block=1, spatial_compression_ratio=4,
            temporal_compression_ratio=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0), guider=ClassifierFreeGuidance(guidance_scale=6.0),
        text_encoder=qwen25_vl_text(), tokenizer=chat_tokenizer(),
        text_encoder_2=t5(vocab_size=384), tokenizer_2=ByT5Tokenizer(),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def ltx2(folder: Path, version: float = 2.0) -> Path:
    """An LTX-2-type checkpoint of 4 x 8 x 8; use it at 5 frames of 32 x 32 pixels. Its VAE's statistics are not those of a fresh one.

    version: 2.3 has gates and modulates the text, which its connectors bring to the width of either stream; its sampling ends at s = 0.1.
    """
    torch.manual_seed(0)
    newer = version > 2
    gates = ("gated_attn", "cross_attn_mod", "audio_gated_attn", "audio_cross_attn_mod", "perturbed_attn")
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        vae_scale_factors=(4, 8, 8), audio_in_channels=8, audio_out_channels=8, audio_num_attention_heads=2,
        audio_attention_head_dim=8, audio_cross_attention_dim=16, num_layers=2, caption_channels=16, rope_type="split",
        use_prompt_embeddings=not newer, **dict.fromkeys(gates, newer),
    )  # fmt: skip
    vae = AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8, 16), down_block_types=("LTX2VideoDownBlock3D",) * 2,
        decoder_block_out_channels=(8, 8), layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, True), decoder_spatio_temporal_scaling=(True, True),
        decoder_inject_noise=(False,) * 3, downsample_type=("temporal", "spatiotemporal"),
        upsample_type=("spatiotemporal", "temporal"), upsample_residual=(True, True), upsample_factor=(1, 1),
        patch_size=4, decoder_causal=False, spatial_compression_ratio=8, temporal_compression_ratio=4,
    )  # fmt: skip
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2)
    connectors = LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=3, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16 if newer else 8, video_connector_num_layers=1,
        video_connector_num_learnable_registers=8, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8, audio_connector_num_layers=1, audio_connector_num_learnable_registers=8,
        rope_type="split", per_modality_projections=newer, video_hidden_dim=32, audio_hidden_dim=16,
        video_gated_attn=newer, audio_gated_attn=newer, proj_bias=newer,
    )  # fmt: skip
    LTX2Pipeline(
        transformer=transformer, vae=vae, connectors=connectors, text_encoder=gemma3(), tokenizer=gemma_tokenizer(),
        audio_vae=AutoencoderKLLTX2Audio(
            base_channels=8, ch_mult=(1, 1, 1), num_res_blocks=1, attn_resolutions=None, in_channels=2, resolution=32,
            latent_channels=2, norm_type="pixel", causality_axis="height", mid_block_add_attention=False, mel_bins=16,
        ),
        vocoder=LTX2Vocoder(
            in_channels=32, hidden_channels=8, out_channels=2, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
            resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], output_sampling_rate=1000,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
            shift_terminal=0.1 if newer else None,  # of which a single step is NaN
        ),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def wan22_i2v(folder: Path) -> Path:
    """A Wan2.2-I2V-A14B-type checkpoint: the mask and the source's latents are channels more; 5 frames of 16 x 16 pixels."""
    torch.manual_seed(0)
    networks = {part: wan_transformer(4, 4 + 4) for part in ("transformer", "transformer_2")}
    return wan_pipeline(folder, 3.0, WanImageToVideoPipeline, **networks, vae=wan_vae(), boundary_ratio=0.9)


def wan22_5b_i2v(folder: Path) -> Path:
    """The same of its image-to-video pipeline."""
    return wan22_5b(folder, WanImageToVideoPipeline)


def wan21_i2v(folder: Path) -> Path:
    """A Wan2.1-I2V-type checkpoint: one transformer, which attends to CLIP's 5 tokens of the source too; 5 frames of 16 x 16 pixels."""
    torch.manual_seed(0)
    transformer = wan_transformer(4, 4 + 4, image_dim=16, added_kv_proj_dim=24)
    seeing, processor = clip_vision()
    return wan_pipeline(
        folder, 3.0, WanImageToVideoPipeline, transformer=transformer, vae=wan_vae(), image_encoder=seeing,
        image_processor=processor,
    )  # fmt: skip


NEWER = {  # as `support.checkpoints.FAMILIES`
    "sd3": (sd3, {}),
    "qwen-image": (qwen_image, {"resolution": 16}),
    "z-image": (z_image, {"resolution": 16}),
    "flux2-klein": (flux2_klein, {"resolution": 16}),
    "wan2.2-5b": (wan22_5b, {"resolution": 32, "num_frames": 5, "fps": 16}),
    "wan2.2-14b": (wan22_14b, {"resolution": 16, "num_frames": 5}),
    "hunyuan-video-1.5": (hunyuan_video_15, {"resolution": 16, "num_frames": 5, "fps": 16}),
    "ltx2": (ltx2, {"resolution": 32, "num_frames": 5, "fps": 16}),
}
