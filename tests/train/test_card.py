"""The model card's snippet, followed to the letter in plain diffusers, gives the run's pictures; and `sipo export`."""

import ast
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from safetensors.torch import load_file, save_file
from support.configs import changed
from support.original import single_file
from support.pipelines import call
from support.runs import train_raw
from typer.testing import CliRunner

from sipo.backbones.opening import open_for_sampling
from sipo.cli import app
from sipo.config import parse_config
from sipo.train.card import model_card


@pytest.fixture(scope="module")
def files(tiny_sd, tmp_path_factory):
    """A first LoRA for U-Net and text encoder, another VAE and the base as one file."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    at, base = tmp_path_factory.mktemp("files"), DiffusionPipeline.from_pretrained(tiny_sd)
    torch.manual_seed(0)
    tensors = {}
    for part, ends in (("unet", ("to_q", "to_v")), ("text_encoder", ("q_proj", "k_proj", "v_proj", "out_proj"))):
        for name, layer in getattr(base, part).named_modules():
            if isinstance(layer, torch.nn.Linear) and name.endswith(ends):
                name = name if part == "unet" else "text_model." + name.removeprefix("text_model.")
                key = f"{'lora_unet' if part == 'unet' else 'lora_te'}_{name.replace('.', '_')}"
                tensors[f"{key}.lora_down.weight"] = torch.randn(2, layer.in_features) * 0.3
                tensors[f"{key}.lora_up.weight"] = torch.randn(layer.out_features, 2) * 0.3
                tensors[f"{key}.alpha"] = torch.tensor(1.0)
    save_file(tensors, at / "first.safetensors")
    vae = load_file(tiny_sd / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({name: value * 1.1 for name, value in vae.items()}, at / "vae.safetensors")
    single_file(tiny_sd, at / "base.safetensors")
    return at


def pictures(pipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    generator = [torch.Generator().manual_seed(0)]
    made = pipeline(["p"], generator=generator, num_inference_steps=3, guidance_scale=2.0, height=16, width=16)
    return np.asarray(made.images[0]).astype(int)


def follow(card: str, folder) -> np.ndarray:
    return pictures(followed(card, folder))


def followed(card: str, folder):
    snippet = card.split("```python")[1].split("```")[0].replace("path/to/this/folder", str(folder))
    found: dict = {}
    exec(snippet, found)  # the card's own text, as a reader would run it
    return found["pipeline"]


@pytest.mark.parametrize("case", ["plain", "lora", "vae", "file", "all"])
def test_the_card_gives_the_policy(raw_config, tiny_sd, files, case):
    model = {
        "lora": [f"model.lora={files}/first.safetensors"],
        "vae": [f"model.vae={files}/vae.safetensors"],
        "file": [f"model.path={files}/base.safetensors", f"model.config={tiny_sd}"],
    }
    overrides = [o for c, os in model.items() for o in os if case in (c, "all")]
    raw = changed(raw_config, "data.resolution=16", "train.num_steps=2", "train.learning_rate=0.1", *overrides)
    run = train_raw(raw)
    card = (run.weights / "README.md").read_text()
    ours = np.asarray(
        open_for_sampling(str(run.path), num_inference_steps=3, guidance_scale=2.0).sampler(["p"], [0])[0]
    )
    assert np.abs(follow(card, run.weights) - ours).max() <= 1
    base = np.asarray(open_for_sampling(str(run.path), True, 3, 2.0).sampler(["p"], [0])[0]).astype(int)
    assert np.abs(base - ours).max() > 3  # the training is seen
    assert "ComfyUI" in card
    if case == "all":
        merged = run.path / "merged"
        done = CliRunner().invoke(app, ["export", str(run.path), "--out", str(merged), "--merge"])
        assert done.exit_code == 0, done.output
        assert np.abs(follow((merged / "README.md").read_text(), merged) - ours).max() <= 1
        file = run.path / "merged.safetensors"
        done = CliRunner().invoke(app, ["export", str(run.path), "--out", str(file), "--merge"])
        assert done.exit_code == 0, done.output
        from diffusers import StableDiffusionPipeline

        pipeline = StableDiffusionPipeline.from_single_file(str(file), config=str(tiny_sd), local_files_only=True)
        assert np.abs(pictures(pipeline) - ours).max() <= 1
        refused = CliRunner().invoke(app, ["export", str(run.path), "--out", str(run.path / "a.safetensors")])
        assert "add --merge" in str(refused.exception)
        for form in ("diffusers", "comfyui", "kohya"):
            out = run.path / form
            done = CliRunner().invoke(app, ["export", str(run.path), "--out", str(out), "--format", form])
            assert done.exit_code == 0, done.output
            assert np.abs(follow((out / "README.md").read_text(), out) - ours).max() <= 1
        assert CliRunner().invoke(app, ["export", str(run.path), "--out", "x", "--format", "onnx"]).exit_code != 0


@pytest.mark.parametrize("name", ["wan2.2-14b", "hunyuan-video-1.5", "ltx2"])
def test_the_card_loads_a_lora_into_each_of_two_denoisers_and_past_a_pipeline_that_loads_none(family_config, name):
    """And one that was merged before the training."""
    steps = ("train.num_steps=1", "train.learning_rate=0.2", "loss.beta=0.01", "loss.prune_threshold=0.0")
    first = train_raw(changed(family_config("first", name, "lora"), *steps))
    second = train_raw(changed(family_config("second", name, "lora"), *steps, f"model.lora={first.weights}"))
    for run in (first, second):
        opened = open_for_sampling(str(run.path), num_inference_steps=2, guidance_scale=1.0)
        ours = np.stack(opened.sampler(["p"], [0])[0]).astype(int)
        card = (run.weights / "README.md").read_text()
        theirs = call(followed(card, run.weights), ["p"], opened.backbone.size, 1.0, 2, seeds=[0])[0]
        assert np.abs(np.stack(theirs).astype(int) - ours).max() <= 1
        assert ("one in the folder `transformer_2`" in " ".join(card.split())) == (name == "wan2.2-14b")
        assert ("trained on videos alone" in card) == (name == "ltx2")
        base = open_for_sampling(str(run.path), True, 2, 1.0).sampler(["p"], [0])[0]
        assert np.abs(np.stack(base).astype(int) - ours).max() > 1


HOSTILE = 'x"; import os; os.abort() #\n```\n<script>alert(1)</script> [a](javascript:alert(1)) `b` \u202egnp \x1b[2J'


def test_names_in_the_card_are_texts(raw_config):
    """Whatever a path holds: it ends no string of the snippet, no block of code, and is no HTML or link of the page."""
    raw = {**raw_config, "data": {"path": HOSTILE}, "run": HOSTILE}
    raw["model"] = {"path": HOSTILE, "lora": HOSTILE, "vae": HOSTILE, "revision": HOSTILE}
    family = SimpleNamespace(
        name="StableDiffusionPipeline",
        vae=SimpleNamespace(__name__="AutoencoderKL"),
        denoisers={"unet": 1},
        loads_lora=True,
        note="",
    )
    card = model_card(parse_config(raw), SimpleNamespace(family=family, folder=HOSTILE), 2, True, None)  # pyright: ignore[reportArgumentType]
    assert not {"\u202e", "\x1b"} & set(card)
    page = MarkdownIt("commonmark", {"html": True}).parse(card.split("---\n", 2)[2])
    every = [token for part in page for token in (part, *(part.children or []))]
    assert not [token.content for token in every if token.type in ("html_block", "html_inline", "link_open", "image")]
    snippet, settings = (token.content for token in page if token.type == "fence")
    given = [node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)]
    assert given.count(HOSTILE) == 4  # the base, its revision, the LoRA, the VAE
    assert len(ast.parse(snippet).body) == 7
    assert "loss:" in settings
