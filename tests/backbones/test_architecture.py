"""The shipped architectures against published parameter counts, FLOPs and schedules; local folders; what goes wrong."""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch

from sipo.backbones.architecture import architecture_folder, known_architectures, read_architecture
from sipo.backbones.denoisers import networks_of
from sipo.backbones.meta import meta_backbone, meta_extras, meta_text_encoders, meta_vae
from sipo.config import ModelConfig
from sipo.errors import UserError
from sipo.plan.count import forward_flops
from sipo.size import Size

SD15, SDXL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
FLUX, WAN = "black-forest-labs/FLUX.1-dev", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
SD35M, SD35L = "stabilityai/stable-diffusion-3.5-medium", "stabilityai/stable-diffusion-3.5-large"
QWEN, Z_IMAGE, TURBO = "Qwen/Qwen-Image", "Tongyi-MAI/Z-Image", "Tongyi-MAI/Z-Image-Turbo"
EDIT, EDIT_2509 = "Qwen/Qwen-Image-Edit", "Qwen/Qwen-Image-Edit-2509"
KONTEXT = "black-forest-labs/FLUX.1-Kontext-dev"
KLEIN, KLEIN_BASE = (f"black-forest-labs/FLUX.2-klein-{name}" for name in ("4B", "base-4B"))
WAN5, WAN14, WAN14_I2V = (f"Wan-AI/Wan2.2-{name}-Diffusers" for name in ("TI2V-5B", "T2V-A14B", "I2V-A14B"))
WAN14_1 = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
HUNYUAN = "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"
LTX2 = "Lightricks/LTX-2"
COG2, COG5 = "zai-org/CogVideoX-2b", "zai-org/CogVideoX-5b"


@pytest.mark.parametrize(
    ("model", "published", "within"),
    [
        (SD15, 859_520_964, 0),
        (SDXL, 2_567_463_684, 0),
        (FLUX, 11.90e9, 0.005),
        (KONTEXT, 11.90e9, 0.005),
        (COG2, 1.69e9, 0.005),
        (COG5, 5.57e9, 0.005),
        (WAN, 1.419e9, 0.005),
        (SD35M, 2.24e9, 0.005),
        (SD35L, 8.06e9, 0.005),
        (QWEN, 20.43e9, 0.005),
        (EDIT, 20.43e9, 0.005),
        (EDIT_2509, 20.43e9, 0.005),
        (Z_IMAGE, 6.15e9, 0.005),
        (KLEIN_BASE, 3.88e9, 0.005),
        (WAN5, 5.00e9, 0.005),
        (WAN14, 2 * 14.29e9, 0.005),
        (WAN14_I2V, 2 * 14.29e9, 0.005),
        (WAN14_1, 16.4e9, 0.005),
        (HUNYUAN, 8.3e9, 0.005),
        (LTX2, 19e9, 0.01),
    ],
)
def test_the_denoisers_have_the_published_number_of_parameters(model, published, within):
    architecture = read_architecture(ModelConfig(model))
    denoiser = meta_backbone(architecture, architecture.sizes.native).denoiser
    assert abs(sum(p.numel() for p in denoiser.parameters()) - published) <= within * published
    assert all(p.is_meta and not p.requires_grad for p in denoiser.parameters())


@pytest.mark.parametrize(
    ("model", "size", "gflops"),
    [
        (SD15, Size(512, 512), 803),
        (SDXL, Size(1024, 1024), 6_761),
        (FLUX, Size(512, 512), 21_503),
        (FLUX, Size(1024, 1024), 74_385),
        (WAN, Size(480, 832, 81, 16), 283_002),
        (COG2, Size(480, 720, 49, 8), 119_997),
    ],
)
def test_a_forward_takes_the_known_flops(model, size, gflops):
    backbone = meta_backbone(read_architecture(ModelConfig(model)), size)
    counted = forward_flops(lambda: backbone.predict(backbone.denoiser))
    assert counted / 1e9 == pytest.approx(gflops, rel=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "layers", "width", "hidden", "tokens"),
    [
        (WAN5, 30, 3072, 14336, 31 * 22 * 40),
        (WAN14, 40, 5120, 13824, 21 * 30 * 52),
        (WAN14_I2V, 40, 5120, 13824, 21 * 30 * 52),
    ],
)
def test_a_forward_of_wan_2_2_takes_the_flops_of_its_blocks(model, layers, width, hidden, tokens):
    """Self-attention, cross-attention to 512 tokens of text, feed-forward; all that lies around them is 0.1%."""
    text = 512
    products = 4 * tokens * width + 2 * (tokens + text) * width + 2 * tokens * hidden
    attention = 2 * tokens * tokens + 2 * tokens * text
    architecture = read_architecture(ModelConfig(model))
    backbone = meta_backbone(architecture, architecture.sizes.native)
    counted = forward_flops(lambda: backbone.predict(backbone.denoiser)) / len(networks_of(backbone.denoiser))
    assert counted == pytest.approx(layers * 2 * width * (products + attention), rel=0.001)


