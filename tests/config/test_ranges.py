"""Every value is checked where the config is read, by its key; nothing is left for torch or a core function to notice."""

import time

import pytest
import yaml

from sipo.config import load_config, parse_config
from sipo.errors import UsageError
from sipo.losses import SFT

MINIMAL = {"run": "runs/x", "model": {"path": "miniature"}, "data": {"path": "miniature"}, "loss": {"name": "sipo"}}
INF, NAN = float("inf"), float("nan")
REFUSED = [
    *[("train", "betas", value) for value in ([0.9, 1.0], [-0.1, 0.9], [0.9], [0.9, NAN])],
    *[("train", "epsilon", value) for value in (0, -1e-8, NAN, INF)],
    *[("train", "weight_decay", value) for value in (-0.1, NAN, INF)],
    *[("train", "learning_rate", value) for value in (0, -1, NAN, INF)],
    *[("train", "max_grad_norm", value) for value in (0, NAN, INF)],
    *[("train", "ema_decay", value) for value in (0, 1, NAN)],
    *[("train", "seed", value) for value in (-1, 2**63, 10**30)],
    *[("train", "num_threads", value) for value in (0, -4, 10**6)],
    *[("train", key, 0) for key in ("num_steps", "batch_size", "gradient_accumulation", "checkpoint_every", "keep_checkpoints")],
    *[("train", key, -1) for key in ("warmup_steps", "sample_every", "validate_every", "max_skipped_steps")],
    ("train", "sharding", "zero3"),
    *[("data", "validation", value) for value in (0.999, 0.0, -0.1, NAN)],
    *[("data", "resolution", value) for value in (0, -8, 10**9, [64, 0], [64], NAN)],
    *[("data", "prompt_dropout", value) for value in (-0.1, 1.1, NAN)],
    *[("data", "fps", value) for value in (0, NAN, INF)],
    *[("data", "workers", value) for value in (-1, 10**6)],
    *[("data", key, 0) for key in ("num_frames", "max_pairs", "max_pixels", "max_validation_pairs")],
    *[("policy", "alpha", value) for value in (0, -1, NAN, INF)],
    *[("policy", "rank", value) for value in (0, 10**9)],
    *[("sample", "seed", value) for value in (-1, 2**64)],
    *[("sample", key, 0) for key in ("num_prompts", "num_inference_steps", "batch_size")],
    *[("sample", "guidance_scale", value) for value in (NAN, INF)],
    *[("model", "guidance", value) for value in (NAN, -1)],
    *[("loss", "beta", value) for value in (0, -1, NAN, INF)],
    *[("loss", "horizon", value) for value in (0, NAN, INF)],
    *[("loss", key, value) for key in ("clip_range", "prune_threshold", "log_iw_scale") for value in (-1, NAN)],
    *[("timesteps", "low", value) for value in (-1, 1000, NAN, INF)],
    *[("timesteps", "high", value) for value in (1, 0, 1001, NAN)],
    *[("kernel", "eta", value) for value in (-0.1, 1.1, NAN, 0)],  # 0 has no importance weight, which SIPO needs
    *[("kernel", "num_inference_steps", value) for value in (0, 1, 1001, 2.5, True, NAN)],
    *[("log", key, value) for key in ("wandb", "trackio") for value in ("no", "off", "None", "", "yes")],
]  # fmt: skip


@pytest.mark.parametrize(("section", "key", "value"), REFUSED)
def test_a_value_out_of_range_is_refused_by_its_key(section, key, value):
    with pytest.raises(UsageError, match=rf"1 mistake in config:\n  {section}\.{key}\b"):
        parse_config({**MINIMAL, section: {**MINIMAL.get(section, {}), key: value}})


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("train", {"betas": [0, 0.9999], "weight_decay": 0, "seed": 2**63 - 1, "num_threads": 1, "sample_every": 0}),
        ("data", {"path": "d", "validation": 0.9, "resolution": [64, 96], "prompt_dropout": 1, "workers": 0}),
        ("data", {"path": "d", "validation": "other.parquet", "resolution": 1}),
        ("timesteps", {"low": 0, "high": 1000}),
        ("timesteps", {"low": 999}),
        ("kernel", {"num_inference_steps": 1000}),
        ("loss", {"name": "capped_dpo", "cap": INF}),  # means Diffusion-DPO
        ("log", {"wandb": "notes"}),
    ],
)
def test_the_ends_of_the_ranges_are_accepted(section, keys):
    parse_config({**MINIMAL, section: keys})


def test_eta_0_serves_objectives_without_importance_weights():
    raw = {**MINIMAL, "loss": {"name": "diffusion_dpo"}, "kernel": {"eta": 0}}
    assert parse_config(raw).kernel.deterministic
    with pytest.raises(UsageError, match=r"kernel\.eta.*omega: transition"):
        parse_config({**raw, "loss": {"name": "diffusion_dpo", "omega": "transition"}})


