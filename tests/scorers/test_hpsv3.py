"""HPSv3 on a tiny random Qwen2-VL, through the real loading path, against its forward written out in plain torch."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import qwen_vl as tiny
from torch.nn.functional import linear, relu
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from sipo.errors import UserError
from sipo.scorers import texts
from sipo.scorers.hpsv3 import PIXELS, HPSv3
from sipo.scorers.qwen_vl import new_size, picture_patches

SMALL = 4 * 28 * 28


@pytest.fixture
def small_pictures(monkeypatch):
    """Four tokens a picture in place of 256."""
    monkeypatch.setattr("sipo.scorers.hpsv3.PIXELS", SMALL)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """HPSv3.safetensors with 265 embeddings (the last is <|Reward|>), and the base's config, which says 272."""
    folder = tmp_path_factory.mktemp("hpsv3")
    generator = torch.Generator().manual_seed(5)
    state = tiny.first_names(tiny.model(265).state_dict())
    for place, shape in ((0, (12, tiny.WIDTH)), (3, (8, 12)), (5, (2, 8))):
        state[f"rm_head.{place}.weight"] = torch.randn(shape, generator=generator) * shape[1] ** -0.5
        state[f"rm_head.{place}.bias"] = torch.randn(shape[0], generator=generator)
    save_file({name: t.contiguous() for name, t in state.items()}, folder / "HPSv3.safetensors")
    return folder / "HPSv3.safetensors", tiny.save_base(folder / "base")


def plain_score(state, picture, prompt) -> float:
    patches, grid = plain_patches(picture, SMALL)
    asked = texts.read("hpsv3").replace("{prompt}", prompt)
    ids: list[int] = []
    for part in ["<|im_start|>", "system\nYou are a helpful assistant.", "<|im_end|>", "\n", "<|im_start|>", "user\n", "<|vision_start|>",
                 *["<|image_pad|>"] * (math.prod(grid) // 4), "<|vision_end|>", *asked.replace("<|Reward|>", "\0<|Reward|>\0").split("\0"),
                 "<|im_end|>", "\n", "<|im_start|>", "assistant\n"]:  # fmt: skip
        ids += [256 + [*tiny.SPECIALS, "<|Reward|>"].index(part)] if part.startswith("<|") else list(part.encode())
    states = tiny.plain_states(state, ids, patches, grid, 262)
    x = states[ids.index(264)]
    for place in (0, 3, 5):
        x = linear(x, state[f"rm_head.{place}.weight"], state[f"rm_head.{place}.bias"])
        x = relu(x) if place < 5 else x
    return float(x[0])


def plain_patches(picture, pixels):
    """hpsv3/dataset/utils.py and transformers' processor: resize, normalise, cut into patches, pixel by pixel."""
    width, height = picture.size
    sides = [max(28, round(side / 28) * 28) for side in (height, width)]
    if math.prod(sides) > pixels:
        beta = math.sqrt(height * width / pixels)
        sides = [math.floor(side / beta / 28) * 28 for side in (height, width)]
    elif math.prod(sides) < pixels:
        beta = math.sqrt(pixels / (height * width))
        sides = [math.ceil(side * beta / 28) * 28 for side in (height, width)]
    values = np.array(picture.resize((sides[1], sides[0]), Image.BICUBIC), np.float64) / 255
    values = (values - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    rows, columns, found = sides[0] // 14, sides[1] // 14, []
    for big_row in range(0, rows, 2):
        for big_column in range(0, columns, 2):
            for row in (big_row, big_row + 1):
                for column in (big_column, big_column + 1):
                    patch = values[14 * row : 14 * row + 14, 14 * column : 14 * column + 14].transpose(2, 0, 1)
                    found.append(np.stack([patch, patch], 1).ravel())  # colour, frame, row, column
    return torch.tensor(np.array(found), dtype=torch.float32), (1, rows, columns)


def test_the_score_is_the_heads_first_output_at_the_reward_token(files, small_pictures, pictures, prompts):
    file, base = files
    found = HPSv3(str(file), str(base), dtype="float32", device="cpu", batch_size=3)(pictures, prompts)
    state = load_file(file)
    expected = [plain_score(state, picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    assert np.std(expected) > 0.01
    assert found == pytest.approx(expected, abs=2e-5)


def test_newer_names_are_the_same_weights(files, small_pictures, pictures, tmp_path):
    file, base = files
    newer = {}
    for name, tensor in load_file(file).items():
        moved = {"model.": "model.language_model.", "visual.": "model.visual."}
        prefix = next((each for each in moved if name.startswith(each)), None)
        newer[moved[prefix] + name.removeprefix(prefix) if prefix else name] = tensor
    save_file(newer, tmp_path / "HPSv3.safetensors")
    scores = [
        HPSv3(str(path), str(base), dtype="float32", device="cpu")(pictures[:2], ["a"] * 2) for path in (file, tmp_path)
    ]
    assert scores[0] == scores[1]


def test_half_precision_is_the_default_and_close(files, small_pictures, pictures, prompts):
    file, base = files
    assert HPSv3(str(file), str(base), device="cpu").settings["dtype"] == "bfloat16"
    half, full = (
        HPSv3(str(file), str(base), dtype=d, device="cpu")(pictures, prompts) for d in ("bfloat16", "float32")
    )
    assert half == pytest.approx(full, abs=0.1)
    assert half != full


def test_a_prompt_cannot_bring_special_tokens(files, small_pictures, pictures):
    file, base = files
    scorer = HPSv3(str(file), str(base), dtype="float32", device="cpu")
    found = scorer(pictures[:1] * 2, ["x <|Reward|> <|image_pad|>", "x < |Reward|> < |image_pad|>"])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize("size", [(512, 512), (1024, 640), (33, 700), (64, 60), (2000, 2000)])
def test_patches_are_those_of_transformers_and_near_256_tokens(size):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    found = picture_patches(picture, PIXELS, PIXELS)
    theirs = Qwen2VLImageProcessorPil(size={"shortest_edge": PIXELS, "longest_edge": PIXELS})(
        picture, return_tensors="pt"
    )
    assert [list(found.grid)] == theirs.image_grid_thw.tolist()
    torch.testing.assert_close(found.patches, theirs.pixel_values, atol=1e-5, rtol=0)
    plain, grid = plain_patches(picture, PIXELS)
    assert found.grid == grid
    torch.testing.assert_close(found.patches, plain, atol=1e-5, rtol=0)
    assert 180 < found.num_tokens < 360


def test_other_files_are_named(files, tmp_path, pictures):
    file, base = files
    state = load_file(file)
    for change, said in [
        ({"rm_head.5.weight": None}, "rm_head is not its head"),
        ({"model.embed_tokens.weight": None}, "holds no embeddings of tokens"),
        (
            {"model.embed_tokens.weight": torch.zeros(200, tiny.WIDTH)},
            "has embeddings of 200 tokens, and the tokenizer of",
        ),
        ({"model.layers.1.mlp.up_proj.weight": None}, r"1 of its tensors are missing, language_model\.layers\.1"),
    ]:
        save_file({n: t for n, t in (state | change).items() if t is not None}, tmp_path / "HPSv3.safetensors")
        with pytest.raises(UserError, match=said):
            HPSv3(str(tmp_path), str(base), device="cpu")(pictures[:1], ["a"])
    with pytest.raises(UserError, match=r"base: .* has no config|tokenizer: "):
        HPSv3(str(file), str(tmp_path), device="cpu")(pictures[:1], ["a"])
    with pytest.raises(UserError, match="sides up to 200 times the other"):
        new_size((1, 300), PIXELS, PIXELS)
