"""Errors of the reference that are computed once: equal to the live reference on the same draws, and shared by runs."""

import copy
import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.configs import changed
from support.runs import assert_same_results, train_in_two, train_raw

from sipo import DiffusionDPO, Uniform, VPSchedule, draw_timesteps, pair_terms
from sipo.config import parse_config
from sipo.errors import UsageError, UserError
from sipo.kernels import DDIM
from sipo.plan.gpus import named_gpu
from sipo.plan.plan import make_plan
from sipo.run import RunDir
from sipo.terms import ImportanceWeight, term_metrics
from sipo.train import reference as subject
from sipo.train.known import Shards, draws_of
from sipo.train.look import validate
from sipo.train.step import take_step

LOSSES = ("diffusion_dpo", "sipo", "dpo_cm", "ipo", "dpop", "nca", "safeguarded_dpo", "profile_dpo", "capped_dpo",
          "capped_sipo")  # fmt: skip


@pytest.fixture
def raw(raw_config, tmp_path):
    """4 pairs in steps of 2: steps 1 and 2 are the first pass, 3 and 4 the second, and the draws of the third come again."""
    return changed(raw_config, "train.reference={precompute: 2}", "data.max_pairs=4", "train.num_steps=6",
                   "data.flip=true", "data.prompt_dropout=0.3", f"data.cache={tmp_path / 'cache'}")  # fmt: skip


class Live:
    """The same draws with the reference of a LoRA policy, or a copy of the network as it was, in every step."""

    def __init__(self):
        self.copy = None

    def __call__(self, t, step, stop):
        if t.settings.num_steps and step == 1 and t.engine.policy.config.kind == "full":
            self.copy = copy.deepcopy(t.engine.policy.denoiser).requires_grad_(False).eval()
        policy = replace(t.engine.policy, frozen_copy=self.copy)
        return take_step(replace(t, engine=t.engine.with_policy(policy), known=Unknown(t.known)), step, stop)


class Unknown:
    """Draws without errors."""

    def __init__(self, known):
        self.known = known

    def of_step(self, batch, step):
        return replace(self.known.of_step(batch, step), reference_error=None)


def lines_of(run):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in run.read_metrics("train")]


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("cached", [True, False])
def test_equal_to_the_live_reference_on_the_same_draws(raw, tmp_path, kind, cached):
    raw = changed(raw, f"policy.kind={kind}", *([] if cached else ["data.cache=null"]))
    run = train_raw(raw)
    live = train_raw(changed(raw, f"run={tmp_path / 'live'}"), Live())
    assert_same_results(run, live, [4, 6])
    assert lines_of(run)[-1]["tie"] < 1


@pytest.mark.parametrize("name", LOSSES)
def test_every_objective_that_reads_errors_alone(raw, tmp_path, name):
    raw = changed(raw, f"loss={{name: {name}}}", "train.num_steps=2")
    assert lines_of(train_raw(raw)) == lines_of(train_raw(changed(raw, f"run={tmp_path / 'live'}"), Live()))


def test_from_a_start_with_either_reference_and_the_old_policy(raw, tmp_path):
    first = train_raw(changed(raw, f"run={tmp_path / 'first'}", "train.num_steps=2"))
    for number, keys in enumerate((["policy.reference=start"], ["weight={denominator: old}"])):
        again = changed(raw, f"run={tmp_path / f'known-{number}'}", f"policy.start={first.path}", *keys)
        live = train_raw(changed(again, f"run={tmp_path / f'live-{number}'}"), Live())
        assert lines_of(train_raw(again)) == lines_of(live)
    assert len(list((tmp_path / "cache-reference").iterdir())) == 2  # the base's serves both runs from it


def test_draws_come_again_after_n_visits_and_differ_before(raw):
    errors = {}

    def watch(t, step, stop):
        update = take_step(t, step, stop)
        errors[step] = sorted(update.pairs["mse_reference_chosen"])
        return update

    train_raw(raw, watch)
    passes = [sorted([*errors[step], *errors[step + 1]]) for step in (1, 3, 5)]
    assert passes[0] == passes[2]
    assert not set(passes[0]) & set(passes[1])


def test_validation_is_that_of_the_live_reference(raw, tmp_path):
    raw = changed(raw, "data.max_pairs=24", "data.validation=0.3", "train.validate_every=2", "train.num_steps=2",
                  "policy.kind=full")  # fmt: skip
    fresh = changed(raw, f"run={tmp_path / 'fresh'}", "train.reference={precompute: null}")
    before = [run.read_metrics("validation")[0] for run in (train_raw(raw), train_raw(fresh))]
    assert before[0] == before[1]
    seen = []

    def compare(t, step, stop):
        update = take_step(t, step, stop)
        frozen = replace(t.engine.policy, frozen_copy=base[0])
        live = replace(t, known=None, engine=t.engine.with_policy(frozen))
        seen.append(validate(t, t.validation, step) == validate(live, t.validation, step))
        return update

    base = []
    train_raw(changed(fresh, f"run={tmp_path / 'copied'}"), lambda t, step, stop: (
        base.append(t.engine.policy.frozen_copy), take_step(t, step, stop))[1])  # fmt: skip
    train_raw(changed(raw, f"run={tmp_path / 'again'}"), compare)
    assert seen == [True, True]


