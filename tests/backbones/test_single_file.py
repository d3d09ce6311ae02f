"""Checkpoints as people have them: one file, another VAE in a file, fp16 alone, Git LFS pointers."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from support import checkpoints
from support.original import flux_file, same, single_file, wan_file

from sipo.backbones import load_backbone, read_architecture
from sipo.config import ModelConfig
from sipo.errors import UserError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 492265168\n"


@pytest.fixture(scope="module")
def configs(tiny_sd, tmp_path_factory) -> Path:
    """The folder of a checkpoint without any weights, as `hf download --include '*.json'` brings it."""
    folder = tmp_path_factory.mktemp("configs") / "sd"
    shutil.copytree(tiny_sd, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def file(tiny_sd, tmp_path_factory) -> Path:
    return single_file(tiny_sd, tmp_path_factory.mktemp("file") / "merged.safetensors")


@pytest.mark.parametrize("encoders", [True, False])
def test_one_file_is_the_folder(tiny_sd, configs, file, encoders):
    model = ModelConfig(str(file), config=str(configs))
    ours, theirs = load_backbone(model, encoders=encoders), load_backbone(ModelConfig(str(tiny_sd)))
    assert same(ours.denoiser, theirs.denoiser)
    assert (ours.pipeline.vae is None) == (not encoders)
    with ours.encoders():
        assert same(ours.pipeline.vae, theirs.pipeline.vae)
        assert torch.equal(
            ours.encode_prompts(["a b"])["encoder_hidden_states"],
            theirs.encode_prompts(["a b"])["encoder_hidden_states"],
        )
    assert read_architecture(model).sizes == theirs.adapter.sizes


@pytest.mark.parametrize(("name", "prefix"), [("wan", ""), ("wan", "model.diffusion_model."), ("wan2.2-5b", "")])
def test_wan_as_it_is_published(tiny_family, tmp_path, name, prefix):
    """The file holds the transformer alone; the rest comes from the folder of the configs."""
    folder = tiny_family(name)
    file = wan_file(folder, tmp_path / "wan.safetensors", prefix)
    ours, theirs = load_backbone(ModelConfig(str(file), config=str(folder))), load_backbone(ModelConfig(str(folder)))
    assert same(ours.denoiser, theirs.denoiser)
    assert same(ours.pipeline.vae, theirs.pipeline.vae)
    assert same(ours.pipeline.text_encoder, theirs.pipeline.text_encoder)


def test_one_of_two_transformers_is_no_whole_model(tiny_family, tmp_path):
    folder = tiny_family("wan2.2-14b")
    file = wan_file(folder, tmp_path / "high.safetensors")
    with pytest.raises(
        UserError, match=r"is one file; a WanPipeline of transformer and transformer_2 is read from a f"
    ):
        load_backbone(ModelConfig(str(file), config=str(folder)))


def test_flux_in_one_file_of_diffusers_names(tiny_family, tmp_path):
    folder = tiny_family("flux")
    file = tmp_path / "flux.safetensors"
    shutil.copy(folder / "transformer" / "diffusion_pytorch_model.safetensors", file)
    ours, theirs = load_backbone(ModelConfig(str(file), config=str(folder))), load_backbone(ModelConfig(str(folder)))
    assert same(ours.denoiser, theirs.denoiser)
    for part in ("vae", "text_encoder", "text_encoder_2"):
        assert same(getattr(ours.pipeline, part), getattr(theirs.pipeline, part))


@pytest.mark.slow
def test_flux_as_it_is_published(tmp_path):
    """diffusers' converter knows FLUX's own width alone, 3,072: one block of each kind, a gigabyte."""
    folder = checkpoints.flux(tmp_path / "flux")
    torch.manual_seed(1)
    network = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=128, num_attention_heads=24,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(16, 56, 56), guidance_embeds=True,
    ).to(torch.bfloat16)  # fmt: skip
    network.save_pretrained(folder / "transformer")
    file = flux_file(network, tmp_path / "flux.safetensors")
    model = ModelConfig(str(file), config=str(folder), dtype="bfloat16")
    assert same(load_backbone(model, dtype=torch.bfloat16, encoders=False).denoiser, network)


def test_a_file_without_a_vae_takes_that_of_the_configs(tiny_sd, tmp_path):
    file = single_file(tiny_sd, tmp_path / "a.safetensors", with_vae=False)
    ours = load_backbone(ModelConfig(str(file), config=str(tiny_sd)))
    assert same(ours.pipeline.vae, load_backbone(ModelConfig(str(tiny_sd))).pipeline.vae)


def test_another_file_is_another_cache(tiny_sd, configs, file, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, other)
    prints = [load_backbone(ModelConfig(str(f), config=str(configs))).fingerprint() for f in (file, other)]
    assert prints[0] != prints[1]


@pytest.mark.parametrize("layout", ["diffusers", "original"])
def test_a_vae_in_one_file(tiny_sd, file, tmp_path, layout):
    weights = load_file(tiny_sd / "vae" / "diffusion_pytorch_model.safetensors")
    if layout == "original":
        prefix = "first_stage_model."
        weights = {name: value for name, value in load_file(file).items() if name.startswith(prefix)}
    weights = {name: value * 2 for name, value in weights.items()}
    save_file(weights, tmp_path / "vae-ft-mse.safetensors")
    ours = load_backbone(ModelConfig(str(tiny_sd), vae=str(tmp_path / "vae-ft-mse.safetensors"))).pipeline.vae
    base = load_backbone(ModelConfig(str(tiny_sd))).pipeline.vae
    assert torch.equal(ours.encoder.conv_in.weight, 2 * base.encoder.conv_in.weight)
    assert torch.equal(
        ours.decoder.mid_block.attentions[0].to_q.weight, 2 * base.decoder.mid_block.attentions[0].to_q.weight
    )


def test_what_cannot_be_read_is_named(tiny_sd, configs, file, tmp_path):
    (tmp_path / "old.ckpt").write_bytes(b"pickle")
    unknown = tmp_path / "unknown.safetensors"
    save_file({"something.weight": torch.zeros(2)}, unknown)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:1000])
    pointer = tmp_path / "pointer.safetensors"
    pointer.write_bytes(POINTER)
    for path, config, message in [
        (tmp_path / "old.ckpt", None, "is pickled"),
        (unknown, None, "cannot tell what .*model.config: a folder in diffusers layout.*from_single_file"),
        (unknown, configs, "lacks .* weights|does not load"),
        (cut, configs, "not a whole .safetensors file"),
        (pointer, configs, "Git LFS pointer"),
    ]:
        with pytest.raises(UserError, match=f"(?s){message}"):
            load_backbone(ModelConfig(str(path), config=str(config) if config else None))
    with pytest.raises(
        UserError, match=r"model.vae: the single file .*unknown.safetensors does not load as a AutoencoderKL"
    ):
        load_backbone(ModelConfig(str(tiny_sd), vae=str(unknown)))


def test_a_folder_of_fp16_files_needs_no_variant(tiny_sd, tmp_path):
    StableDiffusionPipeline.from_pretrained(tiny_sd, dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
    ours, named = (load_backbone(ModelConfig(str(tmp_path), variant=v)) for v in (None, "fp16"))
    assert same(ours.denoiser, named.denoiser)
    assert same(ours.pipeline.text_encoder, named.pipeline.text_encoder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pointer_in_a_folder_is_named(tiny_sd, tmp_path, part):
    folder = Path(shutil.copytree(tiny_sd, tmp_path / "sd"))
    weights = next((folder / part).glob("*.safetensors"))
    weights.write_bytes(POINTER)
    with pytest.raises(UserError, match=f"{part}/{weights.name} is a Git LFS pointer.*git lfs pull"):
        load_backbone(ModelConfig(str(folder)))
