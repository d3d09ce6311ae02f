"""Every family trains by the same command: images and videos, epsilon, v and flow, LoRA and full."""

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from support.configs import changed
from support.pipelines import call
from support.runs import assert_same_results, train_raw

from sipo.backbones import load_backbone
from sipo.config import parse_config
from sipo.train.checkpoint import load_checkpoint
from sipo.train.policy import make_policy
from sipo.train.step import take_step

NEW = ["flux", "cogvideox-2b", "cogvideox-5b", "wan"]


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEW)
def test_every_objective_takes_three_steps_and_leaves_the_reference_alone(family_config, name, kind):
    config = parse_config(family_config("base", name, kind))
    base = load_backbone(config.model, size=config.data.size).denoiser.state_dict()
    first, last = {}, {}

    def watched(t, step, stop):
        policy = t.engine.policy
        if step == 1:
            first.update({key: weight.clone() for key, weight in policy.state().items()})
        update = take_step(t, step, stop)
        last["trained"], last["frozen"] = policy.state(), policy.frozen_copy if kind == "full" else policy.denoiser
        return update

    for loss in ("sft", "diffusion_dpo", "dpo_cm", "sipo"):
        # beta and the threshold are loose, so that no pair of an untrained network is pruned
        keys = {"name": loss} if loss == "sft" else {"name": loss, "beta": 0.01}
        keys |= {"prune_threshold": 0.0} if loss in ("dpo_cm", "sipo") else {}
        lines = train_raw({**family_config(loss, name, kind), "loss": keys}, watched).read_metrics("train")
        assert [line["step"] for line in lines] == [1, 2, 3]
        assert all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
        if loss != "sft":
            assert lines[0]["mse_policy_chosen"] == pytest.approx(lines[0]["mse_reference_chosen"], rel=1e-4)
        assert any(not weight.equal(last["trained"][key]) for key, weight in first.items())
        assert last["frozen"] is not None or (loss, kind) == ("sft", "full")  # which needs no reference
        if last["frozen"] is not None:
            frozen = last["frozen"].state_dict()
            kept = {key.replace(".base_layer", ""): w for key, w in frozen.items() if "lora_" not in key}
            assert kept.keys() == base.keys()
            assert all(kept[key].equal(base[key]) for key in base)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEW)
def test_resumes_exactly_from_cached_latents(family_config, name, kind, tmp_path):
    whole, halves = (
        changed(family_config(run, name, kind), f"data.cache={tmp_path / 'cache'}") for run in ("whole", "halves")
    )
    train_raw(changed(halves, "train.num_steps=2"))
    resumed = train_raw(halves)
    whole = train_raw(whole)
    assert_same_results(resumed, whole, [2, 3])


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", NEW)
def test_plain_diffusers_makes_the_policys_own_media(family_config, name, kind):
    run = train_raw(changed(family_config("run", name, kind), "train.learning_rate=1e-2"))
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
    media = call(pipeline, ["prompt 1"], size, 3.5, 2, seeds=[0])[0]
    return np.stack([np.asarray(frame, int) for frame in (media if size.is_video else [media])])


def test_samples_of_a_video_model_are_videos_and_sheets(family_config):
    run = train_raw(changed(family_config("run", "wan", "lora"), "train.sample_every=3"))
    folder = run.samples / "000003"
    assert sorted(file.suffix for file in folder.glob("00000.*")) == [".mp4", ".png"]