def test_full_fine_tuning_holds_no_copy_and_runs_no_reference(raw, monkeypatch):
    copies, calls = [], []
    made = subject.precompute

    def watched(t, *args):
        if t.engine.policy.frozen_copy is not None:
            copies.append(weakref.ref(t.engine.policy.frozen_copy))
        return made(t, *args)

    monkeypatch.setattr("sipo.train.opening.precompute", watched)
    live = subject.reference_error
    monkeypatch.setattr(subject, "reference_error", lambda *args: (calls.append(1), live(*args))[1])

    def step(t, number, stop):
        gc.collect()
        assert t.engine.policy.networks == [t.engine.policy.denoiser]
        assert copies[0]() is None
        return take_step(t, number, stop)

    raw = changed(raw, "policy.kind=full", "train.num_steps=4")
    run = train_raw(raw, step)
    assert (len(copies), len(calls)) == (1, 4)
    assert all(line["seconds"]["reference"] == 0 for line in run.read_metrics("train"))
    train_raw(changed(raw, f"run={run.path}-2", "loss.name=diffusion_dpo"), step)  # finds the errors: nothing to copy
    assert (len(copies), len(calls)) == (1, 4)


def test_a_stop_in_the_middle_loses_a_file_at_most(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("sipo.train.known.LEAST", 2)
    whole = train_raw(changed(raw, f"run={tmp_path / 'whole'}", f"data.cache={tmp_path / 'other'}"))
    left, live = [3], subject.reference_error

    def stopped(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return live(*args)

    monkeypatch.setattr(subject, "reference_error", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_raw(raw)
    (folder,) = (tmp_path / "cache-reference").iterdir()
    assert len(list(folder.glob("*.seal"))) == 3
    left[0] = 1  # what is missing, and no more
    assert_same_results(train_raw(raw), whole, [4, 6])


def test_only_the_draws_that_steps_visit_are_computed_and_more_when_a_run_grows(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("sipo.train.known.LEAST", 2)
    longer = changed(raw, "train.num_steps=6")
    train_raw(changed(raw, "train.num_steps=2"))
    (folder,) = (tmp_path / "cache-reference").iterdir()
    assert len(list(folder.glob("*.seal"))) == 2
    grown = train_raw(longer)
    assert len(list(folder.glob("*.seal"))) == 4
    assert_same_results(grown, train_raw(changed(longer, f"run={tmp_path / 'at once'}")), [6])


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_share_the_work_and_one_goes_on(raw, tmp_path, monkeypatch, sharding):
    raw = changed(raw, "policy.kind=full", "train.batch_size=1", f"train.sharding={sharding}", "train.num_steps=3",
                  "data.validation=0.3", "data.max_pairs=12", "train.validate_every=3")  # fmt: skip
    assert train_in_two(changed(raw, f"run={tmp_path / 'two'}")) == [0, 0]
    one = train_raw(changed(raw, f"data.cache={tmp_path / 'other'}", "train.batch_size=2"))
    mine, theirs = (
        {f.name: json.loads((f / "manifest.json").read_text())["draws"] for f in (tmp_path / name).iterdir()}
        for name in ("cache-reference", "other-reference")
    )
    assert mine == theirs
    assert set(mine.values()) == {2, "of validation"}
    for name in mine:
        a, b = (Shards(tmp_path / each / name, {}, 4, 4) for each in ("cache-reference", "other-reference"))
        torch.testing.assert_close(a.read(), b.read(), rtol=2e-6, atol=0)
    for line, other in zip(RunDir(tmp_path / "two").read_metrics(), one.read_metrics(), strict=True):
        np.testing.assert_allclose(line["loss"], other["loss"], rtol=1e-3)


@pytest.mark.parametrize(
    "key",
    ["train.seed=1", "train.reference.precompute=3", "timesteps={low: 100}", "timesteps={stratified: true}",
     "data.validation=0.4", "data.prompt_dropout=0", "policy.start=FIRST", "loss={name: ipo}", "kernel.eta=0.5"],
)  # fmt: skip
def test_runs_share_errors_where_nothing_that_makes_them_differs(raw, tmp_path, key):
    """The last three change no error."""
    raw = changed(raw, "train.num_steps=2")
    first = train_raw(raw)
    train_raw(changed(raw, f"run={tmp_path / 'second'}", key.replace("FIRST", str(first.path))))
    shared = key.startswith(("policy.start", "loss", "kernel"))
    made = [json.loads(file.read_text())["draws"] for file in (tmp_path / "cache-reference").glob("*/manifest.json")]
    assert len(made) - made.count("of validation") == (1 if shared else 2)


def test_a_damaged_file_is_named(raw, tmp_path):
    run = train_raw(changed(raw, "train.num_steps=2"))
    (file,) = (tmp_path / "cache-reference").glob("*/errors-00000.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match=r"errors-00000\.safetensors is damaged.*delete it"):
        train_raw(changed(raw, f"run={run.path}-2"))
    file.unlink()
    assert lines_of(train_raw(changed(raw, f"run={run.path}-3", "train.num_steps=2"))) == lines_of(run)


def test_nan_of_the_reference_is_named_before_the_first_step(raw, monkeypatch):
    live = subject.reference_error
    monkeypatch.setattr(subject, "reference_error", lambda *args: live(*args) / 0 * 0)
    with pytest.raises(
        UserError, match=r"reference's error is NaN or infinite for .*:\d+, .*:\d+: the cache holds NaN, or the model"
    ):
        train_raw(raw)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["weight={denominator: reference}"], r"weight\.denominator: reference reads the reference's predictions"),
        (["weight={denominator: old}"], r"weight\.denominator: old reads"),  # without a start that is the reference
        (["loss={name: d3po}"], r"loss\.name: d3po reads the densities"),
        (["loss={name: sft}"], r"loss\.name: sft has no reference"),
        (["train.reference.precompute=0"], r"train\.reference\.precompute: found 0; expected at least 1"),
        (["train.reference=4"], r"train\.reference: "),
    ],
)
def test_what_needs_more_than_errors_is_refused_when_the_config_is_read(raw, keys, expected):
    with pytest.raises(UsageError, match=expected):
        parse_config(changed(raw, *keys))


def test_the_draws_of_a_run_cannot_change(raw):
    train_raw(changed(raw, "train.num_steps=2"))
    for key in ("train.reference.precompute=null", "train.reference.precompute=4"):
        with pytest.raises(UsageError, match=r"train\.reference\.precompute"):
            train_raw(changed(raw, key))


def test_strata_are_hit_once_by_the_draws_of_each_pair_and_mixed_within_a_pass():
    n, ids = 4, [f"pairs.jsonl:{i}" for i in range(64)]
    alphas = torch.linspace(0.99, 0.01, 1000)
    hit = []
    for visit in range(2 * n):
        draws = draws_of(0, ids, torch.full((64,), visit), n)
        t = draw_timesteps(Uniform(low=0, stratified=True), VPSchedule(alphas, "epsilon"), 50, 0, ids, draws, n)
        hit.append(t * n // 1000)
    strata = torch.stack(hit)
    assert torch.equal(strata[:n].sort(0).values, torch.arange(n)[:, None].expand(n, 64))
    assert torch.equal(strata[:n], strata[n:])
    counts = torch.stack([row.bincount(minlength=n) for row in strata])
    assert counts.min() > 4  # of 16 expected: P < 1e-4 for a binomial of 64 and 1/4, 32 times


def test_terms_with_a_known_error_are_those_of_the_reference():
    torch.manual_seed(0)
    x, y, eps = torch.randn(3, 5, 2, 3).unbind(0)
    t, network, schedule = torch.tensor([3, 500, 900, 10, 70]), (lambda xt, t: 0.3 * xt), VPSchedule(
        torch.linspace(0.99, 0.01, 1000), "epsilon")  # fmt: skip
    args = (schedule, DDIM(), 50, ImportanceWeight(), x, y, eps, t)
    live = pair_terms(lambda xt, t: 0.5 * xt, network, *args)
    errors = torch.cat([live.chosen.reference_error, live.rejected.reference_error])
    known = pair_terms(lambda xt, t: 0.5 * xt, None, *args, reference_error=errors)
    assert known.chosen.reference is known.rejected.reference is None
    assert DiffusionDPO()(known)[0].equal(DiffusionDPO()(live)[0])
    assert all(value.equal(term_metrics(live)[name]) for name, value in term_metrics(known).items())
    assert term_metrics(known).keys() == term_metrics(live).keys()


def test_a_plan_counts_no_reference(raw):
    with_one, without = (
        make_plan(parse_config(changed(raw, "policy.kind=full", *keys)), named_gpu("h100"), [1])
        for keys in (["train.reference.precompute=null"], [])
    )
    assert with_one.step.reference_forward > without.step.reference_forward == 0
    assert with_one.layouts[0].memory.reference > without.layouts[0].memory.reference == 0
