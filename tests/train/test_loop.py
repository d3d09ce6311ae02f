"""Whole trainings on tiny pipelines: the exported weights are the policy's, and the reference never moves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from support.configs import changed
from support.runs import train_raw

from sipo.backbones import load_backbone
from sipo.config import ModelConfig, parse_config
from sipo.errors import UsageError, UserError
from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint
from sipo.train.export import export
from sipo.train.policy import Policy, make_policy
from sipo.train.record import Clock
from sipo.train.step import take_step

LOSSES = {
    "sft": {"name": "sft"},
    "diffusion_dpo": {"name": "diffusion_dpo"},
    "dpo_cm": {"name": "dpo_cm"},
    "sipo": {"name": "sipo"},
    "sipo transition": {"name": "sipo", "omega": "transition", "beta": 0.1},
}


def plain_images(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    return pipeline(["prompt 1", "prompt 2"], generator=generators, num_inference_steps=3, guidance_scale=7.5, height=16,
                    width=16).images  # fmt: skip


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("model", ["tiny_sd", "tiny_sdxl"])
def test_plain_diffusers_draws_the_policys_own_images(raw_config, request, kind, model):
    base = request.getfixturevalue(model)
    run = train_raw(changed(raw_config, f"model.path={base}", f"policy.kind={kind}", "policy.alpha=9"))
    config = parse_config(run.read_config())
    backbone = load_backbone(config.model)
    policy = make_policy(backbone, config.policy, needs_reference=False, seed=0)
    policy.load_state(load_checkpoint(run.checkpoints, 4).weights)
    own = backbone.sampler(3, 7.5)(["prompt 1", "prompt 2"], [0, 1])
    if kind == "lora":
        pipeline = DiffusionPipeline.from_pretrained(base)
        untrained = plain_images(pipeline)
        pipeline.load_lora_weights(run.weights)
    else:
        pipeline = DiffusionPipeline.from_pretrained(run.weights)
        untrained = plain_images(DiffusionPipeline.from_pretrained(base))
    for mine, theirs, before in zip(own, plain_images(pipeline), untrained, strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(theirs))
        assert not np.array_equal(np.asarray(mine), np.asarray(before))


@pytest.mark.parametrize("name", LOSSES)
def test_every_objective_trains_and_starts_where_theory_says(raw_config, name):
    run = train_raw({**raw_config, "loss": LOSSES[name]})
    lines = run.read_metrics("train")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert all(line["grad_norm"] > 0 for line in lines)
    first = lines[0]
    if name == "sft":
        assert first["loss"] == pytest.approx(first["mse_policy_chosen"], rel=1e-5)
        return
    assert first["tie"] == 1.0  # theta = ref: every margin is exactly 0
    kept = np.log(2) * (1 - first.get("pruned", 0))
    if name == "dpo_cm":  # each pair's log 2 carries a weight within the clip range
        assert 0.9 * kept <= first["loss"] <= 1.1 * kept
    else:
        assert first["loss"] == pytest.approx(kept, rel=1e-5)
    assert lines[-1]["tie"] < 1.0


def test_metrics_samples_and_card(raw_config):
    run = train_raw(changed(
        raw_config, "train.sample_every=2", "train.validate_every=2", "data.validation=0.2", "log.tensorboard=true"
    ))  # fmt: skip
    assert run.sample_steps() == [0, 2, 4]
    assert [line["step"] for line in run.read_metrics("validation")] == [0, 2, 4]
    assert list(run.tensorboard.iterdir())
    card = (run.weights / "README.md").read_text()
    assert "aligned with SIPO" in card
    assert "load_lora_weights" in card
    assert json.loads(run.data.read_text())["num_usable"] == 24
    assert "torch" in json.loads(run.env.read_text())["packages"]


def test_samples_of_the_base_are_taken_over_from_another_run(raw_config, tmp_path):
    raw = changed(raw_config, "train.sample_every=2", "train.num_steps=2", "sample.num_prompts=2")
    first = train_raw(raw)
    other = train_raw(changed(raw, f"run={tmp_path / 'other'}", "loss.name=dpo_cm"), base_samples=first.samples_at(0))
    drawn = sorted(first.samples_at(0).glob("*.png"))
    assert len(drawn) == 2
    for picture in drawn:
        copy = other.samples_at(0) / picture.name
        assert copy.read_bytes() == picture.read_bytes()
        assert copy.stat().st_mtime_ns == picture.stat().st_mtime_ns  # not drawn again
    assert other.sample_steps() == [0, 2]
    third = changed(raw, f"run={tmp_path / 'third'}", "sample.guidance_scale=2.0")
    with pytest.raises(UserError, match="was made with other settings:\n  guidance_scale"):
        train_raw(third, base_samples=first.samples_at(0))


def with_objective(t, change):
    """`t` whose objective's losses (B,) are changed."""

    def objective(terms):
        losses, metrics = t.objective(terms)
        return change(losses), metrics

    objective.needs_rejected = t.objective.needs_rejected
    objective.needs_importance_weights = t.objective.needs_importance_weights
    return replace(t, objective=objective)


