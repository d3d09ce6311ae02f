"""The cheapest set of switches by which a training fits: against plans of what is typed, and against trying all of them."""

import dataclasses
import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from support.command_line import run
from support.configs import changed

from sipo.config import load_config, parse_config
from sipo.errors import UsageError
from sipo.plan.fit import Answer, fit
from sipo.plan.gpus import GPUS, Gpu
from sipo.plan.measure import measure
from sipo.plan.plan import make_plan
from sipo.plan.switches import switches

GIB = 2**30


def with_room(num_bytes: float) -> Gpu:
    """A GPU to which so many bytes fit."""
    return dataclasses.replace(GPUS["rtx4090"], name="small", memory=1 + num_bytes / GIB)


def overrides(way) -> list[str]:
    return [override for switch in way.switches for override in switch.change]


@pytest.fixture
def raw(raw_config):
    return changed(raw_config, "train.mixed_precision=bf16", "train.batch_size=4")


def answered(raw: dict, room: float) -> Answer:
    return fit(parse_config(raw), with_room(room), 1)


@pytest.fixture
def every(raw):
    """The config with every set of switches, the set, and whether its result stays the same."""
    config, found = parse_config(raw), []
    for n in range(len(switches(config)) + 1):
        for chosen in combinations(switches(config), n):
            if any(switch.shards for switch in chosen):
                continue
            change = [override for switch in chosen for override in switch.change]
            try:
                now = parse_config(changed(raw, *change))
            except UsageError:
                continue
            if len(change) == len({each.split("=")[0] for each in change}):
                found.append((now, frozenset(chosen), all(switch.same for switch in chosen)))
    assert len(found) > 40
    return found


def test_what_is_typed_has_the_memory_and_the_time_that_are_shown(raw):
    before = answered(raw, 1e15).before
    answer = answered(raw, 0.3 * before.layout.memory.total)
    assert answer.best is not None
    typed = make_plan(
        parse_config(changed(raw, *overrides(answer.best))), with_room(0.3 * before.layout.memory.total), [1]
    )
    assert typed.layouts[0].memory == answer.best.layout.memory
    assert (typed.seconds, typed.fits(typed.layouts[0])) == (answer.best.plan.seconds, True)
    assert not answer.before.fits


def test_as_it_is_where_it_fits(raw):
    answer = answered(raw, 1e15)
    assert answer.best is not None
    assert answer.best.switches == []
    assert answer.before.fits
    assert answer.faster is None


def test_the_cheapest_of_all_sets_that_fit(raw, every):
    """Where it does not fit as it is, numbers stay wherever they can, then time decides; below the least nothing fits."""
    gpu, counted = GPUS["rtx4090"], measure(parse_config(raw))
    plans = [(make_plan(config, gpu, [1], counted), chosen, same) for config, chosen, same in every]
    needs = sorted({plan.layouts[0].memory.total for plan, _, _ in plans})
    kept = min(plan.layouts[0].memory.total for plan, _, same in plans if same)
    assert needs[0] < kept  # some rooms need a switch that changes numbers
    for room in (needs[-1] - 1, needs[len(needs) // 2], kept, (needs[0] + kept) // 2, needs[0]):
        fitting = {chosen: (plan.seconds, same) for plan, chosen, same in plans if plan.layouts[0].memory.total <= room}
        needed = [way for chosen, way in fitting.items() if not any(other < chosen for other in fitting)]
        pool = [seconds for seconds, same in needed if same] or [seconds for seconds, _ in needed]
        best = fit(parse_config(raw), with_room(room), 1).best
        assert best is not None
        assert (not best.changing) == any(same for _, same in needed)
        assert frozenset(best.switches) in fitting
        assert not any(other < frozenset(best.switches) for other in fitting)  # nothing that is not needed
        if not best.changing:
            assert best.plan.seconds == pytest.approx(min(pool))
    assert fit(parse_config(raw), with_room(needs[0] - 1), 1).best is None


@pytest.mark.slow
def test_a_full_fine_tuning_gets_adapters_only_where_nothing_else_helps(raw):
    full = changed(raw, "policy.kind=full")
    before = answered(full, 1e15).before.layout.memory
    kept = answered(full, 0.6 * before.total).best
    assert kept is not None
    assert "policy.kind=lora" not in overrides(kept)
    last = answered(full, 1.05 * answered(full, 1).least.layout.memory.total).best
    assert last is not None
    assert "policy.kind=lora" in overrides(last)


@pytest.mark.slow
def test_several_gpus_may_shard(raw):
    full = parse_config(changed(raw, "policy.kind=full", "train.gradient_checkpointing=true", "train.batch_size=1"))
    one = fit(full, with_room(1), 1)
    assert not any(switch.shards for switch in one.least.switches)
    eight = fit(full, with_room(1), 8)
    assert any(switch.shards for switch in eight.least.switches)
    assert eight.least.layout.kind == "sharded"
    assert eight.least.layout.memory.total < one.least.layout.memory.total


def on_command_line(raw, tmp_path, monkeypatch, capsys, room: float, *more) -> str:
    monkeypatch.setitem(GPUS, "small", with_room(room))
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(raw))
    status, told, complaint = run(monkeypatch, capsys, "plan", tmp_path / "my.yaml", "--gpu", "small", "--fit", *more)
    assert status == 0, complaint
    return told


def test_the_command_says_what_to_type(raw, tmp_path, monkeypatch, capsys):
    before = answered(raw, 1e15).before.layout.memory.total
    told = on_command_line(raw, tmp_path, monkeypatch, capsys, 0.4 * before, "--json", tmp_path / "fit.json")
    assert "as it is, it does not fit" in told
    typed = re.search(rf"sipo train {tmp_path}/my.yaml (.*)", told)
    assert typed
    config = load_config(tmp_path / "my.yaml", typed[1].split())
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["best"]["overrides"] == typed[1].split()
    assert found["best"]["bytes_per_gpu"] == make_plan(config, GPUS["h100"], [1]).layouts[0].memory.total
    assert found["before"]["fits"] is False


def test_the_command_says_that_nothing_fits(raw, tmp_path, monkeypatch, capsys):
    """And which GPU would do: of those that compute in bfloat16, as the one that was asked for."""
    told = on_command_line(raw, tmp_path, monkeypatch, capsys, 1)
    assert "nothing fits: the least is" in told
    assert "the smallest known GPU that it fits: l4" in told
    assert "sipo train" not in told


def test_several_numbers_of_gpus_are_no_question_for_it(raw, tmp_path, monkeypatch, capsys):
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(raw))
    status, _, complaint = run(monkeypatch, capsys, "plan", tmp_path / "my.yaml", "--fit", "--gpus", "1,2")
    assert status == 2
    assert "--fit: one number of GPUs" in complaint


@pytest.mark.slow
def test_published_models_on_a_card_of_24_gb():
    """FLUX.1-dev by adapters: moved blocks keep the numbers, and its 22 GiB of bfloat16 never lie on the card."""
    config = load_config(Path(__file__).parents[2] / "configs" / "flux-geneval-sipo.yaml")
    answer = fit(config, GPUS["rtx4090"], 1)
    assert answer.best is not None
    assert "model.offload=blocks" in overrides(answer.best)
    assert answer.best.changing == []
    assert answer.best.layout.memory.weights < 5 * GIB
