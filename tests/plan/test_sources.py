"""Plans and rehearsals of models that edit: the source's tokens and its encoding are counted, and really computed."""

import math

import pytest
import torch
from rich.console import Console
from support.checkpoints import EDITING
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from sipo.backbones import load_backbone
from sipo.config import parse_config
from sipo.data.cache.encode import _item_bytes
from sipo.data.cache.plan import EncodeRequest
from sipo.data.pairs.open import open_pairs
from sipo.plan import rehearsal
from sipo.plan.gpus import GPUS
from sipo.plan.plan import make_plan
from sipo.plan.rehearsal import rehearse
from sipo.train.loop import train
from sipo.train.step import take_step

pytestmark = pytest.mark.usefixtures("small_sources")
QUIET = Console(quiet=True)


@pytest.fixture
def raw_of(raw_config, tiny_family, editing_pairs):
    """family -> a config, whose pairs no plan or rehearsal opens but for the size of a cache."""

    def make(family: str) -> dict:
        data = {**raw_config["data"], **EDITING[family][1], "path": str(editing_pairs), "cache": "elsewhere"}
        return {**raw_config, "model": {"path": str(tiny_family(family))}, "data": data}

    return make


@pytest.fixture
def raw(raw_of):
    return raw_of("flux-kontext")


def counted(flops: list[int]):
    """A step that notes its floating-point operations, of attention on the CPU too, which torch leaves out."""
    more = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *args, **keys: sdpa_flop_count(
            q, k, v
        ),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda out, q, k, v, *args, **keys: sdpa_backward_flop_count(out, q, k, v)
        ),
    }

    def step(*args):
        with FlopCounterMode(display=False, custom_mapping=more) as counter:
            update = take_step(*args)
        flops.append(counter.get_total_flops())
        return update

    return step


@pytest.mark.parametrize("family", ["flux-kontext", "qwen-image-edit", "qwen-image-edit-plus"])
def test_a_rehearsal_computes_what_the_plan_says(raw_of, family, tmp_path, monkeypatch):
    flops = []
    monkeypatch.setattr(rehearsal, "train", lambda config, console: train(config, console, counted(flops)))
    config = parse_config(raw_of(family))
    plan = make_plan(config, GPUS["h100"], [1])
    assert rehearse(config, tmp_path, 2, QUIET).size == plan.size
    assert flops == [plan.step.total] * 2
    (file,) = tmp_path.glob("edits-*/pairs.jsonl")
    lines = file.read_text().splitlines()
    assert all('"source"' in line for line in lines)


@pytest.mark.parametrize("family", ["wan2.1-i2v", "wan2.2-i2v", "wan2.2-5b-i2v"])
def test_a_rehearsal_of_image_to_video(raw_of, family, tmp_path):
    config = parse_config(raw_of(family))
    plan = make_plan(config, GPUS["h100"], [1])
    found = rehearse(config, tmp_path, 2, QUIET)
    assert (found.size, found.steps) == (plan.size, 1)
    assert found.size.is_video


@pytest.mark.parametrize("family", ["flux-kontext", "qwen-image-edit"])
def test_a_rehearsal_without_a_cache(raw_of, family, tmp_path):
    raw = raw_of(family)
    assert rehearse(parse_config({**raw, "data": {**raw["data"], "cache": None}}), tmp_path, 2, QUIET).steps == 1


def test_a_pair_s_source_is_encoded_once_where_there_is_no_cache(raw, tiny_family):
    """A pass of the VAE more for every pair than FLUX.1 with the same parts takes."""
    flux = {**raw, "model": {"path": str(tiny_family("flux"))}}
    edits, pictures = (
        make_plan(parse_config({**each, "data": {**each["data"], "cache": None}}), GPUS["h100"], [1])
        for each in (raw, flux)
    )
    text = pictures.step.encoders - 2 * (edits.step.encoders - pictures.step.encoders)  # two members of a pair
    assert 0 < text < pictures.step.encoders


@pytest.mark.parametrize("family", EDITING)
@pytest.mark.parametrize(("dtype", "flip", "dropout"), [("float32", False, 0.0), ("float16", True, 0.1)])
def test_bytes_of_a_pair_in_the_cache(raw_of, family, dtype, flip, dropout):
    """Moments of two members, and the source's latents; of a model whose text encoder sees the source also 512 tokens of 16
    numbers and the picture's, and their number, and all of it again with the empty prompt."""
    raw = raw_of(family)
    data = {**raw["data"], "cache_dtype": dtype, "flip": flip, "prompt_dropout": dropout}
    config = parse_config({**raw, "data": data})
    backbone = load_backbone(config.model, "cpu", config.train.compute_dtype, size=config.data.size)
    mixes = "qwen" in family
    empty = mixes and dropout > 0
    request = EncodeRequest(
        open_pairs(config.data.path), [0], backbone.size, flip=flip, dtype=dtype, empty_prompts=empty
    )
    plan = make_plan(config, GPUS["h100"], [1])
    assert plan.cache is not None
    assert (plan.cache.pair, plan.cache.prompt) == _item_bytes(backbone, request)
    numbers = math.prod(backbone.adapter.latent_shape(backbone.size))
    of_source, length = numbers, 0
    if mixes:  # of pictures of 64 x 64 pixels, which Qwen2.5-VL sees as 56 x 56 or (plus) 28 x 28
        of_source, length = 4 * 8 * 8 + 16 * (512 + (1 if family.endswith("plus") else 4)), 8
    if family == "wan2.1-i2v":
        of_source += 5 * 16  # what CLIP makes of 2 x 2 patches and the class
    bytes_of = 4 if dtype == "float32" else 2
    pair = 4 * numbers * bytes_of + (2 if empty else 1) * (of_source * bytes_of + length)
    assert plan.cache.pair == (2 if flip else 1) * pair
    assert (plan.cache.prompt == 0) == mixes
