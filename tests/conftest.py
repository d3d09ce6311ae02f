"""Shared by all tests: one thread (two busy processes with two threads each crawl), tiny checkpoints, tiny pairs."""

import io
import json
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
# matplotlib's list of fonts takes seconds to make; in the test's own cache folder every process would make it anew.
os.environ.setdefault("MPLCONFIGDIR", str(Path(gettempdir()) / "sipo-tests-matplotlib"))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image

from sipo.backbones import quiet_libraries

torch.set_num_threads(1)
# Time is measured by benchmarks: a busy machine must not fail a test.
settings.register_profile("sipo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sipo")
quiet_libraries()


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory) -> Path:
    """An SD1.5-type checkpoint with random weights, 16 x 16 pixels."""
    from support import checkpoints as tiny

    return tiny.stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory) -> Path:
    """An SDXL-type checkpoint with random weights, 16 x 16 pixels."""
    from support import checkpoints as tiny

    return tiny.stable_diffusion_xl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def tiny_family(tmp_path_factory) -> Callable[[str], Path]:
    """The checkpoint of a family by its name in `tiny.FAMILIES` or `tiny.EDITING`, made when first asked for."""
    from support import checkpoints as tiny

    return cache(lambda name: {**tiny.FAMILIES, **tiny.EDITING}[name][0](tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory) -> Path:
    """24 pairs of noise pictures in Pick-a-Pic's schema, 7 prompts."""
    rng = np.random.default_rng(0)

    def picture() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    columns = {
        "jpg_0": [picture() for _ in range(24)],
        "jpg_1": [picture() for _ in range(24)],
        "label_0": [float(i % 2) for i in range(24)],
        "caption": [f"prompt {i % 7}" for i in range(24)],
    }
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="session")
def editing_pairs(tmp_path_factory) -> Path:
    """A manifest of 12 pairs of noise pictures that are edits of sources of another shape, 4 prompts."""
    from support.pictures import picture

    folder, lines = tmp_path_factory.mktemp("edits"), []
    for i in range(12):
        names = {member: f"{i}-{member}.png" for member in ("chosen", "rejected", "source")}
        for place, (member, name) in enumerate(names.items()):
            (folder / name).write_bytes(picture(3 * i + place, (34, 20) if member == "source" else (20, 24)))
        lines.append({"prompt": f"prompt {i % 4}", **names})
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "edits.jsonl"


@pytest.fixture
def small_sources(monkeypatch) -> None:
    """Qwen-Image-Edit scales sources to 1/256 of 1024 x 1024 pixels, here and in its pipelines: seconds less a forward."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        own = module.calculate_dimensions
        monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio, own=own: own(area // 256, ratio))


@pytest.fixture
def raw_config(tiny_sd, tiny_pairs, tmp_path) -> dict:
    """A config as YAML gives it, small enough to run in seconds."""
    return {
        "run": str(tmp_path / "run"),
        "model": {"path": str(tiny_sd)},
        "data": {"path": str(tiny_pairs), "workers": 0},
        "loss": {"name": "sipo", "beta": 1.0},
        "policy": {"kind": "lora", "rank": 4, "alpha": 4},
        "train": {"num_steps": 4, "batch_size": 2, "learning_rate": 1e-3, "checkpoint_every": 2, "sample_every": 0,
                  "validate_every": 0},
        "sample": {"num_prompts": 2, "num_inference_steps": 2},
        "log": {"tensorboard": False},
    }  # fmt: skip


@pytest.fixture(autouse=True)
def own_memory(tmp_path_factory, monkeypatch) -> None:
    """Results of data checks are remembered in the user's cache folder; tests have their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "xdg"))


@pytest.fixture(autouse=True, scope="session")
def arrow_cache(tmp_path_factory):
    """Tables are converted into a folder of this session, not into the user's cache of Hugging Face `datasets`."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("arrow")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the hub, which this process talks to; nobody is logged in."""
    from support.hub_server import connect, stand_in

    with stand_in() as found:
        connect(monkeypatch, found, tmp_path / "hub-cache")
        yield found


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Mark what `slow.txt` lists.

    bitsandbytes is no part of the development environment: diffusers imports it into every process, which takes seconds.
    """
    listed = tuple(Path(__file__).with_name("slow.txt").read_text().splitlines())
    for item in items:
        if item.nodeid.startswith(listed):
            item.add_marker(pytest.mark.slow)
    if find_spec("bitsandbytes") is None:
        for item in items:
            if item.get_closest_marker("nf4"):
                item.add_marker(pytest.mark.skip(reason="needs bitsandbytes: pip install sipo[8bit]"))
