"""sipo_text_loss against the published sigmoid loss, closed forms and invariants."""

import math

import pytest
import torch
from support.core import f64, normal
from torch import Tensor
from torch.nn.functional import logsigmoid

from sipo import sipo_text_loss
from sipo.losses.formulas import sipo

UNITS = ["token", "sequence"]
NEAR = {"rtol": 1e-12, "atol": 1e-14}


def batch(pairs: int = 5, length: int = 9, spread: float = 0.05) -> tuple[Tensor, Tensor, Tensor]:
    """logps, ref_logps and mask, (2 pairs, length), responses of 1 to `length` tokens after prompts; ratios of `spread`."""
    ref_logps = -normal(2 * pairs, length, seed=1).abs()
    logps = ref_logps + spread * normal(2 * pairs, length, seed=2)
    end = torch.randint(1, length + 1, (2 * pairs, 1), generator=torch.Generator().manual_seed(3))
    start = torch.minimum(end - 1, torch.tensor(2))
    at = torch.arange(length)
    return logps.requires_grad_(), ref_logps, ((at >= start) & (at < end)).long()


def dpo(logps: Tensor, ref_logps: Tensor, mask: Tensor, beta: float) -> Tensor:
    """TRL's `loss_type="sigmoid"` (Rafailov et al. 2023, Eq. 7): sums over the completion, batch is [chosen, rejected]."""
    chosen, rejected = (logps * mask).sum(dim=1).chunk(2, dim=0)
    ref_chosen, ref_rejected = (ref_logps * mask).sum(dim=1).chunk(2, dim=0)
    return -logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_clip_range_and_threshold_it_is_dpo(unit, dtype):
    logps, ref_logps, mask = batch(spread=1.0)
    logps, ref_logps = logps.detach().to(dtype).requires_grad_(), ref_logps.to(dtype)
    loss, metrics = sipo_text_loss(logps, ref_logps, mask, 0.3, 0.0, 0.0, unit)
    expected = dpo(logps, ref_logps, mask, 0.3)
    near = NEAR if dtype is torch.float64 else {}
    torch.testing.assert_close(loss, expected, **near)
    slopes = [torch.autograd.grad(each.mean(), logps)[0] for each in (loss, expected)]
    torch.testing.assert_close(*slopes, **near)
    assert (metrics["weight"] == 1).all()
    assert (metrics["pruned"] == 0).all()


@pytest.mark.parametrize("unit", UNITS)
def test_at_the_reference_it_is_dpo_with_any_clip_range(unit):
    """Every weight is 1 there, so no pair is pruned; the gradient through a weight is times a log-ratio of 0."""
    _, ref_logps, mask = batch()
    logps = ref_logps.clone().requires_grad_()
    loss, _ = sipo_text_loss(logps, ref_logps, mask, 0.3, unit=unit)
    torch.testing.assert_close(loss, torch.full((5,), math.log(2), dtype=torch.float64), **NEAR)
    slopes = [torch.autograd.grad(x.sum(), logps)[0] for x in (loss, dpo(logps, ref_logps, mask, 0.3))]
    torch.testing.assert_close(*slopes, **NEAR)


def test_sequences_are_eq_18_and_19_of_whole_responses():
    """By loops over pairs and tokens: rho a sum, log w its mean over the response's own tokens."""
    logps, ref_logps, mask = batch()
    ratio = (logps - ref_logps).detach()
    rho = [sum(r for r, m in zip(*row, strict=True) if m) for row in zip(ratio, mask, strict=True)]
    log_w = [total / int(m.sum()) for total, m in zip(rho, mask, strict=True)]
    for i, found in enumerate(sipo_text_loss(logps, ref_logps, mask, 0.4, 0.05, 0.96, "sequence")[0]):
        j = i + 5
        wi = max(min(max(math.exp(-log_w[k]), 0.95), 1.05) for k in (i, j))
        kept = min(math.exp(log_w[k]) for k in (i, j)) >= 0.96
        torch.testing.assert_close(found, kept * -logsigmoid(0.4 * wi * (rho[i] - rho[j])), **NEAR)


