"""What newer families have fits into the record: two denoisers, three text encoders, masked prompts of any length.

Each is planned, predicts, trains by the ordinary `train` and is written for plain diffusers, which is the oracle.
"""

from functools import cache

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from support.configs import changed
from support.newer_families import BOUNDARY, NEWER, add
from support.runs import train_raw

from sipo.backbones import load_backbone
from sipo.backbones.opening import open_for_sampling
from sipo.config import parse_config
from sipo.plan.gpus import GPUS
from sipo.plan.plan import make_plan
from sipo.train.checkpoint import load_checkpoint

PROMPTS = ["a cat", "a dog that sits on a mat"]


@pytest.fixture(scope="session")
def newer_checkpoint(tmp_path_factory):
    return cache(lambda name: NEWER[name][0](tmp_path_factory.mktemp(name)))


@pytest.fixture(params=NEWER)
def newer(request, raw_config, newer_checkpoint, video_pairs, monkeypatch):
    """(name, checkpoint, config as YAML gives it)"""
    name = request.param
    add(name, monkeypatch)
    data = {**NEWER[name][1], **({"path": str(video_pairs)} if name == "wan2.2" else {})}
    raw = changed(
        raw_config, f"model.path={newer_checkpoint(name)}", "train.num_steps=3", f"train.learning_rate={5e-2 if name == 'qwen-image' else 1e-2}",
        "loss.beta=0.01", "loss.prune_threshold=0.0", *(f"data.{key}={value}" for key, value in data.items()),
    )  # fmt: skip
    return name, newer_checkpoint(name), raw


def opened(raw):
    config = parse_config(raw)
    return load_backbone(config.model, size=config.data.size)


def denoisers(pipeline):
    return [getattr(pipeline, part) for part in ("transformer", "transformer_2") if getattr(pipeline, part, None)]


def number(networks):
    return sum(weight.numel() for network in networks for weight in network.parameters())


def test_a_plan_counts_all_networks(newer):
    _, checkpoint, raw = newer
    plan = make_plan(parse_config(raw), GPUS["h100"], [1])
    pipeline = DiffusionPipeline.from_pretrained(checkpoint)
    texts = [part for name, part in pipeline.components.items() if name.startswith("text_encoder")]
    assert plan.parameters == number(denoisers(pipeline))
    assert plan.encoder_parameters == number([pipeline.vae, *texts])
    for network in denoisers(pipeline):
        network.add_adapter(lora_config(raw, opened(raw).lora_targets))
    trained = [w for network in denoisers(pipeline) for n, w in network.named_parameters() if "lora_" in n]
    assert plan.trained == sum(weight.numel() for weight in trained)


def test_a_sample_takes_one_of_two_denoisers(newer_checkpoint, tiny_family, raw_config, monkeypatch):
    """Wan 2.2 costs a sample what Wan 2.1 does, of the same transformer; the weights and their copies are there twice."""
    data = ("data.resolution=16", "data.num_frames=5", "policy.kind=full", "train.mixed_precision=bf16")
    wan21 = make_plan(parse_config(changed(raw_config, f"model.path={tiny_family('wan')}", *data)), GPUS["h100"], [1])
    add("wan2.2", monkeypatch)
    wan22 = make_plan(
        parse_config(changed(raw_config, f"model.path={newer_checkpoint('wan2.2')}", *data)), GPUS["h100"], [1]
    )
    assert wan22.step == wan21.step
    assert wan22.forward_flops == wan21.forward_flops
    assert (wan22.parameters, wan22.trained) == (2 * wan21.parameters, 2 * wan21.trained)
    one, two = wan21.layouts[0].memory, wan22.layouts[0].memory
    assert (two.weight_copies, two.optimizer) == (2 * one.weight_copies, 2 * one.optimizer)
    assert two.activations == pytest.approx(one.activations, rel=0.05)  # both read the same inputs


def lora_config(raw, targets):
    from peft import LoraConfig

    return LoraConfig(r=raw["policy"]["rank"], target_modules=list(targets))


