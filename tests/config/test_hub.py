"""Configs of the hub: what a name stands for, and that none decides what only its user may."""

import pytest
import yaml
from support.configs import changed

from sipo.config import load_config
from sipo.errors import UsageError, UserError
from sipo.losses import SIPO, DiffusionDPO

RAW = {
    "run": "runs/x", "model": {"path": "o/base"}, "data": {"path": "hf://datasets/o/pairs"},
    "loss": {"name": "diffusion_dpo", "beta": 2.0}, "train": {"keep_best": {"scorer": "pickscore"}},
}  # fmt: skip


def put(hub, raw: dict, file: str = "config.yaml"):
    return hub.model("o/run", {file: yaml.safe_dump(raw).encode()})


@pytest.mark.parametrize("address", ["hf://o/run", "hf://o/run/", "hf://o/run/config.yaml", "hf://o/run@main"])
def test_the_config_of_a_run(hub, address):
    put(hub, RAW)
    config = load_config(address, ["run=runs/mine", "loss.beta=3"])
    assert (config.run, config.model.path, config.loss) == ("runs/mine", "o/base", DiffusionDPO(beta=3.0))


def test_a_file_of_a_revision(hub):
    put(hub, RAW, "more/other.yaml").commit(
        {"more/other.yaml": yaml.safe_dump(RAW | {"run": "second"}).encode()}, "next"
    )
    assert load_config("hf://o/run@next/more/other.yaml").run == "second"
    assert load_config("hf://o/run/more/other.yaml").run == "runs/x"


def test_the_address_of_pairs_is_a_training_on_them(hub):
    config = load_config("hf://datasets/o/pairs@v1/data", ["model.path=some/base"])
    assert (config.run, config.data.path) == ("runs/pairs", "hf://datasets/o/pairs@v1/data")
    assert config.loss == SIPO()
    with pytest.raises(UsageError, match=r"1 mistake in hf://datasets/o/pairs:\n  model: missing"):
        load_config("hf://datasets/o/pairs")
    assert hub.requests == []  # the pairs are for the training to open


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("train.keep_best.worker=curl evil", r"train\.keep_best\.worker: 'curl evil' is a command"),
        ("train.keep_best.scorer='os:system'", r"train\.keep_best\.scorer: 'os:system' names code"),
        ("train.keep_best.scorer=pickscore=/etc/x", r"train\.keep_best\.scorer: 'pickscore=/etc/x' is a path outside"),
        ("loss.name='module:Loss'", r"loss\.name: 'module:Loss' names code"),
        ("kernel.name='module:Loss'", r"kernel\.name: 'module:Loss' names code"),
        ("run=/elsewhere/x", r"run: '/elsewhere/x' is a path outside this folder"),
        ("run=../x", r"run: '\.\./x' is a path outside this folder"),
        ("data.cache=a/../../x", r"data\.cache: 'a/\.\./\.\./x' is a path outside this folder"),
        ("data.cache=~/x", r"data\.cache: '/.*/x' is a path outside this folder"),
        ("sample.prompts='C:\\x'", r"sample\.prompts: 'C:\\\\x' is a path outside this folder"),
        ("sample.prompts='\\\\server\\x'", r"sample\.prompts: .* is a path outside this folder"),
    ],
)
def test_what_only_its_user_may_decide_is_refused(hub, override, fault):
    put(hub, changed(RAW, override))
    with pytest.raises(UsageError, match=rf"hf://o/run is a config of the hub.*\n  {fault}.*\nGive values of your own"):
        load_config("hf://o/run")
    key, _, _ = override.partition("=")
    own = {
        "train.keep_best.worker": "null",
        "train.keep_best.scorer": "hpsv2",
        "loss.name": "dpo_cm",
        "kernel.name": "ddim",
    }
    load_config("hf://o/run", [f"{key}={own.get(key, 'here')}"])


def test_other_mistakes(hub):
    hub.model("o/run", {"config.yaml": b"a: [", "a.txt": b"", "list.yaml": b"- 1"})
    for address, message in {
        "hf://o/run": "hf://o/run: .*config.yaml",
        "hf://o/run/list.yaml": "hf://o/run/list.yaml: ",
        "hf://o/run/a.txt": "is no config: expected a .yaml file",
        "hf://o/run/absent.yaml": r"the repository has no absent\.yaml",
        "hf://o/nothing": "the hub has no such repository",
        "hf://o": "is no address of the hub",
    }.items():
        with pytest.raises(UserError, match=message):
            load_config(address)
