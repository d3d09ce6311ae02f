"""A pipeline as one file: the names are the original code's, and diffusers' own reader makes the same networks of it."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support import checkpoints
from support.original import same, single_file

from sipo.backbones import load_backbone
from sipo.config import ModelConfig
from sipo.errors import UserError


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    """With text encoders of two widths, by which diffusers tells them apart."""
    return checkpoints.stable_diffusion_xl(tmp_path_factory.mktemp("xl") / "sdxl", second=48)


def without_weights(folder, out):
    return shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.safetensors"))


def test_the_file_is_that_of_the_original_code(tiny_sd, tmp_path):
    load_backbone(ModelConfig(str(tiny_sd))).save_single_file(tmp_path / "ours.safetensors", {"step": "3"})
    ours, theirs = (
        load_file(file)
        for file in (tmp_path / "ours.safetensors", single_file(tiny_sd, tmp_path / "theirs.safetensors"))
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "step": "3"}


@pytest.mark.parametrize("encoders", [True, False])
def test_sdxl_comes_back_through_diffusers(xl, tmp_path, encoders):
    whole, file = load_backbone(ModelConfig(str(xl)), encoders=encoders), tmp_path / "xl.safetensors"
    whole.save_single_file(file, {})
    read = load_backbone(ModelConfig(str(file), config=str(without_weights(xl, tmp_path / "configs"))))
    assert same(read.denoiser, whole.denoiser)
    with whole.encoders():
        for part in ("vae", "text_encoder", "text_encoder_2"):
            assert same(getattr(read.pipeline, part), getattr(whole.pipeline, part)), part


def test_sdxls_names_are_those_by_which_programs_know_it(xl, tmp_path):
    """Stability-AI/generative-models and open_clip; the keys by which ComfyUI and diffusers tell SDXL."""
    load_backbone(ModelConfig(str(xl))).save_single_file(tmp_path / "xl.safetensors", {})
    names = load_file(tmp_path / "xl.safetensors")
    block = "conditioner.embedders.1.model.transformer.resblocks.1"
    expected = {
        "model.diffusion_model.label_emb.0.0.weight", "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
        "conditioner.embedders.0.transformer.text_model.embeddings.position_embedding.weight",
        "conditioner.embedders.1.model.positional_embedding", "conditioner.embedders.1.model.text_projection",
        "conditioner.embedders.1.model.token_embedding.weight", "conditioner.embedders.1.model.ln_final.bias",
        f"{block}.attn.in_proj_weight", f"{block}.attn.in_proj_bias", f"{block}.attn.out_proj.weight", f"{block}.ln_1.weight",
        f"{block}.ln_2.bias", f"{block}.mlp.c_fc.weight", f"{block}.mlp.c_proj.bias",
    }  # fmt: skip
    assert expected <= names.keys()
    own = {name for name in names if name.startswith("conditioner.embedders.1")}
    assert len(own) == 2 * 12 + 5  # 12 tensors a layer; two embeddings, the last norm, the projection
    assert names[f"{block}.attn.in_proj_weight"].shape == (3 * 48, 48)


def test_v_prediction_is_marked(tmp_path):
    folder = checkpoints.stable_diffusion(tmp_path / "sd", "v_prediction")
    load_backbone(ModelConfig(str(folder))).save_single_file(tmp_path / "v.safetensors", {})
    assert "v_pred" in load_file(tmp_path / "v.safetensors")


def test_what_has_no_file_of_its_own_is_refused(tiny_family, tmp_path):
    with pytest.raises(
        UserError,
        match=r"Stable Diffusion 1\.x and XL; programs read a FluxPipeline as several .*: name a folder",
    ):
        load_backbone(ModelConfig(str(tiny_family("flux")))).save_single_file(tmp_path / "x.safetensors", {})
    backbone = load_backbone(ModelConfig(str(tiny_family("sd"))))
    backbone.pipeline.text_encoder.config.hidden_act = "gelu"
    with pytest.raises(UserError, match=r"of Stable Diffusion 2\.x"):
        backbone.save_single_file(tmp_path / "x.safetensors", {})
    assert list(tmp_path.glob("*x.safetensors*")) == []
