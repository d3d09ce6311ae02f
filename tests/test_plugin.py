"""examples/plugin as a stranger uses it: installed into a fresh environment, listed, trained, scored by the command line."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from support.terms import random_terms

from sipo.jsonl import read_jsonl
from sipo.losses import DiffusionDPO
from sipo.run import RunDir

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment that sees this one's packages, with the plugin installed by pip, offline."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, folder / "source")  # where the build leaves its files
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    packages = folder / "env" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (packages / "shared.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation",
        "--disable-pip-version-check", "--target", packages, source)  # fmt: skip
    return folder / "env"


def run(*words: object) -> str:
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def sipo(environment):
    return lambda *words: run(environment / "bin" / "python", "-m", "sipo", *words)


def test_it_is_listed_with_its_package(sipo):
    (hinge,) = (line for line in sipo("list", "objectives").splitlines() if line.startswith("hinge "))
    assert hinge.split()[1:3] == ["sipo-example-plugin", "0.1.0"]
    assert "SLiC" in hinge
    assert "Mean brightness" in sipo("list", "scorers")


@pytest.mark.slow
def test_it_trains_and_scores(sipo, raw_config, tmp_path):
    raw_config |= {"loss": {"name": "hinge", "beta": 0.5}}
    raw_config["train"] |= {"num_steps": 2, "sample_every": 2}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(raw_config))
    assert "Hinge(beta=0.5" in sipo("train", config)
    run_folder = Path(raw_config["run"])
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["loss"]["name"] == "hinge"
    first = RunDir(run_folder).read_metrics("train")[0]
    assert first["loss"] == pytest.approx(1)  # the policy is the reference still, so that m = 0
    sipo("score", run_folder, "--scorer", "brightness")
    (scores,) = run_folder.rglob("scores.brightness.jsonl")
    lines = read_jsonl(scores)
    assert len(lines) == 2
    for line in lines:
        pixels = list(Image.open(scores.parent / line["file"]).convert("L").getdata())
        assert line["score"] == pytest.approx(sum(pixels) / len(pixels) / 255)


def test_the_objective_is_the_hinge_on_diffusion_dpos_logit(monkeypatch):
    monkeypatch.syspath_prepend(PLUGIN)
    from sipo_example_plugin import Hinge

    terms = random_terms(5)
    losses, metrics = Hinge(beta=2.0)(terms)
    dpo, _ = DiffusionDPO(beta=2.0)(terms)
    logit = -torch.log(torch.expm1(dpo))  # dpo = softplus(-logit)
    torch.testing.assert_close(losses, (1 - logit).clamp(min=0), rtol=1e-4, atol=1e-4)
    assert metrics.keys() == DiffusionDPO()(terms)[1].keys()


def test_the_documentation_shows_the_example_as_it_is():
    page = (PLUGIN.parents[1] / "docs" / "extending.md").read_text()
    module = (PLUGIN / "sipo_example_plugin.py").read_text()
    (python,), (toml,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    assert python == module[module.index("@dataclass") :]
    assert toml in (PLUGIN / "pyproject.toml").read_text()
