"""Planning and training accept the same sizes, refuse the same ones, and in the same words."""

import pytest
import torch
from rich.console import Console
from support.checkpoints import FAMILIES

from sipo.backbones import load_backbone
from sipo.config import parse_config
from sipo.errors import UserError
from sipo.plan.gpus import GPUS
from sipo.plan.plan import make_plan
from sipo.train.loop import train

IMAGE = [{"resolution": sides} for sides in (12, 18, 23, [32, 20], [20, 18], [48, 64])]
VIDEO = [
    {"resolution": sides, "num_frames": frames}
    for sides, frames in [(16, 5), (16, 6), (20, 5), (32, 5), (24, 9), ([32, 16], 9), ([16, 24], 8)]
]
# Sides that each tiny network takes, worked out from its layers: the VAE's halvings, times those of the UNet, or the patch.
MULTIPLES = {
    "cogvideox-2b": 4 * 2,
    "cogvideox-5b": 4 * 2,
    "wan": 8 * 2,
    "wan2.2-14b": 8 * 2,
    "wan2.2-5b": 16 * 2,
    "ltx2": 32,  # by its pipeline
}  # of all others 2 * 2


def fits(name: str, data: dict) -> bool:
    sides = data["resolution"] if isinstance(data["resolution"], list) else [data["resolution"]] * 2
    return all(side % MULTIPLES.get(name, 4) == 0 for side in sides) and (data.get("num_frames", 1) - 1) % 4 == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_plans_and_trainings_take_the_same_sizes(name, raw_config, tiny_family):
    sizes = VIDEO if name.startswith(("cogvideox", "wan", "hunyuan", "ltx")) else IMAGE
    assert {fits(name, data) for data in sizes} == {True, False}
    for data in sizes:
        raw = {**raw_config, "model": {"path": str(tiny_family(name))}, "data": {**raw_config["data"], **data}}
        config, refused = parse_config(raw), {}
        ways = {
            "plan": lambda config=config: make_plan(config, GPUS["h100"], [1]),
            "load": lambda config=config: load_backbone(config.model, size=config.data.size),
            "train": lambda config=config: train(config, Console(quiet=True)),
        }
        if fits(name, data):
            del ways["train"]  # it would train; `load` is what it does with the size
        for way, call in ways.items():
            try:
                found = call()
            except UserError as error:
                refused[way] = str(error)
            else:
                assert fits(name, data), f"{way} takes {data}"
                if way == "load":
                    predicts(found)
        assert len(refused) == (0 if fits(name, data) else 3), (data, refused)
        assert len(set(refused.values())) <= 1, refused


def predicts(backbone) -> None:
    """The network really runs at this size."""
    xt = torch.randn(1, *backbone.adapter.latent_shape(backbone.size))
    conditioning = backbone.encode_prompts(["a"]) | backbone.conditioning_of(torch.zeros(1, 4))
    assert backbone.predict(backbone.denoiser, xt, torch.tensor([500.0]), conditioning).shape == xt.shape
    moments = backbone.encode_media(torch.zeros(1, *backbone.size.pixel_shape))
    assert moments.shape == (1, 2, *xt.shape[1:])