def test_the_prediction_is_what_a_step_of_the_pipeline_uses(newer):
    """One step from t = T ends at x0_hat = noise - sigma v. Qwen-Image's pipeline pads to the longest prompt alone."""
    name, checkpoint, raw = newer
    backbone, pipeline = opened(raw), DiffusionPipeline.from_pretrained(checkpoint)
    noise = torch.randn(2, *backbone.adapter.latent_shape(backbone.size), generator=torch.Generator().manual_seed(0))
    pipeline.set_progress_bar_config(disable=True)
    keys = {"num_frames": 5} if name == "wan2.2" else {"max_sequence_length": 256 if name == "qwen-image" else 16}
    keys |= {} if name == "qwen-image" else {"guidance_scale": 1.0}
    start = pipeline._pack_latents(noise, *noise.shape) if name == "qwen-image" else noise
    x0_hat = pipeline(PROMPTS, latents=start, num_inference_steps=1, output_type="latent", height=16, width=16, **keys)[
        0
    ]
    if name == "qwen-image":
        x0_hat = pipeline._unpack_latents(x0_hat, 16, 16, pipeline.vae_scale_factor).squeeze(2)
    t = pipeline.scheduler.timesteps[:1].expand(2)
    prediction = backbone.predict(backbone.denoiser, noise, t, backbone.encode_prompts(PROMPTS))
    torch.testing.assert_close(prediction, (noise - x0_hat) / pipeline.scheduler.sigmas[0], atol=1e-5, rtol=1e-4)


def test_each_timestep_has_its_denoiser(newer_checkpoint, raw_config, monkeypatch):
    """The pipeline's rule: the first takes t >= boundary. Samples of one batch may go to both."""
    add("wan2.2", monkeypatch)
    checkpoint = newer_checkpoint("wan2.2")
    raw = changed(raw_config, f"model.path={checkpoint}", "data.resolution=16", "data.num_frames=5")
    backbone, pipeline = opened(raw), DiffusionPipeline.from_pretrained(checkpoint)
    t = torch.tensor([900.0, 1000 * BOUNDARY - 1, 1000 * BOUNDARY, 20.0])
    xt, hidden = torch.randn(4, *backbone.adapter.latent_shape(backbone.size)), torch.randn(4, 512, 32)
    found = backbone.predict(backbone.denoiser, xt, t, {"encoder_hidden_states": hidden})
    for row, part in enumerate(("transformer", "transformer_2", "transformer", "transformer_2")):
        one = slice(row, row + 1)
        expected = getattr(pipeline, part)(xt[one], t[one], hidden[one]).sample
        torch.testing.assert_close(found[one], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_trains_and_plain_diffusers_makes_the_policys_own_media(newer, kind, tmp_path):
    """LoRA from a cache, full fine-tuning without one."""
    name, checkpoint, raw = newer
    cached = f"data.cache={tmp_path / 'cache'}" if kind == "lora" else "data.cache=null"
    run = train_raw(changed(raw, f"policy.kind={kind}", cached))
    lines = run.read_metrics("train")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) and line["grad_norm"] > 0 for line in lines)
    assert lines[0]["mse_policy_chosen"] == pytest.approx(lines[0]["mse_reference_chosen"], rel=1e-4)

    weights = load_checkpoint(run.checkpoints, 3).weights
    for part in ("networks.transformer.", "networks.transformer_2.") if name == "wan2.2" else ("",):
        up = [weight for key, weight in weights.items() if key.startswith(part) and "lora_B" in key]
        assert kind == "full" or any(weight.any() for weight in up), part  # B is 0 before training

    guidance = 1.0 if name == "qwen-image" else 3.0
    own = open_for_sampling(str(run.path), num_inference_steps=2, guidance_scale=guidance).sampler(PROMPTS[:1], [0])[0]
    untrained = plain(DiffusionPipeline.from_pretrained(checkpoint), name, guidance)
    pipeline = DiffusionPipeline.from_pretrained(run.weights if kind == "full" else checkpoint)
    if kind == "lora":
        pipeline.load_lora_weights(run.weights)
        if name == "wan2.2":
            pipeline.load_lora_weights(run.weights / "transformer_2", load_into_transformer_2=True)
    theirs = plain(pipeline, name, guidance)
    own = np.stack([np.asarray(frame, int) for frame in (own if name == "wan2.2" else [own])])
    assert np.abs(own - theirs).max() <= 1
    assert np.abs(own - untrained).max() > 1


def plain(pipeline, name, guidance) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    keys = {"num_frames": 5, "output_type": "pil"} if name == "wan2.2" else {}
    keys |= {} if name == "qwen-image" else {"guidance_scale": guidance}
    keys |= {"sd3": {"max_sequence_length": 16}, "qwen-image": {"max_sequence_length": 256}}.get(name, {})
    media = pipeline(PROMPTS[:1], generator=[torch.Generator().manual_seed(0)], num_inference_steps=2, height=16, width=16,
                     **keys)[0][0]  # fmt: skip
    return np.stack([np.asarray(frame, int) for frame in (media if name == "wan2.2" else [media])])
