"""PickScore, HPSv2, CLIP score and aesthetics: tiny random models through the real loading, against plain formulas."""

import itertools
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn.functional import gelu, layer_norm, linear
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from sipo import registry
from sipo.errors import UsageError, UserError
from sipo.scorers.aesthetic import AestheticHead, LaionAesthetic
from sipo.scorers.clip_score import ClipScore
from sipo.scorers.hps import HPSv2
from sipo.scorers.pickscore import PickScore
from sipo.scorers.preprocess import crop_pixels, pad_pixels

OTHERS = ("hpsv3", "videoreward")  # no CLIP: test_hpsv3.py, test_video_reward.py
SCORERS = [name for name in registry.scorers.own() if registry.miniature(name) is None and name not in OTHERS]


def near(found: list[float], expected: torch.Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(torch.tensor(found), expected.float(), rtol=1e-4, atol=atol)


def plain_features(folder, pictures, prompts) -> tuple[torch.Tensor, torch.Tensor, CLIPModel]:
    """As PickScore's model card has it: transformers' own processor, model and norm; one row at a time."""
    model = CLIPModel.from_pretrained(folder).eval()
    process = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tokenize = CLIPTokenizer.from_pretrained(folder)
    images, texts = [], []
    with torch.no_grad():
        for picture, prompt in zip(pictures, prompts, strict=True):
            pixels = process(images=picture, return_tensors="pt").pixel_values
            images.append(model.get_image_features(pixel_values=pixels).pooler_output[0])
            tokens = tokenize(prompt, truncation=True, max_length=16, return_tensors="pt")
            texts.append(model.get_text_features(**tokens).pooler_output[0])
    images, texts = torch.stack(images), torch.stack(texts)
    return images / images.norm(dim=-1, keepdim=True), texts / texts.norm(dim=-1, keepdim=True), model


def test_pickscore_is_the_scaled_cosine(clip_folder, pictures, prompts):
    images, texts, model = plain_features(clip_folder, pictures, prompts)
    expected = model.logit_scale.exp() * (texts @ images.T).diagonal()
    assert expected.std() > 0.3  # the tiny model tells the pictures apart
    near(PickScore(str(clip_folder), device="cpu")(pictures, prompts), expected.detach())


def test_clip_score_is_the_cosine_in_hundredths_without_its_negative_part(clip_folder, pictures, prompts):
    images, texts, _ = plain_features(clip_folder, pictures, prompts)
    cosines = (texts * images).sum(-1)
    assert (cosines < 0).any()
    assert (cosines > 0).any()
    near(ClipScore(str(clip_folder), device="cpu")(pictures, prompts), torch.clamp(100 * cosines, min=0), atol=1e-4)


def open_clip_features(state, pixels, tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """mlfoundations/open_clip's `CLIP.encode_image` and `encode_text`, on its own names: pre-norm, exact GELU."""

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def block(x, name, heads, mask):
        n, length, width = x.shape
        fused = linear(
            norm(x, f"{name}.ln_1"), state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
        )
        q, k, v = (part.view(n, length, heads, -1).transpose(1, 2) for part in fused.chunk(3, dim=-1))
        weights = (q @ k.transpose(-1, -2) / (width // heads) ** 0.5 + mask).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(n, length, width)
        x = x + linear(mixed, state[f"{name}.attn.out_proj.weight"], state[f"{name}.attn.out_proj.bias"])
        inner = linear(norm(x, f"{name}.ln_2"), state[f"{name}.mlp.c_fc.weight"], state[f"{name}.mlp.c_fc.bias"])
        return x + linear(gelu(inner), state[f"{name}.mlp.c_proj.weight"], state[f"{name}.mlp.c_proj.bias"])

    x = torch.nn.functional.conv2d(pixels, state["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = norm(x + state["visual.positional_embedding"], "visual.ln_pre")
    for i in range(2):
        x = block(x, f"visual.transformer.resblocks.{i}", 2, torch.zeros(()))
    image = norm(x[:, 0], "visual.ln_post") @ state["visual.proj"]

    y = state["token_embedding.weight"][tokens] + state["positional_embedding"][: tokens.shape[1]]
    causal = torch.full((tokens.shape[1],) * 2, float("-inf")).triu(1)
    for i in range(2):
        y = block(y, f"transformer.resblocks.{i}", 2, causal)
    y = norm(y, "ln_final")[torch.arange(len(y)), tokens.argmax(-1)]  # the end token has the highest number
    return image, y @ state["text_projection"]


def expected_hps(path, pictures, prompts) -> torch.Tensor:
    state = torch.load(path, weights_only=True)["state_dict"]
    tokenize, rows = CLIPTokenizer.from_pretrained(path.parent), []
    for picture, prompt in zip(pictures, prompts, strict=True):
        ids = tokenize(prompt, truncation=True, max_length=16).input_ids
        tokens = torch.tensor([ids + [0] * (16 - len(ids))])  # open_clip fills up with zeros
        image, text = open_clip_features(state, pad_pixels(picture, 32)[None], tokens)
        rows.append(torch.cosine_similarity(image, text)[0])
    return torch.stack(rows)


def test_hps_is_the_plain_cosine_of_an_open_clip_checkpoint(open_clip_file, pictures, prompts):
    path, _ = open_clip_file
    expected = expected_hps(path, pictures, prompts)
    assert expected.std() > 0.03
    scorer = HPSv2(str(path), device="cpu")
    assert scorer.name == "hpsv2"
    near(scorer(pictures, prompts), expected)
    near(HPSv2(str(path.parent), device="cpu")(pictures, prompts), expected)


def test_hps_from_safetensors_and_from_a_converted_folder(open_clip_file, hps_safetensors, tmp_path, pictures, prompts):
    path, model = open_clip_file
    expected = expected_hps(path, pictures, prompts)
    tokenizer = str(path.parent)
    near(HPSv2(str(hps_safetensors), tokenizer=tokenizer, device="cpu")(pictures, prompts), expected)
    model.save_pretrained(tmp_path)
    near(HPSv2(str(tmp_path), tokenizer=tokenizer, device="cpu")(pictures, prompts), expected)


def test_hps_versions_read_their_own_file(open_clip_file, tmp_path, pictures, prompts):
    shutil.copytree(open_clip_file[0].parent, tmp_path / "hub")
    scorer = registry.scorers.make("hpsv2.1", weights=str(tmp_path / "hub"), device="cpu")
    assert scorer.name == "hpsv2.1"
    with pytest.raises(UserError, match=r"holds no HPS_v2\.1_compressed\.pt"):
        scorer(pictures[:1], prompts[:1])
    (tmp_path / "hub" / "HPS_v2_compressed.pt").rename(tmp_path / "hub" / "HPS_v2.1_compressed.pt")
    near(scorer(pictures, prompts), expected_hps(open_clip_file[0], pictures, prompts))
    with pytest.raises(UsageError, match=r"none of 2\.0, 2\.1"):
        HPSv2(version="3")


def test_the_converted_weights_are_the_transformers_models(open_clip_file):
    from sipo.scorers.open_clip import load_open_clip

    path, model = open_clip_file
    loaded = load_open_clip(torch.load(path, weights_only=True)["state_dict"], path, torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for part in ("vision_config", "text_config"):
        ours, theirs = (getattr(m.config, part).to_dict() for m in (loaded, model))
        assert {k for k in theirs if ours[k] != theirs[k]} <= {"dtype"}


def test_aesthetics_are_one_affine_map_of_the_unit_features(clip_folder, head_file, pictures, prompts):
    model, state = CLIPModel.from_pretrained(clip_folder).eval(), torch.load(head_file, weights_only=True)
    rows = []
    with torch.no_grad():
        for picture in pictures:
            x = model.get_image_features(pixel_values=crop_pixels(picture, 32)[None]).pooler_output[0].double()
            x = x / x.norm()
            for layer in (0, 2, 4, 6, 7):
                x = state[f"layers.{layer}.weight"].double() @ x + state[f"layers.{layer}.bias"].double()
            rows.append(x[0])
    expected = torch.stack(rows)
    assert expected.std() > 0.02
    scorer = LaionAesthetic(str(head_file), clip=str(clip_folder), device="cpu")
    near(scorer(pictures, prompts), expected)
    near(scorer(pictures, ["" for _ in prompts]), expected)


def test_the_official_heads_names_and_shapes():
    shapes = {name: tuple(tensor.shape) for name, tensor in AestheticHead().state_dict().items()}
    widths = [768, 1024, 128, 64, 16, 1]
    expected = {}
    for layer, (width, following) in zip((0, 2, 4, 6, 7), itertools.pairwise(widths), strict=True):
        expected |= {f"layers.{layer}.weight": (following, width), f"layers.{layer}.bias": (following,)}
    assert shapes == expected
    assert [part.p for part in AestheticHead().layers if isinstance(part, torch.nn.Dropout)] == [0.2, 0.2, 0.1]


def everyone(clip_folder, open_clip_file, head_file, image_reward_folder, **settings) -> dict:
    weights = {"pickscore": clip_folder, "clip": clip_folder, "hpsv2": open_clip_file[0], "hpsv2.1": open_clip_file[0],
               "imagereward": image_reward_folder, "aesthetic": head_file}  # fmt: skip
    assert set(weights) == set(SCORERS)
    made = {name: registry.scorers.make(name, weights=str(weights[name]), device="cpu", **settings) for name in SCORERS}
    return made | {"aesthetic": replace(made["aesthetic"], clip=str(clip_folder))}


@pytest.fixture
def folders(clip_folder, open_clip_file, head_file, image_reward_folder):
    return clip_folder, open_clip_file, head_file, image_reward_folder


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_a_score_depends_on_its_own_medium_alone(folders, name, pictures, prompts):
    scorer = everyone(*folders, batch_size=3)[name]
    assert scorer.name == name
    together = torch.tensor(scorer(pictures, prompts))
    alone = torch.tensor([scorer([picture], [prompt])[0] for picture, prompt in zip(pictures, prompts, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    backwards = torch.tensor(scorer(pictures[::-1], prompts[::-1])).flip(0)
    torch.testing.assert_close(together, backwards, rtol=1e-5, atol=1e-5)
    assert len(set(together.tolist())) > 1
    assert all(isinstance(value, float) for value in scorer(pictures, prompts))


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_half_precision_is_near_full_and_computed_in_half(folders, name, pictures, prompts):
    full = torch.tensor(everyone(*folders)[name](pictures, prompts))
    half = torch.tensor(everyone(*folders, dtype="bfloat16")[name](pictures, prompts))
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1 * float(full.abs().max()))


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_settings_are_what_numbers_depend_on(folders, name):
    one, other = (everyone(*folders, batch_size=size)[name] for size in (1, 5))
    assert one.settings == other.settings
    assert one.settings != everyone(*folders, dtype="bfloat16")[name].settings
    assert {"weights", "dtype"} <= one.settings.keys()


def test_impossible_settings_are_named():
    for settings, said in [
        ({"dtype": "float8"}, "none of float32, bfloat16, float16"),
        ({"batch_size": 0}, "at least 1"),
        ({"device": "gpu"}, "is unknown"),
    ]:
        with pytest.raises(UsageError, match=said):
            PickScore(**settings)


def test_videos_need_frame_mean(clip_folder, pictures):
    with pytest.raises(ValueError, match="FrameMean"):
        PickScore(str(clip_folder), device="cpu")([[Image.new("RGB", (8, 8))]], ["a"])
