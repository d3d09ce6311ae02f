"""The newer families are planned, train by the ordinary `train`, and are written for plain diffusers, which is the oracle."""

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from peft import LoraConfig
from support.configs import changed
from support.newer_checkpoints import NEWER
from support.pipelines import call, load_lora
from support.runs import assert_same_results, train_raw

from sipo.backbones import read_architecture
from sipo.backbones.opening import open_for_sampling
from sipo.config import parse_config
from sipo.plan.gpus import GPUS
from sipo.plan.plan import make_plan
from sipo.train.checkpoint import load_checkpoint

LOOSE = ("loss.beta=0.01", "loss.prune_threshold=0.0")  # so that no pair of an untrained network is pruned


def denoisers(pipeline):
    return [getattr(pipeline, part) for part in ("transformer", "transformer_2") if getattr(pipeline, part, None)]


def number(networks):
    return sum(weight.numel() for network in networks for weight in network.parameters())


@pytest.mark.parametrize("name", NEWER)
def test_a_plan_counts_all_networks(family_config, name):
    raw = family_config("run", name, "lora")
    config = parse_config(raw)
    plan, pipeline = make_plan(config, GPUS["h100"], [1]), DiffusionPipeline.from_pretrained(raw["model"]["path"])
    texts = [part for part in pipeline.components if part.startswith("text_encoder")]
    texts += [part for part in ("connectors", "audio_vae", "vocoder") if part in pipeline.components]
    assert plan.parameters == number(denoisers(pipeline))
    assert plan.encoder_parameters == number([pipeline.vae, *(getattr(pipeline, part) for part in texts)])
    targets = list(read_architecture(config.model).family.lora_targets)
    for network in denoisers(pipeline):
        network.add_adapter(LoraConfig(r=raw["policy"]["rank"], target_modules=targets))
    trained = [w for network in denoisers(pipeline) for n, w in network.named_parameters() if "lora_" in n]
    assert plan.trained == sum(weight.numel() for weight in trained)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEWER)
def test_trains_and_plain_diffusers_makes_the_policys_own_media(family_config, name, kind, tmp_path):
    """LoRA from a cache, full fine-tuning without one."""
    cached = f"data.cache={tmp_path / 'cache'}" if kind == "lora" else "data.cache=null"
    raw = changed(family_config("run", name, kind), "train.learning_rate=5e-2", *LOOSE, cached)
    run = train_raw(raw)
    lines = run.read_metrics("train")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    assert lines[0]["mse_policy_chosen"] == pytest.approx(lines[0]["mse_reference_chosen"], rel=1e-4)
    parts = ("networks.transformer.", "networks.transformer_2.") if name == "wan2.2-14b" else ("",)
    for part in parts if kind == "lora" else ():
        up = [
            w
            for key, w in load_checkpoint(run.checkpoints, 3).weights.items()
            if key.startswith(part) and "lora_B" in key
        ]
        assert any(weight.any() for weight in up), part  # B is 0 before training

    checkpoint = raw["model"]["path"]
    opened = open_for_sampling(str(run.path), num_inference_steps=2, guidance_scale=3.0)
    own, size = opened.sampler(["prompt 1"], [0])[0], opened.backbone.size
    untrained = plain(DiffusionPipeline.from_pretrained(checkpoint), size)
    pipeline = DiffusionPipeline.from_pretrained(run.weights if kind == "full" else checkpoint)
    if kind == "lora":
        load_lora(pipeline, run.weights)
        if name == "wan2.2-14b":
            pipeline.load_lora_weights(run.weights / "transformer_2", load_into_transformer_2=True)
    theirs = plain(pipeline, size)
    own = np.stack([np.asarray(frame, int) for frame in (own if size.is_video else [own])])
    assert np.abs(own - theirs).max() <= 1
    assert np.abs(own - untrained).max() > 1


def plain(pipeline, size) -> np.ndarray:
    media = call(pipeline, ["prompt 1"], size, 3.0, 2, seeds=[0])[0]
    return np.stack([np.asarray(frame, int) for frame in (media if size.is_video else [media])])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEWER)
def test_resumes_exactly_from_cached_latents(family_config, name, kind, tmp_path):
    whole, halves = (
        changed(family_config(run, name, kind), f"data.cache={tmp_path / 'cache'}") for run in ("whole", "halves")
    )
    train_raw(changed(halves, "train.num_steps=2"))
    resumed = train_raw(halves)
    assert_same_results(resumed, train_raw(whole), [2, 3])
