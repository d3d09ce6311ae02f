"""The base's errors against a transcription in plain torch, and the weights that follow from them against the terms."""

import numpy as np
import pytest
import torch
from support.core import scaled_linear, stable_diffusion

from sipo import DDIM, ImportanceWeight, pair_terms, step_coefficient
from sipo.backbones import load_backbone
from sipo.config import ModelConfig
from sipo.data.cache.encode import encode_cache
from sipo.data.cache.plan import EncodeRequest
from sipo.data.cache.read import Cache
from sipo.data.dataset import CachedPairs
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError
from sipo.jsonl import read_jsonl
from sipo.profile.errors import Probe, measure
from sipo.profile.unlike import Errors
from sipo.rng import pair_randn
from sipo.schedule import previous_timestep
from sipo.timesteps import LogitNormal, Uniform

ROWS = [1, 4, 7, 20, 23]


@pytest.fixture
def probe(tiny_sd):
    return Probe(load_backbone(ModelConfig(str(tiny_sd))), Uniform(), DDIM(), 50, seed=3, num_draws=4, batch_size=2)


@pytest.fixture
def pairs(probe, tiny_pairs, tmp_path):
    source = open_pairs(tiny_pairs)
    encode_cache(probe.backbone, EncodeRequest(source, ROWS, probe.backbone.size), tmp_path / "cache")
    return CachedPairs(Cache(tmp_path / "cache"), ROWS), [source.id(row) for row in ROWS]


@torch.no_grad()
def test_errors_are_those_of_a_transcription(probe, pairs, tmp_path):
    lines = measure(probe, *pairs, tmp_path / "pairs.jsonl")
    dataset, ids = pairs
    abar, unet, place = scaled_linear(), probe.backbone.denoiser, 3
    sample, zero = dataset.cache.get(place), torch.tensor([0])
    text = probe.backbone.encode_prompts([dataset.cache.prompt(sample.prompt)])["encoder_hidden_states"]
    assert [line["id"] for line in lines] == ids
    assert lines[place]["t"] == [125, 375, 625, 875]  # 1 + 999 (k + 1/2) / 4, of every item
    for k, t in enumerate(lines[place]["t"]):
        for name, (moments, _) in zip(("chosen", "rejected"), sample.members, strict=True):
            mean, logvar = moments[0]
            noise = pair_randn(mean.shape, 3, [ids[place]], zero, f"vae {name}")
            eps = pair_randn(mean.shape, 3, [ids[place]], torch.tensor([k]), "eps")
            x0 = 0.18215 * (mean + (0.5 * logvar).exp() * noise)
            xt = abar[int(t)].sqrt().float() * x0 + (1 - abar[int(t)]).sqrt().float() * eps
            error = ((unet(xt, int(t), text).sample - eps) ** 2).mean().item()
            assert lines[place][name][k] == pytest.approx(error, rel=1e-5)


def test_what_a_killed_call_left_is_kept(probe, pairs, tmp_path):
    file = tmp_path / "pairs.jsonl"
    whole = measure(probe, *pairs, file)
    content = file.read_bytes().splitlines(keepends=True)
    marked = content[0].replace(b'"t"', b'"kept": 1, "t"')
    file.write_bytes(marked + content[1] + content[2][:20])
    again = measure(probe, *pairs, file)
    assert again[0].pop("kept") == 1
    assert again == whole
    assert [line["id"] for line in read_jsonl(file)] == pairs[1]


def test_an_error_that_is_not_finite_is_told(probe, pairs, tmp_path):
    with torch.no_grad():
        probe.backbone.denoiser.conv_in.bias[0] = float("nan")
    with pytest.raises(
        UserError, match=r"NaN or infinite for pairs\.parquet:1, pairs\.parquet:4: conv_in\.bias of the unet"
    ):
        measure(probe, *pairs, tmp_path / "pairs.jsonl")


def test_strata_are_equal_shares_of_the_density(probe):
    wide = Probe(probe.backbone, LogitNormal(mean=1.0), DDIM(), 50, 0, num_draws=5, batch_size=2)
    drawn = LogitNormal(mean=1.0)(probe.backbone.schedule, torch.rand(20_000, dtype=torch.float64), 50)
    shares, _ = np.histogram(drawn, wide.edges)
    np.testing.assert_allclose(shares / len(drawn), 0.2, atol=0.015)
    assert all(low < t < high for low, t, high in zip(wide.edges, wide.t.tolist(), wide.edges[1:], strict=False))


def test_weights_are_the_expected_ones_of_the_terms():
    schedule, t = stable_diffusion(), torch.tensor([20, 63, 500])
    x0, eps, wrong = (torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(n)).double() for n in range(3))
    terms = pair_terms(
        lambda xt, t: eps + 0.3 * wrong, None, schedule, DDIM(), 50, ImportanceWeight(estimate="expected"), x0, None, eps, t,
        with_importance_weights=True,
    )  # fmt: skip
    coefficient = step_coefficient(DDIM(), schedule, t, previous_timestep(schedule, t, 50))
    found = Errors(terms.chosen.policy_error.numpy()[:, None], coefficient.numpy()[:, None]).weights
    np.testing.assert_allclose(found[:, 0], terms.chosen.log_iw.exp(), rtol=1e-9)
