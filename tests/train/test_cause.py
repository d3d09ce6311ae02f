"""NaN that comes from outside is called by its place: a tensor of the model, a row of the cache; encodings with NaN are not kept."""

import json
import shutil

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from support.configs import changed
from support.runs import train_raw

from sipo.backbones import load_backbone
from sipo.backbones.finite import lacks_a_channel
from sipo.config import ModelConfig
from sipo.data.cache.shards import write_shard
from sipo.errors import UserError
from sipo.run import RunDir


@pytest.fixture
def raw(raw_config, tiny_sd_copy):
    return changed(raw_config, f"model.path={tiny_sd_copy}", "train.num_steps=2", "train.sample_every=0",
                   "train.validate_every=0", "data.max_pairs=4", "train.batch_size=4", "train.gradient_accumulation=1")  # fmt: skip


@pytest.fixture
def tiny_sd_copy(tiny_sd, tmp_path):
    return shutil.copytree(tiny_sd, tmp_path / "sd")


def poison(file, name: str, value: float, places: int = 1) -> None:
    tensors = load_file(file)
    (found,) = (each for each in tensors if each.endswith(name))
    tensors[found].view(-1)[:places] = value
    save_file(tensors, file, {"format": "pt"})


def test_a_weight_of_the_denoiser(raw, tiny_sd_copy):
    file = tiny_sd_copy / "unet" / "diffusion_pytorch_model.safetensors"
    name = next(name for name in load_file(file) if name.endswith("to_q.weight"))
    poison(file, name, float("nan"), 3)
    with pytest.raises(
        UserError, match=rf"step 1: NaN or infinity in the model's weights: {name} of the unet .* in 3 of"
    ) as error:
        train_raw(raw)
    assert "pairs.parquet" not in str(error.value)
    assert "lower" not in str(error.value)


def test_a_rate_that_breaks_the_weights_is_not_taken_for_a_broken_file(raw):
    with pytest.raises(UserError, match=r"step 2: NaN or infinity in the .*lower train.learning_rate"):
        train_raw(changed(raw, "policy.kind=full", "train.learning_rate=1e9"))


def test_weights_that_train_are_told_from_frozen_ones(tiny_sd):
    backbone = load_backbone(ModelConfig(str(tiny_sd)))
    weight = backbone.denoiser.conv_in.weight
    weight.data[0, 0, 0, 0] = float("inf")
    assert backbone.nonfinite_weight() == "conv_in.weight of the unet is NaN or infinite in 1 of 576 values"
    weight.requires_grad_(True)
    assert backbone.nonfinite_weight() is not None
    assert backbone.nonfinite_weight(trained=False) is None


@pytest.mark.parametrize(("part", "folder"), [("unet", "unet"), ("vae", "vae")])
def test_samples_of_nan_are_explained_by_the_weight_that_made_them(tiny_sd_copy, part, folder):
    file = tiny_sd_copy / folder / "diffusion_pytorch_model.safetensors"
    name = next(name for name in load_file(file) if name.endswith("conv_out.weight") and "encoder" not in name)
    poison(file, name, float("nan"))
    sampler = load_backbone(ModelConfig(str(tiny_sd_copy))).sampler(2, 1.0)
    with pytest.raises(UserError, match=rf"draws NaN: {name} of the {part} is NaN or infinite in 1 of .*Replace"):
        sampler(["a circle"], [0])


def test_what_nan_leaves_of_a_picture():
    dark = Image.new("RGB", (4, 4))
    lit = Image.new("RGB", (4, 4), (1, 1, 1))
    assert lacks_a_channel(dark)
    assert lacks_a_channel([dark, dark])
    assert lacks_a_channel(Image.new("RGB", (4, 4), (9, 0, 9)))
    assert not lacks_a_channel(lit)
    assert not lacks_a_channel([dark, lit])


def test_a_weight_of_an_encoder(raw, tiny_sd_copy):
    poison(tiny_sd_copy / "vae" / "diffusion_pytorch_model.safetensors", "encoder.conv_in.bias", float("inf"))
    with pytest.raises(
        UserError, match=r"model's weights: encoder\.conv_in\.bias of the vae is NaN or infinite in 1 of"
    ):
        train_raw(raw)


@pytest.mark.parametrize(
    ("part", "file", "name", "said"),
    [
        ("vae", "diffusion_pytorch_model.safetensors", "encoder.conv_in.bias", "the VAE gives NaN or infinity for 4 pairs"),
        ("text_encoder", "model.safetensors", "embeddings.position_embedding.weight",
         "the text encoders give NaN or infinity for .* prompts .*the empty prompt"),
    ],
)  # fmt: skip
def test_encodings_that_are_not_finite_are_never_cached(raw, tiny_sd_copy, tmp_path, part, file, name, said):
    poison(tiny_sd_copy / part / file, name, float("nan"))
    with pytest.raises(UserError, match=rf"(?s){said}.*{name} of the {part} is NaN .*: replace the file"):
        train_raw(changed(raw, f"data.cache={tmp_path / 'cache'}"))
    kind = "pairs" if part == "vae" else "text"
    assert not list((tmp_path / "cache").glob(f"{kind}-*"))


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        ("pairs", "rejected", r"pairs\.parquet:\d+: rejected"),
        ("text", "encoder_hidden_states", "encoder_hidden_states of the prompt"),
    ],
)
def test_a_row_of_the_cache(raw, tmp_path, kind, key, said):
    cache = tmp_path / "cache"
    raw = changed(raw, f"data.cache={cache}")
    train_raw(changed(raw, "train.num_steps=1"))
    (file,) = cache.glob(f"{kind}-*.safetensors")
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors[key][1:].view(-1)[:2] = float("nan")
    write_shard(cache, file.name, save(tensors, metadata))
    manifest = json.loads((cache / "manifest.json").read_text())
    manifest["shards"][file.name] = json.loads((cache / f"{file.name}.seal").read_text())
    (cache / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        UserError, match=rf"step 2: NaN or infinity in what the cache .*cache holds of .*{said}.*Delete the cache"
    ):
        train_raw(raw)
    assert [line["step"] for line in RunDir(raw["run"]).read_metrics("train")] == [1]
