"""Checkpoints, adapters and videos that do not fit, as a user meets them: one message, exit status 1 or 2, no traceback."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.checkpoints import FAMILIES
from support.command_line import run
from support.videos import noise, video


@pytest.fixture
def sipo(raw_config, tiny_family, tmp_path, monkeypatch, capfd):
    """sipo(command, family, model=..., data=...) -> exit status and what is said, on a tiny checkpoint."""

    def call(command: str, family: str, model: dict | None = None, data: dict | None = None, ok: bool = False):
        raw = {**raw_config, "model": {"path": str(tiny_family(family)), **(model or {})}}
        raw["data"] = {**raw["data"], **FAMILIES[family][1], **(data or {})}
        raw["train"] = {**raw["train"], "num_steps": 1}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(raw))
        status, printed, complaints = run(monkeypatch, capfd, command, config)
        assert status == 0 if ok else status in (1, 2), printed + complaints
        assert ok or complaints.count("error:") == 1
        return " ".join(complaints.split())

    return call


@pytest.fixture
def broken(tiny_family, tmp_path):
    """broken(family, **index): a copy of its checkpoint, with some keys of model_index.json changed."""

    def make(family: str, **index) -> Path:
        folder = Path(shutil.copytree(tiny_family(family), tmp_path / "broken"))
        keys = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps(keys | index))
        return folder

    return make


@pytest.fixture
def clips(tmp_path):
    """A manifest of three pairs of 18 frames; the rejected one of the second has 3."""
    lines = []
    for i in range(3):
        for member in range(2):
            frames = 3 if (i, member) == (1, 1) else 18
            (tmp_path / f"{i}-{member}.mp4").write_bytes(video(noise(frames, (40, 32), seed=2 * i + member), fps=16))
        lines.append(json.dumps({"prompt": "a", "chosen": f"{i}-0.mp4", "rejected": f"{i}-1.mp4"}))
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    return tmp_path / "clips.jsonl"


@pytest.mark.parametrize("command", ["train", "plan"])
@pytest.mark.parametrize(
    ("of", "named", "message"),
    [
        (
            "wan",
            "CogVideoXPipeline",
            "whose transformer is a CogVideoXTransformer3DModel; its own is a WanTransformer3D",
        ),
        ("cogvideox-5b", "WanPipeline", "whose transformer is a WanTransformer3DModel; its own is a CogVideoXTransf"),
        ("sd", "FluxPipeline", "names no transformer"),
        ("sd", "StableDiffusionXLPipeline", "which has 2 text encoder(s); it has 1"),
        ("sdxl", "StableDiffusionPipeline", "which has 1 text encoder(s); it has 2"),
        ("sd", "KandinskyPipeline", "is a KandinskyPipeline; supported are StableDiffusionPipeline"),
    ],
)
def test_a_checkpoint_of_another_family(sipo, broken, command, of, named, message):
    folder = broken(of, _class_name=named)
    said = sipo(command, of, {"path": str(folder)})
    assert message in said
    assert str(folder) in said


@pytest.mark.parametrize(
    ("family", "part"),
    [("sd", "unet"), ("sd", "scheduler"), ("sd", "tokenizer"), ("wan", "vae"), ("flux", "text_encoder_2")],
)
def test_a_missing_component(sipo, broken, clips, family, part):
    folder = broken(family)
    shutil.rmtree(folder / part)
    data = {"path": str(clips)} if family == "wan" else None
    assert f"lacks {part}, which its model_index.json names" in sipo("train", family, {"path": str(folder)}, data)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_weights_that_are_cut_short_or_gone(sipo, broken, part, harm):
    folder = broken("sd")
    (file,) = (folder / part).glob("*.safetensors")
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        file.unlink()
    said = sipo("train", "sd", {"path": str(folder)})
    assert f"{folder} does not load" in said


@pytest.mark.parametrize(
    ("of", "onto"), [("sd", "sdxl"), ("flux", "sd"), ("sd", "flux")]
)  # the video families: tests/backbones/test_families.py
def test_a_lora_of_another_model(sipo, raw_config, of, onto):
    sipo("train", of, ok=True)
    lora = f"{raw_config['run']}/weights"
    raw_config["run"] += "-second"
    said = sipo("train", onto, {"lora": lora})
    assert lora in said
    assert "does not fit this" in said or "holds no weight for" in said


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_a_lora_that_is_none(sipo, tmp_path, content):
    folder = tmp_path / "lora"
    if content is not None:
        folder.mkdir()
    if content:
        (folder / "pytorch_lora_weights.safetensors").write_bytes(content)
    assert str(folder) in sipo("train", "sd", {"lora": str(folder)})


def test_a_video_shorter_than_asked(sipo, clips):
    said = sipo("train", "wan", data={"path": str(clips)})
    assert "1 of 3 rows are bad" in said
    assert "shorter than the model's: clips.jsonl:2 (the first: " in said
    assert "lasts 0.19 s (3 frames); 5 frames at 16 fps are needed" in said
    said = sipo("train", "wan", data={"path": str(clips), "num_frames": 33})
    assert "3 of 3 rows are bad" in said


@pytest.mark.parametrize(
    ("family", "data", "message"),
    [
        ("sd", {"num_frames": 5}, "data.num_frames and data.fps are for video models"),
        ("wan", {"num_frames": 6, "on_bad_rows": "skip"}, "4 n + 1 frames, not 6"),
        ("wan", {}, "tiny_pairs"),
    ],
)
def test_media_of_the_other_kind(sipo, clips, tiny_pairs, family, data, message):
    if message == "tiny_pairs":
        assert "24 of 24 rows are bad" in sipo("train", family, data=data)
        assert "rows are bad" in sipo("train", "sd", data={"path": str(clips)})
        return
    assert message in sipo("train", family, data={**data, "path": str(clips if family == "wan" else tiny_pairs)})
