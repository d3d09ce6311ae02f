"""Every family trains by the same command: images and videos, epsilon, v and flow, LoRA and full."""

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from rich.console import Console
from support.checkpoints import FAMILIES
from support.runs import assert_same_results

from sipo.backbones import load_backbone
from sipo.config import ModelConfig, parse_config
from sipo.train import setup as training_setup
from sipo.train.checkpoint import load_checkpoint
from sipo.train.loop import train
from sipo.train.policy import make_policy

QUIET = Console(quiet=True)
NEW = ["flux", "cogvideox-2b", "cogvideox-5b", "wan"]
VIDEO = {"cogvideox-2b", "cogvideox-5b", "wan"}


@pytest.fixture
def family_config(raw_config, video_pairs, tiny_family, tmp_path):
    """(family, kind) -> a config of 3 steps on its tiny checkpoint."""

    def make(name: str, kind: str, run: str = "run", **sections) -> dict:
        data = {**raw_config["data"], **FAMILIES[name][1]}
        if name in VIDEO:
            data["path"] = str(video_pairs)
        train_keys = {**raw_config["train"], "num_steps": 3, "batch_size": 2, "gradient_accumulation": 1,
                      "checkpoint_every": 1, "sample_every": 0}  # fmt: skip
        raw = {**raw_config, "run": str(tmp_path / run), "model": {"path": str(tiny_family(name))}, "data": data,
               "policy": {"kind": kind, "rank": 4, "alpha": 8}, "train": train_keys}  # fmt: skip
        return {**raw, **{key: {**raw.get(key, {}), **keys} for key, keys in sections.items()}}

    return make


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEW)
def test_every_objective_takes_three_steps_and_leaves_the_reference_alone(family_config, name, kind, monkeypatch):
    policies = []

    def spy(*args, **keys):
        policies.append(make_policy(*args, **keys))
        return policies[-1]

    monkeypatch.setattr(training_setup, "make_policy", spy)
    base = load_backbone(ModelConfig(str(family_config(name, kind)["model"]["path"])),
                         size=parse_config(family_config(name, kind)).data.size).denoiser.state_dict()  # fmt: skip
    for loss in ("sft", "diffusion_dpo", "dpo_cm", "sipo"):
        # beta and the threshold are loose, so that no pair of an untrained network is pruned
        keys = {"name": loss} if loss == "sft" else {"name": loss, "beta": 0.01}
        keys |= {"prune_threshold": 0.0} if loss in ("dpo_cm", "sipo") else {}
        run = train(parse_config({**family_config(name, kind, loss), "loss": keys}), QUIET)
        lines = run.read_metrics("train")
        assert [line["step"] for line in lines] == [1, 2, 3]
        assert all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
        if loss != "sft":
            assert lines[0]["mse_policy_chosen"] == pytest.approx(lines[0]["mse_reference_chosen"], rel=1e-4)
        policy = policies[-1]
        start = make_policy(load_backbone(ModelConfig(str(family_config(name, kind)["model"]["path"])),
                                          size=parse_config(family_config(name, kind)).data.size),
                            policy.config, False, 0)  # fmt: skip
        assert any(not weight.equal(start.trainable[key]) for key, weight in policy.trainable.items())
        frozen = policy.frozen_copy if kind == "full" else policy.denoiser
        if frozen is not None:
            kept = {key.replace(".base_layer", ""): w for key, w in frozen.state_dict().items() if "lora_" not in key}
            assert kept.keys() == base.keys()
            assert all(kept[key].equal(base[key]) for key in base)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEW)
def test_resumes_exactly_from_cached_latents(family_config, name, kind, tmp_path):
    cached = {"data": {**family_config(name, kind)["data"], "cache": str(tmp_path / "cache")}}
    whole = train(parse_config(family_config(name, kind, "whole", **cached)), QUIET)
    halves = family_config(name, kind, "halves", **cached)
    train(parse_config({**halves, "train": {**halves["train"], "num_steps": 2}}), QUIET)
    resumed = train(parse_config(halves), QUIET)
    assert_same_results(resumed, whole, [2, 3])


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEW)
def test_plain_diffusers_makes_the_policys_own_media(family_config, name, kind):
    raw = family_config(name, kind)
    raw["train"]["learning_rate"] = 1e-2
    run = train(parse_config(raw), QUIET)
    config = parse_config(run.read_config())
    backbone = load_backbone(config.model, size=config.data.size)
    policy = make_policy(backbone, config.policy, needs_reference=False, seed=0)
    policy.load_state(load_checkpoint(run.checkpoints, 3).weights)
    own = backbone.sampler(2, 3.5)(["prompt 1"], [0])[0]
    untrained = plain(DiffusionPipeline.from_pretrained(config.model.path), backbone.size)
    if kind == "lora":
        pipeline = DiffusionPipeline.from_pretrained(config.model.path)
        pipeline.load_lora_weights(run.weights)
    else:
        pipeline = DiffusionPipeline.from_pretrained(run.weights)
    theirs = plain(pipeline, backbone.size)
    own = np.stack([np.asarray(frame, int) for frame in (own if backbone.size.is_video else [own])])
    assert np.abs(own - theirs).max() <= 1  # the VAE in slices rounds in another order
    assert np.abs(own - untrained).max() > 1


def plain(pipeline, size) -> np.ndarray:
    """(F, H, W, 3) of plain diffusers for one prompt and seed."""
    pipeline.set_progress_bar_config(disable=True)
    extra = {"num_frames": size.num_frames} if size.is_video else {}
    if "max_text_seq_length" in pipeline.transformer.config:
        extra["max_sequence_length"] = pipeline.transformer.config.max_text_seq_length
    media = pipeline(["prompt 1"], generator=[torch.Generator().manual_seed(0)], num_inference_steps=2,
                     guidance_scale=3.5, height=size.height, width=size.width, output_type="pil", **extra)[0][0]  # fmt: skip
    return np.stack([np.asarray(frame, int) for frame in (media if size.is_video else [media])])


def test_samples_of_a_video_model_are_videos_and_sheets(family_config):
    raw = family_config("wan", "lora")
    raw["train"]["sample_every"] = 3
    run = train(parse_config(raw), QUIET)
    folder = run.samples / "000003"
    assert sorted(file.suffix for file in folder.glob("00000.*")) == [".mp4", ".png"]
