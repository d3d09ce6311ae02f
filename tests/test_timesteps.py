import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import kstest, norm
from support.core import stable_diffusion

from sipo import FlowSchedule, LogitNormal, Uniform, draw_timesteps, previous_timestep

GRID = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000  # u at the middle of 100,000 strata


@pytest.mark.parametrize("density", [Uniform, LogitNormal])
@pytest.mark.parametrize(("low", "high"), [(1, None), (60, None), (60, 64), (0, 1000), (999, 1000)])
def test_vp_ranges(density, low, high):
    t = density(low=low, high=high)(stable_diffusion(), GRID, 50)
    assert t.dtype == torch.int64
    assert (t.diff() >= 0).all()
    assert t.min() >= low
    assert t.max() <= (high or 1000) - 1
    if density is Uniform or high == 64:
        assert sorted(set(t.tolist())) == list(range(low, high or 1000))
    ends = density(low=low, high=high)(stable_diffusion(), torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), 50)
    assert ends.tolist() == [low, (high or 1000) - 1]


def test_vp_uniform_is_uniform():
    t = Uniform(low=60)(stable_diffusion(), GRID, 50)
    counts = torch.bincount(t)[60:]
    assert counts.min() >= 106  # 100,000 / 940 = 106.4
    assert counts.max() <= 107
    edges = Uniform(low=0)(stable_diffusion(), torch.arange(1000, dtype=torch.float64) / 1000, 50)
    assert edges.tolist() == list(range(1000))  # an edge belongs to the bin above, whatever the rounding


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.7, 0.5), (1.0, 2.0)])
def test_logit_normal_quantiles_are_scipys(mean, std):
    u = np.linspace(0.001, 0.999, 500)
    expected = expit(mean + std * norm.ppf(u))
    found = LogitNormal(mean, std, low=0)(FlowSchedule(), torch.from_numpy(u), 10**6)  # K so fine that it cuts nothing
    np.testing.assert_allclose(found / 1000, expected, rtol=1e-4)


def test_truncated_logit_normal():
    """Restricted to low <= t < high: the conditional distribution, by scipy's cdf."""
    t = LogitNormal(mean=-0.3, std=0.8, low=200, high=700)(FlowSchedule(), GRID, 50)
    cdf = norm(-0.3, 0.8).cdf
    logit = lambda x: np.log(x / (1 - x))  # noqa: E731
    low, high = cdf(logit(0.2)), cdf(logit(0.7))
    assert kstest(t.numpy()[::20], lambda x: (cdf(logit(x / 1000)) - low) / (high - low)).statistic < 1e-3


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("density", [Uniform(), Uniform(low=0), LogitNormal(), LogitNormal(mean=-5.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_flow_never_draws_the_empty_step(shift, density, dtype):
    flow = FlowSchedule(shift=shift)
    u = torch.cat([torch.tensor([0.0, 1e-12, 1e-8]), GRID]).to(dtype)
    t = density(flow, u, 50)
    assert t.dtype == dtype
    assert (t <= 1000).all()
    assert (flow.unshifted(t.double() / 1000) > 1 / 50).all()
    assert (previous_timestep(flow, t, 50) < t).all()


def test_a_flow_is_uniform_in_unshifted_time():
    flow = FlowSchedule(shift=3.0)
    u = flow.unshifted(Uniform()(flow, GRID, 50) / 1000)
    torch.testing.assert_close(u, 0.02 + 0.98 * GRID, rtol=0, atol=2e-5)


def test_a_range_on_a_flow_is_in_units_of_t():
    t = Uniform(low=300, high=600)(FlowSchedule(shift=3.0), GRID, 50)
    assert 300 <= t.min() < 300.1
    assert 599.9 < t.max() <= 600


@pytest.mark.parametrize("schedule", [stable_diffusion(), FlowSchedule()])
@pytest.mark.parametrize("density", [Uniform(stratified=True), LogitNormal(stratified=True)])
def test_stratified_draws_hit_every_stratum_once(schedule, density):
    n = 16
    edges = density(schedule, torch.arange(1, n, dtype=torch.float64) / n, 50)  # t at the borders of the strata
    for step in range(20):
        slots = torch.randperm(n, generator=torch.Generator().manual_seed(step))
        t = draw_timesteps(density, schedule, 50, 0, step, slots, n)
        stratum = torch.bucketize(t.double(), edges.double(), right=True)
        on_edge = (t[:, None] == edges).any(1)  # an integer t may belong to the stratum before as well
        assert ((stratum == slots) | (on_edge & (stratum == slots + 1))).all()
        assert len(set(stratum[~on_edge].tolist())) == int((~on_edge).sum())


def test_plain_draws_are_not_stratified():
    strata = (draw_timesteps(Uniform(low=0), stable_diffusion(), 50, 0, 1, torch.arange(16), 16) * 16) // 1000
    assert len(set(strata.tolist())) < 16


def test_draws_do_not_depend_on_the_split():
    args = (LogitNormal(stratified=True), FlowSchedule(), 50, 3, 9)
    slots = torch.arange(8)
    whole = draw_timesteps(*args, slots, 8)
    assert whole.dtype == torch.float32
    assert torch.equal(whole, torch.cat([draw_timesteps(*args, slots[:3], 8), draw_timesteps(*args, slots[3:], 8)]))


@pytest.mark.parametrize("density", [Uniform, LogitNormal])
@pytest.mark.parametrize(("low", "high"), [(-1, None), (500, 500), (600, 500), (0, 1001), (1000, None), (0.5, None)])
def test_wrong_ranges_are_refused(density, low, high):
    with pytest.raises(ValueError, match=f"low = {low}"):
        density(low=low, high=high)(stable_diffusion(), GRID, 50)


def test_a_flow_range_within_the_last_step_is_refused():
    with pytest.raises(ValueError, match="never drawn"):
        Uniform(low=0, high=15)(FlowSchedule(), GRID, 50)


def test_logit_normal_needs_a_spread():
    with pytest.raises(ValueError, match="std"):
        LogitNormal(std=0.0)