@pytest.mark.slow
def test_a_forward_of_hunyuan_video_1_5_takes_the_flops_of_its_blocks():
    """Both streams' products and their joint attention, with 1,000 tokens of text, 256 of glyphs and no image's."""
    layers, width, hidden, tokens = 54, 2048, 8192, 31 * 30 * 53 + 1000 + 256
    architecture = read_architecture(ModelConfig(HUNYUAN))
    backbone = meta_backbone(architecture, architecture.sizes.native)
    counted = forward_flops(lambda: backbone.predict(backbone.denoiser))
    products = tokens * (4 * width + 2 * hidden)
    assert counted == pytest.approx(layers * 2 * width * (products + 2 * tokens * tokens), rel=0.001)


@pytest.mark.slow
def test_a_forward_of_ltx_2_takes_the_flops_of_the_video_s_blocks():
    """Self-attention, cross-attention to 1,024 tokens of text, feed-forward. The audio's one token, and all around the blocks, is 0.1%."""
    layers, width, hidden, tokens, text = 48, 4096, 16384, 16 * 16 * 24, 1024
    products = 4 * tokens * width + 2 * (tokens + text) * width + 2 * tokens * hidden
    architecture = read_architecture(ModelConfig(LTX2))
    backbone = meta_backbone(architecture, architecture.sizes.native)
    counted = forward_flops(lambda: backbone.predict(backbone.denoiser))
    assert counted == pytest.approx(
        layers * 2 * width * (products + 2 * tokens * tokens + 2 * tokens * text), rel=0.001
    )


@pytest.mark.slow
def test_a_forward_of_kontext_takes_the_flops_of_twice_the_image_tokens():
    """57 blocks, 12 width^2 weights for each token and attention over all; what lies around them is 0.1%."""
    width, blocks, text = 3072, 57, 512
    for model, tokens in ((FLUX, text + 4096), (KONTEXT, text + 2 * 4096)):
        backbone = meta_backbone(read_architecture(ModelConfig(model)), Size(1024, 1024))
        counted = forward_flops(lambda backbone=backbone: backbone.predict(backbone.denoiser))
        expected = blocks * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)
        assert counted == pytest.approx(expected, rel=0.001)


def test_a_forward_of_qwen_image_edit_takes_the_flops_of_its_blocks():
    """Both streams have 12 width^2 weights for each token, and attention joins them: noise and source at 1024 x 1024 whatever the
    members' size, the prompt's 512 tokens and the picture's."""
    width, blocks, source = 3072, 60, 4096
    for model, size, seen in ((EDIT, 1024, 37 * 37), (EDIT_2509, 1024, 14 * 14), (EDIT_2509, 512, 14 * 14)):
        backbone = meta_backbone(read_architecture(ModelConfig(model)), Size(size, size))
        counted = forward_flops(lambda backbone=backbone: backbone.predict(backbone.denoiser))
        tokens = (size // 16) ** 2 + source + 512 + seen
        expected = blocks * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)
        assert counted == pytest.approx(expected, rel=0.002)


def test_the_models_own_sizes():
    own = {model: read_architecture(ModelConfig(model)).sizes.native for model in known_architectures()}
    assert own == {
        SD15: Size(512, 512), SDXL: Size(1024, 1024), FLUX: Size(1024, 1024), KONTEXT: Size(1024, 1024), WAN: Size(480, 832, 81, 16.0),
        COG2: Size(480, 720, 49, 8.0), COG5: Size(480, 720, 49, 8.0), SD35M: Size(1024, 1024), SD35L: Size(1024, 1024),
        QWEN: Size(1024, 1024), EDIT: Size(1024, 1024), EDIT_2509: Size(1024, 1024), Z_IMAGE: Size(1024, 1024), TURBO: Size(1024, 1024), KLEIN: Size(1024, 1024), KLEIN_BASE: Size(1024, 1024),
        WAN5: Size(704, 1280, 121, 24.0), WAN14: Size(480, 832, 81, 16.0), WAN14_I2V: Size(480, 832, 81, 16.0), WAN14_1: Size(480, 832, 81, 16.0), HUNYUAN: Size(480, 848, 121, 24.0),
        LTX2: Size(512, 768, 121, 24.0),
    }  # fmt: skip