def test_types_ranges_and_what_components_refuse_come_together():
    with pytest.raises(UsageError) as error:
        parse_config({
            "run": "r", "model": {"path": "m", "guidance": -1}, "data": {"resolution": 0, "flip": 3},
            "loss": {"name": "sipo", "beta": -1, "clip_range": 2, "omega": "none", "horizon": 0, "prune": 1},
            "timesteps": {"name": "logit_normal", "std": 0, "low": 9, "high": 3},
            "train": {"sharding": "full", "compile": True, "betas": [2, 2]}, "policy": {"reference": "start", "rank": "many"},
        })  # fmt: skip
    lines = [line.strip() for line in str(error.value).splitlines()]
    for beginning in (
        "model.guidance: found -1", "data.path: missing", "data.resolution: found 0", "data.flip: found 3",
        "loss.beta is -1", "loss.clip_range is 2", "loss.omega: found 'none'", "loss.horizon is 0",
        "loss.prune: unknown key; did you mean prune_threshold?", "timesteps.std is 0", "timesteps.high = 3",
        "train.sharding: full goes with", "train.betas: found [2, 2]", "policy.reference: start needs", "policy.rank: found 'many'",
    ):  # fmt: skip
        assert sum(line.startswith(beginning) for line in lines) == 1, f"{beginning!r} in\n{error.value}"
    assert lines[0].startswith(f"{len(lines) - 1} mistakes")


def test_a_wrong_value_is_blamed_once():
    """`start` is of the wrong type: that it is missing, which `reference` would complain of, is not said too."""
    with pytest.raises(UsageError, match=r"1 mistake in config:\n  policy\.start: found \[1\]"):
        parse_config({**MINIMAL, "policy": {"reference": "start", "start": [1]}})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("kernel.steps", "num_inference_steps"), ("loss.prune", "prune_threshold"), ("data.res", "resolution"),
        ("train.lr", "learning_rate"), ("train.gradient_accumulation_steps", "gradient_accumulation"),
        ("policy.r", "rank"), ("loss.beta_dpo", "beta"), ("model.pretrained_model_name_or_path", "path"),
        ("num_steps", "train.num_steps"), ("lr", "train.learning_rate"), ("output_dir", "run"), ("rank", "policy.rank"),
        ("train.resolution", "data.resolution"), ("model.rank", "policy.rank"), ("data.beta", "loss.beta"),
        ("train.tensorbord", "log.tensorboard"), ("sample.eta", "kernel.eta"), ("policy.learning_rate", "train.learning_rate"),
    ],
)  # fmt: skip
def test_the_nearest_key_over_all_levels(key, meant):
    section, _, name = key.rpartition(".")
    raw = {**MINIMAL, section: {**MINIMAL.get(section, {}), name: 1}} if section else {**MINIMAL, name: 1}
    with pytest.raises(UsageError) as error:
        parse_config(raw)
    assert f"{key}: unknown key; did you mean {meant}?" in str(error.value)


def test_a_key_of_another_choice_is_named_as_that_with_a_way_out(tmp_path):
    """`loss.name=sft` alone leaves the other objective's keys where they were."""
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "loss": {"name": "sipo", "beta": 1}}))
    with pytest.raises(
        UsageError, match=r"loss\.beta: unknown key; another loss has it, this one has: no keys"
    ) as error:
        load_config(file, ["loss.name=sft"])
    assert "(loss='{name: NAME}' replaces the whole section)" in str(error.value)
    assert load_config(file, ["loss={name: sft}"]).loss == SFT()


def bomb(levels: int, merge: bool = False) -> str:
    lines = ["a0: &a0 {k0: 1, l0: 2}" if merge else "a0: &a0 [x, x]"]
    for i in range(1, levels):
        two = f"*a{i - 1}, *a{i - 1}"
        lines.append(f"a{i}: &a{i} {{<<: [{two}], k{i}: 1}}" if merge else f"a{i}: &a{i} [{two}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [bomb(60), bomb(60, merge=True), "a: &a [*a]", "[" * 20_000, "{a: " * 20_000, f"a: 0x{'f' * 9000}"]
)
def test_alias_bombs_and_depths_end_at_once(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(UsageError) as error:
        load_config(tmp_path / "c.yaml")
    assert time.process_time() - start < 5
    assert len(str(error.value)) < 2000


def test_aliases_of_people_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(MINIMAL) + "train: &t {num_steps: 3}\nsample: {<<: &s {seed: 4}}\n")
    config = load_config(tmp_path / "c.yaml")
    assert (config.train.num_steps, config.sample.seed) == (3, 4)