def test_tokens_are_eq_a15_a_term_a_token():
    logps, ref_logps, mask = batch(spread=0.2)
    ratio = (logps - ref_logps).detach()

    def side(row: int) -> Tensor:
        total = f64(0)[0]
        for r, m in zip(ratio[row], mask[row], strict=True):
            if m and math.exp(r) >= 0.9:
                total = total + min(max(math.exp(-r), 0.9), 1.1) * r
        return total

    loss, metrics = sipo_text_loss(logps, ref_logps, mask, 0.4, 0.1, 0.9, "token")
    expected = torch.stack([-logsigmoid(0.4 * (side(i) - side(i + 5))) for i in range(5)])
    torch.testing.assert_close(loss, expected, **NEAR)
    w = ratio.exp()
    pruned = [(mask[[i, i + 5]] * (w[[i, i + 5]] < 0.9)).sum() / mask[[i, i + 5]].sum() for i in range(5)]
    torch.testing.assert_close(metrics["pruned"].float(), torch.stack(pruned))
    assert 0 < metrics["pruned"].mean() < 1


def test_responses_of_one_token_with_equal_weights_are_the_same_in_both_units():
    """Then the maximum over the pair is either's own weight. tau = 0: pruning drops a pair or a token."""
    ref_logps, ratio = -normal(8, 1, seed=1).abs(), 0.05 * normal(4, 1, seed=2).repeat(2, 1)
    mask = torch.ones(8, 1, dtype=torch.bool)
    losses = [sipo_text_loss(ref_logps + ratio, ref_logps, mask, 2.0, 0.2, 0.0, unit)[0] for unit in UNITS]
    torch.testing.assert_close(*losses, **NEAR)


def test_the_weight_of_a_sequence_does_not_grow_with_its_length():
    """Repeated tokens change rho, not w: the mean over tokens, as over a diffusion model's dimensions."""
    logps, ref_logps, _ = batch()
    mask = torch.ones_like(ref_logps, dtype=torch.bool)
    once = sipo_text_loss(logps, ref_logps, mask, 0.1, 0.2, 0.0)[1]
    thrice = sipo_text_loss(*(x.repeat(1, 3) for x in (logps, ref_logps, mask)), 0.1, 0.2, 0.0)[1]
    torch.testing.assert_close(thrice["weight"], once["weight"], **NEAR)
    torch.testing.assert_close(thrice["reward_gap"], 3 * once["reward_gap"], **NEAR)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_is_exact_and_flows_through_the_weight_unless_detached(unit, detach):
    logps, ref_logps, mask = batch(spread=0.05)

    def loss(x: Tensor) -> Tensor:
        return sipo_text_loss(x, ref_logps, mask, 0.5, 0.9, 0.0, unit, detach)[0]

    if not detach:
        assert torch.autograd.gradcheck(loss, logps)
        return
    # Detached, the weight is a constant factor: DPO's slope at SIPO's logit, times the factor of the token.
    slope = torch.autograd.grad(loss(logps).sum(), logps)[0]
    ratio = (logps - ref_logps).detach() * mask
    tokens = ratio if unit == "token" else (ratio.sum(1) / mask.sum(1))[:, None].expand_as(ratio)
    wi = (-tokens).exp()
    if unit == "sequence":
        wi = torch.maximum(*wi.chunk(2)).repeat(2, 1)
    chosen, rejected = (wi * ratio).sum(1).chunk(2)
    wrong = torch.sigmoid(-0.5 * (chosen - rejected)).repeat(2)[:, None]
    sign = torch.tensor([-1.0] * 5 + [1.0] * 5, dtype=torch.float64)[:, None]
    torch.testing.assert_close(slope, sign * 0.5 * wrong * wi * mask, **NEAR)


@pytest.mark.parametrize("unit", UNITS)
def test_the_force_on_a_token_turns_at_e_times_the_reference(unit):
    """Appendix B.2: A(p) = (q / p) log(p / p_ref) rises up to p = e p_ref, then falls; q = p_ref here. The rejected is equal."""
    ratio = torch.linspace(0.5, 1.5, 21, dtype=torch.float64)[:, None].requires_grad_()
    zero = torch.zeros_like(ratio)
    logps = torch.cat([ratio, zero + 2.0])  # so that 1 / w of the chosen is the larger one
    mask = torch.ones(42, 1, dtype=torch.bool)
    loss, _ = sipo_text_loss(logps, torch.zeros_like(logps), mask, 0.1, 0.9, 0.0, unit)
    (slope,) = torch.autograd.grad(loss.sum(), ratio)
    if unit == "token":  # a weight of its own, so the rejected plays no part
        assert (slope[ratio < 0.999] < 0).all()
        assert (slope[ratio > 1.001] > 0).all()
    else:  # Eq. 19 shares the weight: wi (r - 2) has its slope at exp(-r) (3 - r)
        expected = -0.1 * torch.sigmoid(-0.1 * (-ratio).exp() * (ratio - 2)) * (-ratio).exp() * (3 - ratio)
        torch.testing.assert_close(slope, expected.detach(), **NEAR)


