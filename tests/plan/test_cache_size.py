"""The planned size of a cache against what encoding one pair and one prompt of it takes."""

import io

import pytest
from rich.console import Console
from support.checkpoints import FAMILIES
from support.configs import changed

from sipo.backbones import load_backbone
from sipo.config import parse_config
from sipo.data.cache.encode import _item_bytes
from sipo.data.cache.plan import EncodeRequest
from sipo.data.pairs.open import open_pairs
from sipo.plan.gpus import named_gpu
from sipo.plan.plan import make_plan
from sipo.plan.report import render, to_dict


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "flip"), [("float32", False), ("float16", True)])
def test_bytes_of_a_pair_and_a_prompt(raw_config, tiny_family, tmp_path, family, dtype, flip):
    data = {**FAMILIES[family][1], "cache": str(tmp_path / "cache"), "cache_dtype": dtype, "flip": flip}
    raw = changed(raw_config, f"model.path={tiny_family(family)}", *(f"data.{key}={data[key]}" for key in data))
    config = parse_config(raw)
    backbone = load_backbone(config.model, "cpu", config.train.compute_dtype, size=config.data.size)
    source = open_pairs(config.data.path)
    request = EncodeRequest(source, [0], backbone.size, flip=flip, dtype=dtype)
    plan = make_plan(config, named_gpu("h100"), [1])
    assert plan.cache is not None
    assert (plan.cache.pair, plan.cache.prompt) == _item_bytes(backbone, request)
    assert plan.cache.pairs_in_all == len(source) * plan.cache.pair
    assert to_dict(plan)["cache_bytes"]["pair"] == plan.cache.pair
    console = Console(width=200, file=io.StringIO())
    render(plan, console)
    assert f"cache in {dtype}: " in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_data_that_is_not_at_hand(raw_config, tmp_path):
    raw = changed(raw_config, f"data.cache={tmp_path / 'cache'}", "data.path=absent.parquet")
    plan = make_plan(parse_config(raw), named_gpu("h100"), [1])
    assert plan.cache is not None
    assert plan.cache.pairs is plan.cache.pairs_in_all is None
    assert make_plan(parse_config(raw_config), named_gpu("h100"), [1]).cache is None
