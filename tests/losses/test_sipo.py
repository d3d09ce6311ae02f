import math

import pytest
import torch
from support.core import f64, normal, stable_diffusion
from support.terms import from_errors, random_terms, swapped

from sipo import DDIM, DPOCM, SIPO, Branch, DiffusionDPO, ImportanceWeight, PairTerms, pair_terms

LOG_W = (math.log(0.95), math.log(0.80))


def golden_terms():
    return from_errors(policy=(0.210, 0.300), reference=(0.212, 0.299), log_iw=LOG_W)


def logit_of(loss, terms):
    """The argument of the sigmoid, from the loss: -log sigmoid(x) = softplus(-x)."""
    return -torch.log(torch.expm1(loss(terms)[0]))


def test_golden_weight():
    """w^w .95, w^l .80, e .1: clip(1/w) = 1.052632 and 1.1, wi = 1.1, logit 1.1 beta T m; pruned at tau .9."""
    loss, metrics = SIPO(beta=1.0, prune_threshold=0.0)(golden_terms())
    torch.testing.assert_close(metrics["weight"], f64(1.1))
    torch.testing.assert_close(loss, -torch.nn.functional.logsigmoid(f64(1.1 * 1.5)))
    torch.testing.assert_close(metrics["reward_gap"], f64(1.5))  # the gap is Diffusion-DPO's logit, unweighted
    torch.testing.assert_close(metrics["sigmoid_neg_logit"], torch.sigmoid(f64(-1.65)))
    assert (metrics["clipped"], metrics["pruned"]) == (1, 0)
    loss, metrics = SIPO(beta=1.0)(golden_terms())
    assert loss == 0
    assert metrics["pruned"] == 1


@pytest.mark.parametrize(
    ("w", "e", "wi", "clipped"),
    [
        ((0.95, 0.97), 0.1, 1 / 0.95, 0),
        ((1.05, 0.97), 0.1, 1 / 0.97, 0),
        ((1.3, 1.2), 0.1, 0.9, 1),
        ((0.5, 2.0), 0.3, 1.3, 1),
    ],
)
def test_equation_19(w, e, wi, clipped):
    terms = from_errors((0.21, 0.3), (0.212, 0.299), log_iw=(math.log(w[0]), math.log(w[1])))
    metrics = SIPO(clip_range=e, prune_threshold=0.0)(terms)[1]
    torch.testing.assert_close(metrics["weight"], f64(wi))
    assert metrics["clipped"] == clipped


def test_divide_is_the_inverse_of_multiply():
    terms = golden_terms()
    multiplied, divided = (SIPO(prune_threshold=0.0, weighting=how) for how in ("multiply", "divide"))
    torch.testing.assert_close(logit_of(multiplied, terms), f64(1.1 * 1.5))
    torch.testing.assert_close(logit_of(divided, terms), f64(1.5 / 1.1))


@pytest.mark.parametrize("weighting", ["multiply", "divide"])
def test_without_clip_range_and_threshold_it_is_diffusion_dpo(weighting):
    results = []
    for objective in (SIPO(beta=2.0, clip_range=0.0, prune_threshold=0.0, weighting=weighting), DiffusionDPO(beta=2.0)):
        log_iw = f64(0.0, 0.3).requires_grad_()  # a weight of exactly 1, where a clip to [1, 1] would pass a gradient
        terms = random_terms(2, log_iw=(log_iw, 1 * log_iw))
        policy = terms.chosen.policy.requires_grad_()
        loss, _ = objective(terms)
        of_policy, of_weight = torch.autograd.grad(loss.sum(), (policy, log_iw), allow_unused=True)
        assert of_weight is None
        results.append((loss, of_policy))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_at_the_reference_the_kept_losses_are_log_2():
    loss, metrics = SIPO()(random_terms(4, policy_is_reference=True))
    torch.testing.assert_close(loss, (1 - metrics["pruned"]) * math.log(2))


def test_swapping_the_members_flips_the_margin_and_keeps_the_weight():
    terms = random_terms(5)
    for name, sign in (("reward_gap", -1), ("weight", 1), ("pruned", 1), ("clipped", 1)):
        a, b = SIPO()(terms)[1][name], SIPO()(swapped(terms))[1][name]
        torch.testing.assert_close(a, sign * b)


def test_the_gradient_flows_through_the_weight_unless_detached():
    for detach in (False, True):
        log_iw = f64(-0.03, 0.02).requires_grad_(), f64(0.01, -0.2).requires_grad_()  # inside, and beyond the clip
        terms = random_terms(2, log_iw=log_iw)
        terms.chosen.policy.requires_grad_()
        loss, metrics = SIPO(prune_threshold=0.0, detach_weights=detach)(terms)
        loss.sum().backward()
        if detach:
            assert [w.grad for w in log_iw] == [None, None]
            continue
        slope = metrics["sigmoid_neg_logit"][0] * metrics["reward_gap"][0] * metrics["weight"][0]
        torch.testing.assert_close(log_iw[0].grad[0], slope)  # d(-log sigmoid(wi g)) / d log w = s(-l) wi g
        assert log_iw[1].grad[0] == 0  # the member whose inverse weight is not the maximum
        assert (log_iw[0].grad[1], log_iw[1].grad[1]) == (0, 0)  # the clip stops it