@pytest.mark.parametrize("unit", UNITS)
def test_no_gradient_flows_beyond_the_clip(unit):
    """There 1 / w is the constant 1 +- e."""
    ratio = f64(0.4, 0.5, -0.4, -0.5)[:, None].requires_grad_()
    mask = torch.ones(4, 1, dtype=torch.bool)
    loss, metrics = sipo_text_loss(ratio, torch.zeros_like(ratio), mask, 1.0, 0.1, 0.0, unit)
    (slope,) = torch.autograd.grad(loss.sum(), ratio)
    wi = {"token": f64(0.9, 0.9, 1.1, 1.1), "sequence": f64(1.1, 1.1, 1.1, 1.1)}[unit]
    logit = wi[:2] * ratio[:2, 0] - wi[2:] * ratio[2:, 0]
    force = torch.sigmoid(-logit)
    torch.testing.assert_close(slope[:, 0], (torch.cat([-force, force]) * wi).detach(), **NEAR)
    assert (metrics["clipped"] == 1).all()


def test_a_pair_is_pruned_below_the_threshold_and_kept_at_it():
    """Either member's mean weight below tau drops the pair; no gradient is left, and the loss is 0."""
    at, below, above = math.log(0.9), math.log(0.9) - 1e-9, 0.3
    ratio = f64(0.0, 0.0, below, above, at, below, 0.0, above)  # chosen, then rejected
    logps = ratio[:, None].expand(8, 3).clone().requires_grad_()
    loss, metrics = sipo_text_loss(logps, torch.zeros(8, 3), torch.ones(8, 3, dtype=torch.bool), 0.1, 0.1, 0.9)
    assert metrics["pruned"].tolist() == [0, 1, 1, 0]
    assert loss[[1, 2]].tolist() == [0, 0]
    loss.sum().backward()
    moved = logps.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, False, True] * 2


def test_a_pruned_token_is_as_good_as_masked():
    logps, ref_logps, mask = batch(spread=0.3)
    kept = mask * (logps - ref_logps >= math.log(0.9))
    pruned = sipo_text_loss(logps, ref_logps, mask, 0.3, 0.1, 0.9, "token")[0]
    masked = sipo_text_loss(logps, ref_logps, kept, 0.3, 0.1, 0.0, "token")[0]
    torch.testing.assert_close(pruned, masked, **NEAR)
    (slope,) = torch.autograd.grad(pruned.sum(), logps)
    assert (slope[kept == 0] == 0).all()
    assert (slope[kept == 1] != 0).all()


@pytest.mark.parametrize("unit", UNITS)
def test_what_lies_outside_the_mask_plays_no_part(unit):
    """Padding on either side, of any value, NaN and inf included, in values and in gradients."""
    logps, ref_logps, mask = batch()
    plain, metrics = sipo_text_loss(logps, ref_logps, mask, 0.3, unit=unit)
    (slope,) = torch.autograd.grad(plain.sum(), logps)
    filled, filled_ref = logps.detach().clone(), ref_logps.clone()
    filled[mask == 0], filled_ref[mask == 0] = -math.inf, math.nan
    junk = torch.full((10, 3), math.nan, dtype=torch.float64)
    padded = torch.cat([junk, filled, junk], 1).requires_grad_()
    padded_mask = torch.nn.functional.pad(mask, (3, 3))
    loss, padded_metrics = sipo_text_loss(padded, torch.cat([junk, filled_ref, junk], 1), padded_mask, 0.3, unit=unit)
    torch.testing.assert_close(loss, plain, **NEAR)
    torch.testing.assert_close(padded_metrics, metrics, **NEAR)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), padded)[0][:, 3:-3], slope, **NEAR)


@pytest.mark.parametrize("unit", UNITS)
def test_a_pairs_loss_does_not_depend_on_the_others(unit):
    logps, ref_logps, mask = batch(spread=0.2)
    loss, metrics = sipo_text_loss(logps, ref_logps, mask, 0.3, unit=unit)
    order = torch.tensor([3, 1, 4, 0])  # without the third pair
    rows = torch.cat([order, order + 5])
    found, found_metrics = sipo_text_loss(logps[rows], ref_logps[rows], mask[rows], 0.3, unit=unit)
    assert found.equal(loss[order])
    assert all(found_metrics[name].equal(value[order]) for name, value in metrics.items())


