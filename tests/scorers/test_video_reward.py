"""VideoReward on a tiny random Qwen2-VL in peft's wrapper, through the real loading path, against its forward in plain torch."""

import json
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from support import qwen_vl as tiny
from support.videos import noise, video

from sipo import registry
from sipo.errors import UserError
from sipo.scorers import texts
from sipo.scorers.base import ConfiguredScorer, FileScorer
from sipo.scorers.choice import load_scorer
from sipo.scorers.video_reward import VideoReward, frame_places, resize
from sipo.scorers.video_reward_checkpoint import Recipe, merge_lora

CONFIG = {
    "data_config": {"meta_data": "x", "fps": 2.0, "num_frames": None, "max_frame_pixels": 6 * 28 * 28,
                    "prompt_template_type": "detailed_special", "sample_type": "uniform", "eval_dim": ["VQ", "MQ", "TA"]},
    "model_config": {"output_dim": 1, "use_special_tokens": True, "reward_token": "special"},
    "peft_lora_config": {"lora_enable": True, "lora_r": 4, "lora_alpha": 6, "use_rslora": False},
    "inference_config": {"VQ_mean": 3.6757, "VQ_std": 2.2476, "MQ_mean": 1.1646, "MQ_std": 1.3811, "TA_mean": 2.8105, "TA_std": 2.5121},
}  # fmt: skip
SHORT = "\nVisual: <|VQ_reward|>\nMotion: <|MQ_reward|>\n\nTextual prompt - {prompt}\nAlignment: <|TA_reward|>\nEND\n"
PROMPTS = ["a red dog", "two cats, one of them asleep on a very long sofa", "sky"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Frames of 4 to 6 tokens in place of 128 to 256."""
    monkeypatch.setattr("sipo.scorers.video_reward.MIN_PIXELS", 4 * 28 * 28)


@pytest.fixture
def short_text(monkeypatch):
    monkeypatch.setattr(texts, "read", {"videoreward": SHORT}.__getitem__)


def checkpoint(folder: Path, outputs: int, **lora) -> dict[str, torch.Tensor]:
    """Write what VideoAlign writes: peft's state dict under the names of transformers 4.45. Returns peft's merged weights."""
    whole = tiny.model(267)
    layers = [n for n, m in whole.named_modules() if isinstance(m, torch.nn.Linear) and "language_model" in n]
    settings = {**CONFIG["peft_lora_config"], **lora}
    wrapped = get_peft_model(
        whole,
        LoraConfig(r=settings["lora_r"], lora_alpha=settings["lora_alpha"], use_rslora=settings["use_rslora"], target_modules=layers),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    head = torch.randn(outputs, tiny.WIDTH, generator=generator)
    state = {
        name.replace("base_model.model.model.visual.", "base_model.model.visual.").replace(
            "base_model.model.model.language_model.", "base_model.model.model."
        ): tensor.clone()
        for name, tensor in wrapped.state_dict().items()
    }
    assert "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight" in state
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight" in state
    (folder / "checkpoint-10").mkdir(parents=True)
    torch.save(state | {"base_model.model.rm_head.weight": head}, folder / "checkpoint-10" / "model.pth")
    config = CONFIG | {"peft_lora_config": settings}
    (folder / "model_config.json").write_text(json.dumps(config))
    merged = tiny.first_names(wrapped.merge_and_unload().state_dict())
    return {**{n: t.detach().clone() for n, t in merged.items()}, "rm_head.weight": head}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(the checkpoint's folder, the base, peft's merged weights); an older checkpoint beside it is of no use."""
    folder = tmp_path_factory.mktemp("videoreward")
    state = checkpoint(folder / "VideoReward", 1)
    (folder / "VideoReward" / "checkpoint-9").mkdir()
    return folder / "VideoReward", tiny.save_base(folder / "base"), state


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """4 of 13 frames at 6 a second, 6 of 9 at 3 (no resizing but its limits), 2 of 3: awkward sizes and lengths."""
    folder = tmp_path_factory.mktemp("videos")
    found = []
    for i, (count, fps, size) in enumerate(((13, 6, (64, 48)), (9, 3, (56, 84)), (3, 8, (96, 32)))):
        found.append(folder / f"{i}.mp4")
        found[-1].write_bytes(video(noise(count, size, seed=i), fps))
    return found


def plain_places(total: int, rate: float, fps: float = 2.0) -> list[int]:
    """vision_process.py's smart_nframes and its uniform sampling, in floats."""
    most = math.floor(min(768, total) / 2) * 2
    count = min(max(total / rate * fps, 4), most)
    count = round(count / 2) * 2
    return [round(i) for i in np.linspace(0, total - 1, count, dtype=np.float32).tolist()]


def plain_patches(file: Path, rate: float) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Frames by PyAV, resized to whole levels, normalised and cut: two frames, 14 x 14 pixels, four neighbours in turn."""
    with av.open(str(file)) as opened:
        pictures = [frame.to_image() for frame in opened.decode(video=0)]
    pictures = [pictures[i] for i in plain_places(len(pictures), rate)]
    width, height = pictures[0].size
    least, most = 4 * 28 * 28, 6 * 28 * 28
    sides = [max(28, round(side / 28) * 28) for side in (height, width)]
    if math.prod(sides) > most:
        sides = [math.floor(side / math.sqrt(height * width / most) / 28) * 28 for side in (height, width)]
    elif math.prod(sides) < least:
        sides = [math.ceil(side * math.sqrt(least / (height * width)) / 28) * 28 for side in (height, width)]
    whole = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    levels = resize(whole, *sides).double().permute(0, 2, 3, 1).numpy()  # (T, H, W, 3); `resize` has a test of its own
    values = (levels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    rows, columns, found = sides[0] // 14, sides[1] // 14, []
    for start in range(0, len(values), 2):
        for big_row in range(0, rows, 2):
            for big_column in range(0, columns, 2):
                for row in (big_row, big_row + 1):
                    for column in (big_column, big_column + 1):
                        part = values[start : start + 2, 14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
                        found.append(part.transpose(3, 0, 1, 2).ravel())  # colour, frame, row, column
    return torch.tensor(np.array(found), dtype=torch.float32), (len(values) // 2, rows, columns)


def plain_values(state, file: Path, rate: float, prompt: str, text: str) -> list[float]:
    """trainer.py's forward: the head at the three special tokens, in the text's order."""
    patches, grid = plain_patches(file, rate)
    specials = [*tiny.SPECIALS, "<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>"]
    asked = text.replace("{prompt}", prompt)
    for token in specials[-3:]:
        asked = asked.replace(token, f"\0{token}\0")
    ids: list[int] = []
    for part in ["<|im_start|>", "system\nYou are a helpful assistant.", "<|im_end|>", "\n", "<|im_start|>", "user\n", "<|vision_start|>",
                 *["<|video_pad|>"] * (math.prod(grid) // 4), "<|vision_end|>", *asked.split("\0"),
                 "<|im_end|>", "\n", "<|im_start|>", "assistant\n"]:  # fmt: skip
        ids += [256 + specials.index(part)] if part.startswith("<|") else list(part.encode())
    states = tiny.plain_states(state, ids, patches, grid, 263)
    logits = states[[i for i, each in enumerate(ids) if each >= 264]] @ state["rm_head.weight"].T  # (3, outputs)
    return [float(logits[i, i if logits.shape[1] == 3 else 0]) for i in range(3)]


def normalised(values: list[float]) -> dict[str, float]:
    vq, mq, ta = (values[0] - 3.6757) / 2.2476, (values[1] - 1.1646) / 1.3811, (values[2] - 2.8105) / 2.5121
    return {"score": vq + mq + ta, "VQ": vq, "MQ": mq, "TA": ta}


RATES = (6, 3, 8)


def test_the_score_is_the_normalised_sum_of_the_head_at_three_tokens(files, videos, short_text):
    folder, base, state = files
    scorer = VideoReward(str(folder), str(base), dtype="float32", device="cpu")
    found = scorer.score_files(videos, PROMPTS)
    expected = [normalised(plain_values(state, *each, SHORT)) for each in zip(videos, RATES, PROMPTS, strict=True)]
    assert np.std([each["score"] for each in expected]) > 0.05
    assert min(np.ptp([each[d] for each in expected]) for d in ("VQ", "MQ", "TA")) > 0.01
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=5e-5)


def test_the_published_text_is_asked_whole(files, videos):
    folder, base, state = files
    found = VideoReward(str(folder), str(base), dtype="float32", device="cpu").score_files(videos[2:], PROMPTS[2:])
    text = texts.read("videoreward")
    assert [text.count(f"<|{each}_reward|>") for each in ("VQ", "MQ", "TA")] == [1, 1, 1]
    assert (text[0], text[-5:]) == ("\n", "\nEND\n")
    assert found[0] == pytest.approx(normalised(plain_values(state, videos[2], 8, "sky", text)), abs=5e-5)


@pytest.mark.parametrize("lora", [{"use_rslora": True}, {"lora_r": 2, "lora_alpha": 7}])
def test_a_head_of_three_outputs_takes_its_own_at_each_token_and_any_scale_of_lora(
    tmp_path, files, videos, short_text, lora
):
    state = checkpoint(tmp_path, 3, **lora)
    found = VideoReward(str(tmp_path), str(files[1]), dtype="float32", device="cpu").score_files(
        videos[:1], PROMPTS[:1]
    )
    assert found[0] == pytest.approx(normalised(plain_values(state, videos[0], 6, PROMPTS[0], SHORT)), abs=5e-5)


def test_weights_may_be_the_file_its_folder_or_merged_already(files, videos, short_text, tmp_path):
    folder, base, state = files
    (tmp_path / "model_config.json").write_text(json.dumps(CONFIG))
    torch.save(state, tmp_path / "model.pth")
    paths = [folder, folder / "checkpoint-10", folder / "checkpoint-10" / "model.pth", tmp_path]
    scores = [
        VideoReward(str(path), str(base), dtype="float32", device="cpu").score_files(videos[2:], ["a"])[0]["score"]
        for path in paths
    ]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-5)


def test_without_constants_the_values_are_the_heads_own(files, videos, short_text, tmp_path):
    _, base, state = files
    (tmp_path / "model_config.json").write_text(
        json.dumps({k: v for k, v in CONFIG.items() if k != "inference_config"})
    )
    torch.save(state, tmp_path / "model.pth")
    found = VideoReward(str(tmp_path), str(base), dtype="float32", device="cpu").score_files(videos[:1], ["a"])[0]
    values = plain_values(state, videos[0], 6, "a", SHORT)
    assert [found[d] for d in ("VQ", "MQ", "TA")] == pytest.approx(values, abs=5e-5)
    assert found["score"] == pytest.approx(sum(values), abs=1e-4)


def test_it_is_listed_reads_files_and_is_bfloat16(files, videos, short_text):
    folder, base, _ = files
    scorer = load_scorer("videoreward", str(folder), "cpu", batch_size=3)
    assert isinstance(scorer, VideoReward)
    assert isinstance(scorer, FileScorer)
    assert isinstance(scorer, ConfiguredScorer)
    assert scorer.settings == {"weights": str(folder), "base": "Qwen/Qwen2-VL-2B-Instruct", "dtype": "bfloat16"}
    assert "videoreward" in registry.scorers.names()
    half, full = (
        VideoReward(str(folder), str(base), dtype=d, device="cpu").score_files(videos, PROMPTS)
        for d in ("bfloat16", "float32")
    )
    assert [each["score"] for each in half] == pytest.approx([each["score"] for each in full], abs=0.2)
    assert half != full


def test_a_broken_video_spoils_no_other_and_prompts_bring_no_tokens(files, videos, short_text, tmp_path):
    folder, base, _ = files
    scorer = VideoReward(str(folder), str(base), dtype="float32", device="cpu")
    for name, content in (("broken.mp4", b"nothing"), ("one.mp4", video(noise(1), 8))):
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    bad = [tmp_path / name for name in ("broken.mp4", "one.mp4", "picture.png", "missing.mp4")]
    found = scorer.score_files([*bad, videos[2], videos[2]], ["a"] * 4 + ["x <|VQ_reward|>", "x < |VQ_reward|>"])
    assert [sorted(each) for each in found[:4]] == [["error"]] * 4
    assert "a video of one frame" in found[1]["error"]
    assert "mp4, mov" in found[2]["error"]
    assert found[4] == pytest.approx(found[5], abs=1e-6)
    assert scorer.score_files(bad[:1], ["a"]) == found[:1]


RECIPE = Recipe(fps=2.0, num_frames=None, max_pixels=200704, lora_scale=2.0, norms=((0.0, 1.0),) * 3)


def test_frames_are_those_of_videoalign():
    for total in (*range(2, 60), 81, 97, 121, 480, 2000):
        for rate in (1, 5, 8, 12, 15, 16, 24, 25, 30, 60):
            found = frame_places(total, Fraction(total, rate), RECIPE)
            assert found == plain_places(total, rate), (total, rate)
            assert len(found) % 2 == 0
    assert len(frame_places(49, Fraction(49, 8), RECIPE)) == 12  # CogVideoX
    assert len(frame_places(81, Fraction(81, 16), RECIPE)) == 10  # Wan
    fixed = Recipe(**{**RECIPE.__dict__, "num_frames": 8})
    assert frame_places(15, Fraction(1), fixed) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert frame_places(3, Fraction(1), fixed) == [0, 1, 2]


@pytest.mark.parametrize("size", [(56, 84), (28, 140), (112, 56)])
def test_frames_are_resized_as_pillow_does_within_two_levels(size):
    """Pillow's bicubic and antialiasing, in bytes; it rounds and clips after each direction, so levels stay off the ends."""
    frames = [each // 2 + 64 for each in noise(2, (80, 72))]
    ours = resize(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), *size) * 255
    theirs = np.stack(
        [np.asarray(Image.fromarray(each).resize(size[::-1], Image.Resampling.BICUBIC)) for each in frames]
    )
    difference = (ours - torch.from_numpy(theirs).permute(0, 3, 1, 2)).abs()
    assert difference.max() <= 2
    assert difference.mean() < 0.5
    assert (ours - ours.round()).abs().max() < 1e-4
    loud = resize(torch.from_numpy(np.stack(noise(2, (80, 72)))).permute(0, 3, 1, 2), *size)
    assert (loud.min(), loud.max()) == (0, 1)  # overshoot is clipped


def test_other_checkpoints_are_named(files, tmp_path, videos):
    folder, base, _ = files
    state = torch.load(folder / "checkpoint-10" / "model.pth", weights_only=True)
    weight = "base_model.model.model.layers.1.mlp.up_proj"

    def said(config: object = CONFIG, **changed) -> str:
        (tmp_path / "model_config.json").write_text(json.dumps(config))
        content = {k: v for k, v in (state | changed.get("tensors", {})).items() if v is not None}
        torch.save(content, tmp_path / "model.pth")
        with pytest.raises(UserError) as error:
            VideoReward(str(tmp_path), str(base), device="cpu").score_files(videos[:1], ["a"])
        return str(error.value)

    def changed(section: str, **values) -> dict:
        return CONFIG | {section: CONFIG[section] | values}

    assert "prompt_template_type is 'simple'; this scorer knows 'detailed_special'" in said(
        changed("data_config", prompt_template_type="simple")
    )
    assert "sample_type is 'multi_pts'" in said(changed("data_config", sample_type="multi_pts"))
    assert "fps is None; expected a positive number" in said(changed("data_config", fps=None))
    assert "VQ_std is 0; expected a positive number" in said(changed("inference_config", VQ_std=0))
    assert "TA_mean is '1'; expected a number" in said(changed("inference_config", TA_mean="1"))
    assert "peft_lora_config is []; expected an object" in said(CONFIG | {"peft_lora_config": []})
    assert "lacks data_config" in said({})
    assert "rm_head.weight is missing" in said(tensors={"base_model.model.rm_head.weight": None})
    assert "rm_head.weight is of shape (2, 32)" in said(tensors={"base_model.model.rm_head.weight": torch.zeros(2, 32)})
    assert "lacks a part of model.layers.1.mlp.up_proj" in said(tensors={f"{weight}.lora_A.default.weight": None})
    assert "lacks a part of model.layers.1.mlp.up_proj" in said(tensors={f"{weight}.base_layer.weight": None})
    assert "do not fit its weight" in said(tensors={f"{weight}.lora_A.default.weight": torch.zeros(3, 32)})
    assert "of adapters LoRA on linear layers alone" in said(
        tensors={f"{weight}.lora_embedding_A.default": torch.zeros(2)}
    )


def test_missing_files_are_named(tmp_path, files):
    def said(path: Path) -> str:
        with pytest.raises(UserError) as error:
            VideoReward(str(path), str(files[1]), device="cpu").score_files([tmp_path / "a.mp4"], ["a"])
        return str(error.value)

    assert "there is no" in said(tmp_path / "nowhere")
    assert "holds model_config.json" in said(tmp_path)
    (tmp_path / "model_config.json").write_text("{")
    assert "holds no model.pth" in said(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    assert "holds adapters alone; expected model.pth" in said(tmp_path)
    (tmp_path / "model.pth").write_bytes(b"")
    assert "is not JSON" in said(tmp_path)


def test_frequencies_are_those_of_a_model_cast_to_bfloat16(files):
    """As VideoAlign and HPSv3 cast theirs; transformers alone would keep them exact."""
    folder, base, _ = files
    model = VideoReward(str(folder), str(base), dtype="float32", device="cpu")._loaded[1].network
    text, eye = model.language_model.rotary_emb.inv_freq, model.visual.rotary_pos_emb.inv_freq
    assert (text.dtype, eye.dtype) == (torch.float32, torch.float32)
    half = tiny.WIDTH // tiny.HEADS
    exact = 1e6 ** -(torch.arange(0, half, 2) / half)
    assert torch.equal(text, exact.bfloat16().float())
    assert not torch.equal(text, exact)
    assert torch.equal(eye, eye.bfloat16().float())


def test_lora_is_merged_in_float32():
    base, a, b = torch.randn(6, 5).bfloat16(), torch.randn(2, 5).bfloat16(), torch.randn(6, 2).bfloat16()
    names = ("base_layer.weight", "lora_A.default.weight", "lora_B.default.weight")
    tensors = {f"base_model.model.x.{n}": t for n, t in zip(names, (base, a, b), strict=True)}
    found = merge_lora(tensors, 1.5, torch.float32, "it")
    assert list(found) == ["x.weight"]
    torch.testing.assert_close(
        found["x.weight"].double(), base.double() + 1.5 * b.double() @ a.double(), rtol=0, atol=1e-5
    )