def test_seconds_are_charged_to_the_part_that_spent_them(raw_config, monkeypatch):
    now = 0.0

    def spend(seconds, work):
        def slow(*args, **kwargs):
            nonlocal now
            now += seconds
            return work(*args, **kwargs)

        return slow

    def slow_step(t, step, stop):
        monkeypatch.setattr(t.updater, "finish", spend(1.0, t.updater.finish))
        t = replace(t, batches=map(spend(4.0, lambda batch: batch), t.batches))
        return take_step(with_objective(t, spend(8.0, lambda losses: losses)), step, stop)

    monkeypatch.setattr(Policy, "network", spend(2.0, Policy.network))  # asked for the reference
    monkeypatch.setattr(Clock, "_now", lambda self: now)
    lines = train_raw(changed(raw_config, "train.num_steps=1"), slow_step).read_metrics("train")
    assert [line["seconds"] for line in lines] == [
        {"total": 15.0, "data": 4.0, "reference": 2.0, "policy": 8.0, "other": 1.0}
    ]


def test_cached_training_equals_uncached_training(raw_config, tmp_path):
    plain = train_raw(changed(raw_config, f"run={tmp_path / 'plain'}"))
    cached = train_raw(changed(raw_config, f"run={tmp_path / 'cached'}", f"data.cache={tmp_path / 'cache'}"))
    one, two = (load_checkpoint(run.checkpoints, 4).weights for run in (plain, cached))
    for name, weight in one.items():
        # The encoders see other batches, so the latents differ in the last bits.
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-3)


def test_reference_denominator_needs_the_reference_and_starts_at_weight_one(raw_config):
    raw = changed(raw_config, "weight={denominator: reference, estimate: expected}")
    first = train_raw(raw).read_metrics("train")[0]
    assert first["w_chosen"] == first["w_rejected"] == 1.0
    assert first["pruned"] == 0.0


def test_a_changed_config_names_its_keys_and_only_steps_may_grow(raw_config):
    train_raw(raw_config)
    with pytest.raises(UsageError) as error:
        train_raw(changed(raw_config, "train.learning_rate=5e-4", "loss.beta=2.0"))
    assert "loss.beta: 1.0 in the run, 2.0 now" in str(error.value)
    assert "train.learning_rate: 0.001 in the run, 0.0005 now" in str(error.value)
    with pytest.raises(UsageError, match=r"train\.num_steps: 4 in the run, 3 now"):
        train_raw(changed(raw_config, "train.num_steps=3"))


def poisoned_third_step(t, step, stop):
    """`take_step`; in the third one, the first pair's loss is not a number."""

    def poison(losses):
        return losses + torch.tensor([float("nan")] + [0.0] * (len(losses) - 1))

    return take_step(with_objective(t, poison) if step == 3 else t, step, stop)


def test_a_nan_stops_before_the_update_and_names_the_pairs(raw_config):
    with pytest.raises(UserError, match=r"step 3: NaN or infinity in the loss of pairs.parquet:\d+ \(t = \d+\)\. "):
        train_raw(raw_config, poisoned_third_step)
    run = RunDir(raw_config["run"])
    assert [line["step"] for line in run.read_metrics("train")] == [1, 2]
    assert all(w.isfinite().all() for w in load_checkpoint(run.checkpoints, 2).weights.values())


def test_a_nan_is_skipped_where_the_config_allows_it(raw_config):
    run = train_raw(changed(raw_config, "train.on_nonfinite=skip", "train.checkpoint_every=1",
                            "train.keep_checkpoints=9"), poisoned_third_step)  # fmt: skip
    assert [line["skipped"] for line in run.read_metrics("train")] == [0, 0, 1, 0]
    second, third, fourth = (load_checkpoint(run.checkpoints, step).weights for step in (2, 3, 4))
    assert all(second[name].equal(third[name]) for name in second)
    assert not all(third[name].equal(fourth[name]) for name in third)


def test_half_precision_without_a_gpu_is_refused(raw_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="fp16 trains on a CUDA GPU only"):
        train_raw(changed(raw_config, "train.mixed_precision=fp16"))


def test_bf16_starts_at_a_tie_and_keeps_float32_masters(raw_config):
    run = train_raw(changed(raw_config, "train.mixed_precision=bf16"))
    assert run.read_metrics("train")[0]["tie"] == 1.0
    assert {w.dtype for w in load_checkpoint(run.checkpoints, 4).weights.values()} == {torch.float32}


def test_gradient_checkpointing_changes_nothing(raw_config, tmp_path):
    runs = [
        train_raw(changed(raw_config, f"run={tmp_path / on}", f"train.gradient_checkpointing={on}"))
        for on in ("false", "true")
    ]
    one, two = (load_checkpoint(run.checkpoints, 4).weights for run in runs)
    for name in one:
        torch.testing.assert_close(one[name], two[name])


def test_export_of_an_earlier_step(raw_config, tmp_path):
    run = train_raw(raw_config)
    assert export(run, 2, tmp_path / "early") == 2
    with pytest.raises(UserError, match="exists already"):
        export(run, 2, tmp_path / "early")
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        export(run, 3, tmp_path / "other")
    config = parse_config(run.read_config())
    backbone = load_backbone(ModelConfig(config.model.path))
    backbone.pipeline.load_lora_weights(tmp_path / "early")
    saved = load_checkpoint(run.checkpoints, 2).weights
    loaded = dict(backbone.denoiser.named_parameters())
    assert all(
        any(weight.equal(other) for other in loaded.values() if other.shape == weight.shape)
        for weight in saved.values()
    )


def test_pairs_without_rejected_members_serve_sft_alone(raw_config, tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "red", "chosen": "red.png"}\n')
    raw = changed(raw_config, f"data.path={tmp_path / 'pairs.jsonl'}")
    with pytest.raises(UserError, match=r"serve loss\.name: sft, not SIPO"):
        train_raw(raw)
    assert len(train_raw(changed(raw, "loss={name: sft}")).read_metrics("train")) == 4
