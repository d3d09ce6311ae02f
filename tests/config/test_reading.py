"""The config says everything that is wrong at once, with the nearest right key."""

import pytest
import yaml

from sipo.config import differences, load_config, parse_config
from sipo.errors import UsageError
from sipo.kernels import DDIM, FlowSDE
from sipo.losses import SIPO, DiffusionDPO
from sipo.timesteps import LogitNormal, Uniform
from sipo.yaml12 import write_yaml

MINIMAL = {"run": "runs/x", "model": {"path": "miniature"}, "data": {"path": "miniature"}, "loss": {"name": "sipo"}}


def test_a_components_config_is_its_dataclass():
    config = parse_config({
        **MINIMAL, "loss": {"name": "sipo", "beta": 0.02, "clip_range": 0.2, "detach_weights": True},
        "kernel": {"name": "flow_sde", "noise_level": 0.5, "num_inference_steps": 20},
        "timesteps": {"name": "logit_normal", "std": 2.0},
    })  # fmt: skip
    assert config.loss == SIPO(beta=0.02, clip_range=0.2, detach_weights=True)
    assert config.kernel == FlowSDE(0.5)
    assert config.num_inference_steps == 20
    assert config.timesteps == LogitNormal(std=2.0)


def test_defaults():
    config = parse_config(MINIMAL)
    assert (config.kernel, config.num_inference_steps, config.timesteps) == (DDIM(1.0), 50, Uniform())
    assert (config.policy.kind, config.policy.rank, config.train.mixed_precision) == ("lora", 16, "no")


def test_what_is_written_reads_back_as_the_same_config(tmp_path):
    config = parse_config(
        {**MINIMAL, "train": {"betas": [0.8, 0.99], "ema_decay": 0.9}, "data": {"path": "x", "validation": 0.1}}
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()))
    assert load_config(path) == config
    assert differences(config.to_dict(), load_config(path).to_dict()) == []


def test_yaml_that_means_numbers_and_no(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("run: r\nmodel: {path: m}\ndata: {path: d, validation: 1e-1}\nloss: {name: diffusion_dpo, beta: 5}\n"
                    "train: {learning_rate: 1e-5, mixed_precision: no, num_steps: 1e3}\n")  # fmt: skip
    config = load_config(path)
    assert config.train.learning_rate == 1e-5
    assert config.train.mixed_precision == "no"
    assert config.data.validation == 0.1
    assert (config.train.num_steps, type(config.train.num_steps)) == (1000, int)
    assert config.loss == DiffusionDPO(beta=5.0)


@pytest.mark.parametrize("text", ["yes", "no", "on", "off", "'true'"])
def test_a_text_is_no_boolean(text, tmp_path):
    """YAML 1.1 read them as true and false; nothing that was true before may silently be something else."""
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(UsageError, match=r"data\.flip: found '\w+'; expected true or false"):
        load_config(path, [f"data.flip={text}"])
    assert load_config(path, ["data.flip=true"]).data.flip is True


def test_a_run_that_looks_like_a_number(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    assert [load_config(path, [f"run={text}"]).run for text in ("2024", "007", "'1e5'")] == ["2024", "007", "1e5"]
    with pytest.raises(UsageError, match=r"run: found 100000\.0; expected a text, in quotes"):
        load_config(path, ["run=1e5"])
    config = parse_config({**MINIMAL, "run": "1e5"})
    path.write_text(write_yaml(config.to_dict()))
    assert load_config(path) == config


def test_one_mistake_a_value(tmp_path):
    for key, value, expected in (
        ("resolution", "big", "a valid integer, unable to parse string as an integer; or a valid tuple"),
        ("resolution", True, "a valid integer; or a valid tuple"),
        ("validation", [1], "a valid number; or a valid string"),
    ):
        with pytest.raises(UsageError) as error:
            parse_config({**MINIMAL, "data": {"path": "d", key: value}})
        assert str(error.value) == f"1 mistake in config:\n  data.{key}: found {value!r}; expected {expected}"


def test_overrides(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    config = load_config(path, ["train.num_steps=7", "loss.beta=2e-2", "data.cache=null", "run=elsewhere"])
    assert (config.train.num_steps, config.loss.beta, config.data.cache, config.run) == (7, 0.02, None, "elsewhere")
    for bad in ("train.num_steps", "=3", "run.x=1", "train.betas=[1"):
        with pytest.raises(UsageError):
            load_config(path, [bad])


def test_all_mistakes_at_once_each_with_its_key():
    raw = {
        "modle": {}, "model": {"path": "m", "revison": "x"}, "data": {"path": "d", "ties": "maybe", "flip": 3},
        "loss": {"name": "sipo", "clip_rnage": 0.1}, "train": {"num_steps": "many", "batch_size": True, "learning_rate": -1},
        "kernel": {"num_inference_steps": 0}, "timesteps": {"name": "unifrom"},
    }  # fmt: skip
    with pytest.raises(UsageError) as error:
        parse_config(raw)
    text = str(error.value)
    for expected in (
        "modle: unknown key; did you mean model?", "run: missing", "model.revison: unknown key; did you mean revision?",
        "data.ties: found 'maybe'", "data.flip: found 3", "loss.clip_rnage: unknown key; did you mean clip_range?",
        "train.num_steps: found 'many'", "train.batch_size: found True", "kernel.num_inference_steps",
        "timesteps.name: 'unifrom' is none of uniform, logit_normal; did you mean uniform?",
    ):  # fmt: skip
        assert expected in text, f"{expected}\nis missing from\n{text}"


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("loss", {"name": "sipo", "clip_range": 1.5}, "clip_range is 1.5"),
        ("loss", {"name": "sipo", "beta": -1}, "beta"),
        ("loss", {"name": "dpo"}, "'dpo' is none of"),
        ("loss", {"beta": 1}, "None is none of sft"),
        ("train", {"num_steps": 0}, "train.num_steps: found 0; expected at least 1"),
        ("data", {"path": "d", "validation": 1.5}, "data.validation: found 1.5; expected at most 0.9"),
        ("weight", {"denominator": "policy"}, "weight.denominator"),
    ],
)
def test_values_out_of_range(section, keys, message):
    with pytest.raises(UsageError, match="1 mistake in config") as error:
        parse_config({**MINIMAL, section: keys})
    assert message in str(error.value)


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(UsageError, match="no config file"):
        load_config(tmp_path / "absent.yaml")
    for text, message in (("a: [", "not readable as YAML"), ("- 1", "found list")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(UsageError, match=message):
            load_config(tmp_path / "bad.yaml")