@pytest.mark.parametrize("unit", UNITS)
def test_swapping_the_members_flips_the_reward_gap(unit):
    logps, ref_logps, mask = batch()
    rows = torch.arange(10).roll(5)
    a = sipo_text_loss(logps, ref_logps, mask, 0.3, unit=unit)[1]
    b = sipo_text_loss(logps[rows], ref_logps[rows], mask[rows], 0.3, unit=unit)[1]
    for name, sign in (("reward_gap", -1), ("weight", 1), ("pruned", 1), ("clipped", 1)):
        torch.testing.assert_close(a[name], sign * b[name], **NEAR)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("tau", [0.0, 0.9])
@pytest.mark.parametrize("extreme", [500.0, -500.0])
def test_extreme_ratios_stay_finite(unit, tau, extreme):
    logps = torch.tensor([[extreme, 0.0], [0.0, 0.0], [0.0, -extreme], [extreme, extreme]]).requires_grad_()
    loss, metrics = sipo_text_loss(logps, torch.zeros(4, 2), torch.ones(4, 2).bool(), 0.1, 0.1, tau, unit)
    loss.sum().backward()
    assert logps.grad.isfinite().all()
    assert loss.isfinite().all()
    assert all(value.isfinite().all() for value in metrics.values())


def test_an_empty_response_has_a_ratio_of_0_and_a_weight_of_1():
    logps, ref_logps, mask = batch()
    mask[7] = 0
    for unit in UNITS:
        loss, metrics = sipo_text_loss(logps, ref_logps, mask, 0.3, unit=unit)
        assert loss.isfinite().all()
        assert metrics["reward_rejected"][2] == 0


def test_half_precision_is_computed_in_float32():
    logps, ref_logps, mask = (x.detach() for x in batch(spread=0.5))
    for dtype in (torch.float16, torch.bfloat16):
        low, low_ref = logps.to(dtype), ref_logps.to(dtype)
        loss, _ = sipo_text_loss(low, low_ref, mask, 0.3)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, sipo_text_loss(low.double(), low_ref.double(), mask, 0.3)[0].float())


@pytest.mark.parametrize("unit", UNITS)
def test_the_reference_and_the_metrics_carry_no_gradient(unit):
    logps, ref_logps, mask = batch()
    ref_logps.requires_grad_()
    loss, metrics = sipo_text_loss(logps, ref_logps, mask, 0.3, unit=unit)
    loss.sum().backward()
    assert ref_logps.grad is None
    assert not any(value.requires_grad for value in metrics.values())
    assert {tuple(value.shape) for value in metrics.values()} == {(5,)}


def test_the_sequences_formula_is_the_diffusion_models():
    """The same function of log-ratios and log weights that `sipo.SIPO` calls."""
    logps, ref_logps, mask = batch()
    rho = ((logps - ref_logps) * mask).sum(1)
    log_w = rho / mask.sum(1)
    expected = sipo(*rho.chunk(2), *log_w.chunk(2), 0.3, 0.1, 0.9)
    torch.testing.assert_close(sipo_text_loss(logps, ref_logps, mask, 0.3)[0], expected.loss, **NEAR)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"unit": "word"}, "unit is 'word'"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": math.nan}, "beta is nan"),
        ({"clip_range": 1.0}, "clip_range is 1.0"),
        ({"prune_threshold": -0.1}, "prune_threshold is -0.1"),
    ],
)
def test_values_out_of_range_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        sipo_text_loss(*batch(), **fields)


def test_wrong_shapes_are_refused():
    logps, ref_logps, mask = batch()
    for arguments, said in [
        ((logps, ref_logps[:, 1:], mask[:, 1:]), r"\(10, 9\), \(10, 8\), \(10, 8\)"),
        ((logps, ref_logps, mask[:5]), r"\(5, 9\)"),
        ((logps.sum(1), ref_logps.sum(1), mask.sum(1)), r"must have one shape, \(B, T\)"),
        ((logps[1:], ref_logps[1:], mask[1:]), "9 rows"),
        ((logps, ref_logps, mask.double()), "mask is torch.float64"),
    ]:
        with pytest.raises(ValueError, match=said):
            sipo_text_loss(*arguments)
