"""`data.noise: sampled`: from samples with seeds, through pairs, to the target of a training step; and what is refused."""

import json

import numpy as np
import pytest
import torch
from support.configs import changed
from support.runs import QUIET

from sipo.backbones.opening import open_weights
from sipo.config import parse_config
from sipo.errors import UsageError, UserError
from sipo.evaluate.label.files import write_pairs
from sipo.evaluate.label.label import Candidate, label
from sipo.evaluate.scores.score import score
from sipo.rng import pair_randn
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.train.loop import train
from sipo.train.step import accumulate, apply, batch_terms

SEED = 3


class Brightness:
    name = "brightness"

    def __call__(self, media, prompts, metadata=None):
        return [float(np.asarray(picture).mean()) for picture in media]


@pytest.fixture
def raw(raw_config, tiny_family):
    """A flow model on pairs that it will have sampled."""
    return changed(raw_config, f"model.path={tiny_family('flux')}", "data.resolution=16", "data.noise=sampled", "loss={name: diffusion_dpo}",
                   f"train.seed={SEED}", "train.num_steps=1")  # fmt: skip


@pytest.fixture
def pairs(raw, tmp_path):
    """name -> the file of 4 pairs of 8 samples."""
    config = parse_config(raw)
    opened = open_weights(config, config.model, None, "base", 1)
    items = [PromptItem(f"prompt {n // 2}", 100 + n) for n in range(8)]
    folder = generate(opened.sampler, items, tmp_path / "samples", opened.settings)
    labels = label([Candidate(folder / each.sample.file, each, "tiny") for each in score(folder, Brightness())])
    return lambda name: write_pairs(labels.preferences.pairs, tmp_path / name)


def targets(raw, *overrides):
    """The targets of the first step, by pair: (2, C, h, w) of chosen and rejected; and the slots of the pairs."""
    found = {}

    def terms_of(t, batch, step, global_batch, clock):
        terms = batch_terms(t, batch, step, global_batch, clock)
        for place, id in enumerate(batch.ids):
            found[id] = torch.stack([terms.chosen.target[place], terms.rejected.target[place]]), int(batch.slots[place])
        return terms

    def take_step(t, step, stop):
        return apply(t, step, *accumulate(t, step, terms_of), stop)

    run = train(parse_config(changed(raw, *overrides)), QUIET, take_step)
    return found, run


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl"])
def test_the_noise_of_a_step_is_that_of_the_samples_seeds(raw, pairs, tmp_path, name):
    raw = changed(
        raw, f"data.path={pairs(name)}", f"data.cache={tmp_path / 'cache'}" if "parquet" in name else "data.cache=null"
    )
    sampled, _ = targets(raw, f"run={tmp_path / 'sampled'}")
    drawn, _ = targets(raw, f"run={tmp_path / 'drawn'}", "data.noise=drawn")
    seeds = seeds_of(pairs("seeds.jsonl"))
    assert len(sampled) == 2  # a batch of 2
    for id, (target, slot) in sampled.items():
        shared = pair_randn(target.shape[1:], SEED, 1, torch.tensor([slot]), "eps")  # what both members would have had
        own = [torch.randn(target.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds[row_of(id)]]
        torch.testing.assert_close(target - drawn[id][0], torch.stack(own) - shared)  # x_0 is the same


def seeds_of(manifest):
    lines = map(json.loads, manifest.read_text().splitlines())
    return [(line["chosen_seed"], line["rejected_seed"]) for line in lines]


def row_of(id):
    """Of "pairs.parquet:2" (a row, from 0) and "pairs.jsonl:3" (a line, from 1)."""
    name, number = id.split(":")
    return int(number) - name.endswith("jsonl")


def test_a_reference_that_runs_once_has_that_noise_too(raw, pairs):
    _, run = targets(raw, f"data.path={pairs('pairs.parquet')}", "train.reference.precompute=2")
    (line,) = run.read_metrics("train")
    for member in ("chosen", "rejected"):  # LoRA begins as the reference
        assert line[f"mse_policy_{member}"] == pytest.approx(line[f"mse_reference_{member}"], rel=1e-5)


def test_fitting_the_chosen_needs_no_seed_of_the_rejected(raw, pairs, tmp_path):
    lines = [json.loads(line) for line in pairs("pairs.jsonl").read_text().splitlines()]
    for line in lines:
        del line["rejected_seed"]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = train(parse_config(changed(raw, f"data.path={tmp_path / 'some.jsonl'}", "loss={name: sft}")), QUIET)
    assert run.read_metrics("train")[0]["loss"] > 0
    with pytest.raises(UserError, match=r"4 of 4 pairs lack it; the first, some\.jsonl:1: there is no rejected seed"):
        train(parse_config(changed(raw, f"data.path={tmp_path / 'some.jsonl'}", f"run={tmp_path / 'other'}")), QUIET)


def test_what_cannot_be_is_refused_before_the_weights_are_read(raw, raw_config, tiny_pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("sipo.train.opening.load_backbone", None)
    with pytest.raises(UsageError, match=r"data\.noise: sampled joins .* this one predicts epsilon: use drawn"):
        train(parse_config(changed(raw_config, "data.noise=sampled")), QUIET)
    with pytest.raises(
        UserError, match=r"24 of 24 pairs lack it; the first, pairs\.parquet:0: there is no chosen seed and sampler"
    ):
        train(parse_config(changed(raw, f"data.path={tiny_pairs}")), QUIET)
    with pytest.raises(
        UsageError, match=r"noise: sampled is the noise of a picture as it was drawn, which flip mirrors"
    ):
        parse_config(changed(raw, "data.flip=true"))
    with pytest.raises(UsageError, match=r"d3po trains on trajectories, for which data\.noise does nothing"):
        train(parse_config(changed(raw, "loss={name: d3po}")), QUIET)