def test_encoders_have_the_published_number_of_parameters():
    def numbers(model: str) -> dict[str, int]:
        found = meta_text_encoders(read_architecture(ModelConfig(model)))
        return {name: sum(p.numel() for p in network.parameters()) for name, network in found.items()}

    assert numbers(SDXL) == {"text_encoder": 123_060_480, "text_encoder_2": 694_659_840}
    assert numbers(WAN)["text_encoder"] == pytest.approx(5.68e9, rel=0.005)
    assert numbers(WAN5) == numbers(WAN14) == numbers(WAN)
    assert numbers(COG2)["text_encoder"] == pytest.approx(4.76e9, rel=0.005)
    assert numbers(EDIT) == numbers(EDIT_2509) == numbers(QWEN)
    assert numbers(QWEN)["text_encoder"] == pytest.approx(8.29e9, rel=0.005)
    assert numbers(Z_IMAGE)["text_encoder"] == pytest.approx(4.02e9, rel=0.005)
    assert numbers(KLEIN)["text_encoder"] == pytest.approx(4.02e9, rel=0.005)
    head = 152_064 * 3_584  # of Qwen2.5-7B, which the encoder does without
    assert numbers(HUNYUAN)["text_encoder"] == 7_615_616_512 - head
    assert numbers(LTX2) == {"text_encoder": 12_187_325_040}  # google/gemma-3-12b-it
    assert numbers(SD35L)["text_encoder_3"] == pytest.approx(4.76e9, rel=0.005)
    assert sum(p.numel() for p in meta_vae(read_architecture(ModelConfig(SD15))).parameters()) == 83_653_863


def test_the_clip_of_wan_2_1_has_the_published_number_of_parameters():
    """The picture's half of ViT-H/14: 632 million, less the projection that the pipeline does not read."""
    extras = meta_extras(read_architecture(ModelConfig(WAN14_1)))
    assert sum(p.numel() for p in extras["image_encoder"].parameters()) == 632_076_800 - 1280 * 1024


def test_every_shipped_scheduler_and_vae_is_what_its_index_names():
    for model in known_architectures():
        folder = architecture_folder(model)
        index = diffusers.DiffusionPipeline.load_config(folder)
        scheduler = getattr(diffusers, index["scheduler"][1])
        scheduler.from_pretrained(folder, subfolder="scheduler")
        unknown = set(scheduler.load_config(folder, subfolder="scheduler")) - set(scheduler().config) - {"_class_name"}
        assert not unknown, (model, unknown)


def test_names_that_are_not_shipped():
    assert architecture_folder("THUDM/CogVideoX-2b") == architecture_folder(COG2)
    for name in ("miniature", "", "../architectures", "stabilityai", "some/thing"):
        assert architecture_folder(name) is None


@pytest.mark.parametrize("checkpoint", ["tiny_sd", "tiny_sdxl"])
def test_a_local_folder_is_planned_from_its_own_configs(checkpoint, request):
    folder = request.getfixturevalue(checkpoint)
    architecture = read_architecture(ModelConfig(str(folder)))
    real = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    meta = meta_backbone(architecture, Size(16, 32), torch.bfloat16).denoiser
    assert {n: p.shape for n, p in meta.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert {p.dtype for p in meta.parameters()} == {torch.bfloat16}
    assert architecture.sizes.native == Size(16, 16)
    backbone = meta_backbone(architecture, Size(16, 32))
    assert backbone.predict(backbone.denoiser, 3).shape == (3, 4, 8, 16)


def test_paths_without_a_plannable_model(tmp_path):
    with pytest.raises(UserError, match=r"some/thing.*nor a hub id in reach.*zai-org/CogVideoX-2b"):
        read_architecture(ModelConfig("some/thing"))
    with pytest.raises(UserError, match=r"the folder should hold a model_index.json"):
        read_architecture(ModelConfig(str(tmp_path)))
    (tmp_path / "model_index.json").write_text('{"_class_name": "AudioPipeline"}')
    with pytest.raises(UserError, match="is a AudioPipeline; supported are StableDiffusionPipeline"):
        read_architecture(ModelConfig(str(tmp_path)))
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline", "vae": ["diffusers", "AutoencoderKL"]}')
    with pytest.raises(UserError, match="names no transformer"):
        read_architecture(ModelConfig(str(tmp_path)))


def test_learned_positions_fit_the_native_size_alone(tiny_family, tmp_path):
    folder = Path(shutil.copytree(tiny_family("cogvideox-2b"), tmp_path / "learned"))
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "use_learned_positional_embeddings": True}))
    architecture = read_architecture(ModelConfig(str(folder)))
    assert architecture.size() == Size(16, 16, 9, 8.0)
    with pytest.raises(UserError, match="16 x 32; this model's positions are learned for 16 x 16 alone"):
        architecture.size(lambda native: Size(16, 32, 9, 8.0))