def test_the_mask_carries_no_gradient():
    """At e = 0 the weights act through the mask alone."""
    log_iw = f64(-0.03, -0.5).requires_grad_(), f64(0.0, 0.0).requires_grad_()
    terms = random_terms(2, log_iw=log_iw)
    terms.chosen.policy.requires_grad_()
    loss, _ = SIPO(clip_range=0.0)(terms)
    loss.sum().backward()
    assert [w.grad for w in log_iw] == [None, None]
    assert terms.chosen.policy.grad[1].abs().sum() == 0  # pruned
    assert terms.chosen.policy.grad[0].abs().sum() > 0


@pytest.mark.parametrize(
    "weight", [ImportanceWeight(d, e) for d in ("posterior", "reference") for e in ("sampled", "expected")]
)
@pytest.mark.parametrize("weighting", ["multiply", "divide"])
@pytest.mark.parametrize("omega", ["constant", "transition"])
def test_the_gradient_is_exact_weights_included(weight, weighting, omega):
    """From the predictions through log w to the loss, all weights well inside the clip."""
    x0_w, x0_l, eps, z, reference_error, policy_error = (normal(3, 2, 2, 2, seed=i) for i in range(6))
    both = torch.cat([eps, eps])
    reference = both + 0.1 * torch.cat([reference_error, policy_error])
    objective = SIPO(beta=0.05, clip_range=0.9, prune_threshold=0.0, weighting=weighting, omega=omega, horizon=50)

    def terms(pred):
        args = (x0_w, x0_l, eps, torch.tensor([30, 300, 900]), z, True)
        return pair_terms(lambda xt, t: pred, lambda xt, t: reference, stable_diffusion(), DDIM(), 50, weight, *args)

    pred = (both + 0.2 * torch.cat([policy_error, reference_error])).requires_grad_()
    assert (objective(terms(pred))[1]["clipped"] == 0).all()
    assert (objective(terms(pred))[1]["weight"] != 1).all()
    assert torch.autograd.gradcheck(lambda pred: objective(terms(pred))[0], pred)


def test_the_margin_peaks_at_e_times_the_reference():
    """Appendix B.2: A(p) = (q / p) log(p / p_ref) has the slope q (1 - log(p / p_ref)) / p^2, its maximum at e p_ref.

    Here log w = log(p / q) is the log-ratio itself (q = p_ref), as for the expected weight against the reference.
    """
    r = torch.linspace(0.2, 1.9, 35, dtype=torch.float64).requires_grad_()  # log(p / p_ref) of the chosen
    zero = torch.zeros(len(r), 1, dtype=torch.float64)
    root = (2 * r + 4).sqrt()[:, None]  # reference error 2 r + 4 and policy error 4: a gain of 2 r
    terms = PairTerms(Branch(zero, zero + 2, root, r), Branch(zero, zero, zero, zero[:, 0] + 5), zero[:, 0])
    objective = SIPO(beta=1.0, horizon=1, clip_range=0.9, prune_threshold=0.0)
    objective_logit = logit_of(objective, terms)
    torch.testing.assert_close(objective_logit, (-r).exp() * r)  # A / q
    (slope,) = torch.autograd.grad(objective_logit.sum(), r, retain_graph=True)
    torch.testing.assert_close(slope, (1 - r) * (-r).exp())  # dA / d log p = p dA / dp, over q
    assert (slope[r < 0.99] > 0).all()
    assert (slope[r > 1.01] < 0).all()
    detached = logit_of(SIPO(beta=1.0, horizon=1, clip_range=0.9, prune_threshold=0.0, detach_weights=True), terms)
    assert (torch.autograd.grad(detached.sum(), r)[0] > 0).all()  # without the gradient of the weight there is no peak


@pytest.mark.parametrize("objective", [SIPO, DPOCM])
@pytest.mark.parametrize("tau", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("extreme", [1000.0, -1000.0, math.inf, -math.inf])
def test_extreme_weights_stay_finite(objective, tau, dtype, extreme):
    log_iw = torch.tensor([extreme, 0.0, extreme], dtype=dtype).requires_grad_()
    other = torch.tensor([0.0, -extreme, extreme], dtype=dtype).requires_grad_()
    terms = random_terms(3, log_iw=(log_iw, other))
    policy = terms.chosen.policy.requires_grad_()
    loss, metrics = objective(prune_threshold=tau)(terms)
    assert loss.isfinite().all()
    assert all(value.isfinite().all() for value in metrics.values())
    gradients = torch.autograd.grad(loss.sum(), (policy, log_iw, other), allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    if tau == 0:
        assert (metrics["pruned"] == 0).all()
        assert (loss > 0).all()


def test_metrics_are_detached_and_per_pair():
    terms = random_terms(4)
    terms.chosen.policy.requires_grad_()
    for objective in (SIPO(), DPOCM(), DiffusionDPO()):
        loss, metrics = objective(terms)
        assert loss.shape == (4,)
        assert all(value.shape == (4,) and not value.requires_grad for value in metrics.values())
        rewards = {"reward_chosen", "reward_rejected", "reward_gap", "accuracy", "tie", "sigmoid_neg_logit"}
        weights = {"weight", "pruned", "clipped"} if objective.needs_importance_weights else set()
        assert set(metrics) == rewards | weights


@pytest.mark.parametrize(
    "fields", [{"weighting": "add"}, {"clip_range": 1.0}, {"prune_threshold": float("nan")}, {"beta": 0.0}]
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        SIPO(**fields)
