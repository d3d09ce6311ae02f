import math

import pytest
import torch
from support.core import every_schedule, f64, normal, stable_diffusion

from sipo import (
    DDIM,
    LOSSES,
    SFT,
    Branch,
    FlowSchedule,
    FlowSDE,
    ImportanceWeight,
    add_noise,
    pair_terms,
    step_coefficient,
    term_metrics,
    training_target,
)
from sipo.schedule import previous_timestep
from sipo.terms import step_terms

B, SHAPE = 3, (4, 5, 6)
X0_W, X0_L, EPS, Z = (normal(B, *SHAPE, seed=i) for i in range(4))
T = torch.tensor([30, 400, 900])
T_FLOW = f64(100, 400, 900)  # with shift 3, t = 30 lies in the last of 50 steps, which is empty


def network(scale: float):
    """A network that is wrong by `scale` times something that depends on x_t, t and the row."""
    return lambda xt, t: scale * torch.tanh(xt + t.to(xt.dtype).reshape(-1, 1, 1, 1) / 1000)


def terms_of(
    schedule, weight=None, kernel=None, policy=None, reference=None, with_weights=True, z=Z, rejected=X0_L, **fields
):
    return pair_terms(
        policy or network(0.5),
        reference or network(0.4),
        schedule,
        kernel or DDIM(),
        50,
        weight or ImportanceWeight(),
        X0_W,
        rejected,
        EPS,
        T if schedule.prediction != "flow" else T_FLOW,
        z,
        with_weights,
        **fields,
    )


@pytest.mark.parametrize("name", every_schedule())
def test_each_member_is_noised_alike_and_judged_on_its_own(name):
    schedule = every_schedule()[name]
    terms = terms_of(schedule)
    t = terms.t
    assert t.shape == (B,)
    for branch, x0 in ((terms.chosen, X0_W), (terms.rejected, X0_L)):
        xt = add_noise(schedule, x0, EPS, t)
        torch.testing.assert_close(branch.policy, network(0.5)(xt, t))
        torch.testing.assert_close(branch.reference, network(0.4)(xt, t))
        torch.testing.assert_close(branch.target, training_target(schedule, x0, EPS, t))
        error = lambda pred, target=branch.target: ((pred - target) ** 2).mean((1, 2, 3))  # noqa: E731
        torch.testing.assert_close(branch.gain, error(branch.reference) - error(branch.policy))


def test_one_forward_each_the_reference_first_and_without_gradient():
    calls = []
    scale = f64(0.5).requires_grad_()

    def policy(xt, t):
        calls.append(("policy", xt, t, torch.is_grad_enabled()))
        return scale * xt

    def reference(xt, t):
        calls.append(("reference", xt, t, torch.is_grad_enabled()))
        return scale * xt

    terms = terms_of(stable_diffusion(), policy=policy, reference=reference)
    assert [(name, len(xt), grad) for name, xt, _, grad in calls] == [("reference", 6, False), ("policy", 6, True)]
    assert torch.equal(calls[0][2], torch.cat([T, T]))
    assert torch.equal(calls[1][1][:B], add_noise(stable_diffusion(), X0_W, EPS, T))
    assert not terms.chosen.reference.requires_grad
    assert terms.chosen.policy.requires_grad
    assert terms.chosen.log_iw.requires_grad


def test_without_a_rejected_member():
    terms = pair_terms(network(0.5), None, stable_diffusion(), DDIM(), 50, ImportanceWeight(), X0_W, None, EPS, T)
    assert terms.rejected is None
    assert terms.chosen.reference is None
    assert terms.chosen.log_iw is None
    loss, _ = SFT()(terms)
    torch.testing.assert_close(loss, ((terms.chosen.policy - EPS) ** 2).mean((1, 2, 3)))
    with pytest.raises(ValueError, match="reference"):
        _ = terms.chosen.gain


@pytest.mark.parametrize("name", every_schedule())
@pytest.mark.parametrize("kernel", [DDIM(), DDIM(0.5), FlowSDE()])
def test_expected_weights_are_the_step_coefficient_times_mse(name, kernel):
    """method: log w = -k^2 / (2 std^2) mse against the posterior, and coefficient * gain against the reference."""
    schedule = every_schedule()[name]
    if isinstance(kernel, FlowSDE) and name != "flow":
        return
    posterior = terms_of(schedule, ImportanceWeight("posterior", "expected"), kernel)
    reference = terms_of(schedule, ImportanceWeight("reference", "expected"), kernel)
    s = previous_timestep(schedule, posterior.t, 50)
    torch.testing.assert_close(posterior.step_coefficient, step_coefficient(kernel, schedule, posterior.t, s))
    metrics = term_metrics(posterior)
    for member in ("chosen", "rejected"):
        expected = -posterior.step_coefficient * metrics[f"mse_policy_{member}"]
        torch.testing.assert_close(getattr(posterior, member).log_iw, expected, rtol=1e-6, atol=1e-9)
        branch = getattr(reference, member)
        torch.testing.assert_close(branch.log_iw, reference.step_coefficient * branch.gain, rtol=1e-6, atol=1e-9)
    assert (posterior.chosen.log_iw < 0).all()


@pytest.mark.parametrize("estimate", ["sampled", "expected"])
def test_against_the_old_policy_the_weight_is_one_where_that_is_the_policy(estimate):
    terms = terms_of(stable_diffusion(), ImportanceWeight("old", estimate), old=network(0.5))
    assert (terms.chosen.log_iw == 0).all()
    assert (terms.rejected.log_iw == 0).all()
    assert (terms.chosen.gain != 0).all()  # the reference is another one


@pytest.mark.parametrize("estimate", ["sampled", "expected"])
@pytest.mark.parametrize("old", [None, network(0.4)])
def test_where_the_reference_produced_the_data_old_is_the_reference(estimate, old):
    mine = terms_of(stable_diffusion(), ImportanceWeight("old", estimate), old=old)
    theirs = terms_of(stable_diffusion(), ImportanceWeight("reference", estimate))
    assert mine.chosen.log_iw.equal(theirs.chosen.log_iw)
    assert mine.rejected.log_iw.equal(theirs.rejected.log_iw)


@pytest.mark.parametrize("name", every_schedule())
def test_the_expected_weight_against_the_old_policy_is_the_coefficient_times_its_gain(name):
    """log p_theta / p_old under q: step_coefficient (mse_old - mse_theta), whatever the reference is."""
    schedule = every_schedule()[name]
    terms = terms_of(schedule, ImportanceWeight("old", "expected"), old=network(0.1))
    for branch, x0 in ((terms.chosen, X0_W), (terms.rejected, X0_L)):
        old = network(0.1)(add_noise(schedule, x0, EPS, terms.t), terms.t)
        gain = ((old - branch.target) ** 2).mean((1, 2, 3)) - ((branch.policy - branch.target) ** 2).mean((1, 2, 3))
        torch.testing.assert_close(branch.log_iw, terms.step_coefficient * gain, rtol=1e-6, atol=1e-9)


def test_the_old_policy_runs_once_without_a_gradient():
    calls, scale = [], f64(0.5).requires_grad_()

    def old(xt, t):
        calls.append((len(xt), torch.is_grad_enabled()))
        return scale * xt

    terms = terms_of(stable_diffusion(), ImportanceWeight("old"), policy=lambda xt, t: scale * xt, old=old)
    assert calls == [(6, False)]
    assert terms.chosen.log_iw.requires_grad
    with pytest.raises(ValueError, match="old policy"):
        pair_terms(network(0.5), None, stable_diffusion(), DDIM(), 50, ImportanceWeight("old"), X0_W, X0_L, EPS, T, Z,
                   True)  # fmt: skip


@pytest.mark.parametrize("denominator", ["posterior", "reference", "old"])
@pytest.mark.parametrize(
    ("name", "kernel"), [("epsilon", DDIM()), ("v_prediction", DDIM(0.5)), ("flow", DDIM()), ("flow", FlowSDE())]
)
def test_the_expected_weight_is_the_monte_carlo_mean(denominator, name, kernel):
    schedule, n = every_schedule()[name], 150
    sampled = torch.stack(
        [
            terms_of(schedule, ImportanceWeight(denominator), kernel, z=normal(B, *SHAPE, seed=100 + i)).chosen.log_iw
            for i in range(n)
        ]
    )
    expected = terms_of(schedule, ImportanceWeight(denominator, "expected"), kernel).chosen.log_iw
    assert ((sampled.mean(0) - expected).abs() < 4 * sampled.std(0) / math.sqrt(n)).all()


def test_both_members_share_the_draw_of_the_transition():
    terms = terms_of(stable_diffusion(), rejected=X0_W)
    assert torch.equal(terms.chosen.log_iw, terms.rejected.log_iw)


@pytest.mark.parametrize("estimate", ["sampled", "expected"])
def test_against_the_reference_the_weight_starts_at_one(estimate):
    terms = terms_of(stable_diffusion(), ImportanceWeight("reference", estimate), reference=network(0.5))
    assert (terms.chosen.log_iw == 0).all()
    assert (terms.chosen.gain == 0).all()


@pytest.mark.parametrize(
    "weight", [ImportanceWeight(d, e) for d in ("posterior", "reference", "old") for e in ("sampled", "expected")]
)
def test_the_weights_gradient_reaches_the_policy(weight):
    def log_iw(flat):
        terms = terms_of(stable_diffusion(), weight, policy=lambda xt, t: flat.expand_as(xt))
        return torch.cat([terms.chosen.log_iw, terms.rejected.log_iw])

    assert torch.autograd.gradcheck(log_iw, normal(1, 4, 1, 1).requires_grad_())


def test_an_empty_step_in_a_batch():
    scale = f64(0.5).requires_grad_()
    terms = pair_terms(
        lambda xt, t: scale * xt, network(0.4), stable_diffusion(), DDIM(), 50, ImportanceWeight(),
        X0_W, X0_L, EPS, torch.tensor([0, 1, 500]), Z, True,
    )  # fmt: skip
    assert terms.chosen.log_iw[0] == 0
    assert terms.rejected.log_iw[0] == 0
    assert (terms.chosen.log_iw[1:] != 0).all()
    (grad,) = torch.autograd.grad(terms.chosen.log_iw.sum(), scale)
    assert grad.isfinite()


def test_half_precision_networks_are_judged_in_float32():
    half = [x.bfloat16() for x in (X0_W, X0_L, EPS, Z)]
    seen = []

    def network(xt, t):
        seen.append(xt.dtype)
        return 0.5 * xt.bfloat16()

    terms = pair_terms(
        network, network, stable_diffusion(), DDIM(), 50, ImportanceWeight(), *half[:3], T, half[3], True
    )
    assert seen == [torch.float32, torch.float32]
    for tensor in (
        terms.chosen.policy,
        terms.chosen.reference,
        terms.chosen.target,
        terms.chosen.log_iw,
        terms.step_coefficient,
    ):
        assert tensor.dtype == torch.float32


def test_video_latents():
    shape = (2, 3, 4, 5, 5)  # (B, F, C, H, W)
    x = [normal(*shape, seed=i) for i in range(4)]
    terms = pair_terms(lambda xt, t: 0.5 * xt, lambda xt, t: 0.4 * xt, every_schedule()["v_prediction"], DDIM(), 50,
                       ImportanceWeight(), x[0], x[1], x[2], torch.tensor([500, 999]), x[3], True)  # fmt: skip
    assert terms.chosen.gain.shape == terms.rejected.log_iw.shape == terms.step_coefficient.shape == (2,)
    assert terms.chosen.log_iw.isfinite().all()


def test_term_metrics_hold_what_exists_and_no_gradient():
    scale = f64(0.5).requires_grad_()
    metrics = term_metrics(terms_of(stable_diffusion(), policy=lambda xt, t: scale * xt))
    assert set(metrics) == {
        f"{kind}_{side}" for kind in ("mse_policy", "mse_reference", "log_iw") for side in ("chosen", "rejected")
    }
    assert all(value.shape == (B,) and not value.requires_grad for value in metrics.values())
    alone = pair_terms(network(0.5), None, stable_diffusion(), DDIM(), 50, ImportanceWeight(), X0_W, None, EPS, T)
    assert set(term_metrics(alone)) == {"mse_policy_chosen"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kernel": DDIM(0.0)}, "eta > 0"),
        ({"z": None}, "needs z"),
    ],
)
def test_impossible_weights_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        terms_of(stable_diffusion(), **given)
    terms_of(stable_diffusion(), with_weights=False, **given)  # harmless where no weight is asked for


def test_a_reference_weight_needs_a_reference():
    with pytest.raises(ValueError, match="no reference"):
        pair_terms(
            network(0.5),
            None,
            stable_diffusion(),
            DDIM(),
            50,
            ImportanceWeight("reference"),
            X0_W,
            X0_L,
            EPS,
            T,
            Z,
            True,
        )


@pytest.mark.parametrize("fields", [{"denominator": "prior"}, {"estimate": "guessed"}])
def test_unknown_weights_are_refused(fields):
    with pytest.raises(ValueError, match="must be"):
        ImportanceWeight(**fields)


def test_a_branch_without_reference_says_so():
    with pytest.raises(ValueError, match="hold none"):
        _ = Branch(EPS, EPS).gain


@pytest.mark.parametrize("name", every_schedule())
@pytest.mark.parametrize("weight", [ImportanceWeight(), ImportanceWeight("reference", "expected")])
def test_nothing_waits_for_the_device(name, weight):
    """On the meta device every look at a value (a host synchronisation on a GPU) is an error."""
    schedule, x = every_schedule()[name], torch.zeros(2, 4, 3, 3, device="meta")
    t = torch.ones(2, device="meta", dtype=torch.float32 if name == "flow" else torch.int64)
    scale = torch.ones((), device="meta", requires_grad=True)
    terms = pair_terms(lambda xt, t: scale * xt, lambda xt, t: xt, schedule, DDIM(), 50, weight, x, x, x, t, x, True)
    term_metrics(terms)
    moved = torch.zeros(2, 2, 4, 3, 3, device="meta")
    steps = step_terms(lambda xt, t: scale * xt, lambda xt, t: xt, schedule, DDIM(), moved, moved, t, t)
    for name, objective in LOSSES.items():
        loss, _ = objective()(steps if name == "d3po" else terms)
        loss.mean().backward(retain_graph=True)
    assert scale.grad.is_meta


@pytest.mark.parametrize("name", every_schedule())
def test_members_may_have_noise_of_their_own(name):
    """Equal noises are the shared one; others noise each member, and are each one's target, as two pairs would have it."""
    schedule = every_schedule()[name]
    t = T_FLOW if name == "flow" else T
    other = normal(B, *SHAPE, seed=9)

    def terms(x0_w, x0_l, eps):
        return pair_terms(
            network(0.5), network(0.4), schedule, DDIM(), 50, ImportanceWeight(), x0_w, x0_l, eps, t, Z, True
        )

    shared, equal = terms(X0_W, X0_L, EPS), terms(X0_W, X0_L, torch.cat([EPS, EPS]))
    own, second = terms(X0_W, X0_L, torch.cat([EPS, other])), terms(X0_L, X0_W, other)
    for branch, wanted in (
        (equal.chosen, shared.chosen), (equal.rejected, shared.rejected), (own.chosen, shared.chosen), (own.rejected, second.chosen),
    ):  # fmt: skip
        for part in ("target", "policy", "reference", "log_iw"):
            assert torch.equal(getattr(branch, part), getattr(wanted, part)), part
    with pytest.raises(ValueError, match="eps has 1 rows for 3 pairs"):
        terms(X0_W, X0_L, EPS[:1])


def test_the_path_from_a_member_s_own_noise_is_a_straight_line():
    """PNAPO: x_t = (1 - s) x_0 + s x_T and the target x_T - x_0, of each member."""
    seen = []
    noise = normal(2 * B, *SHAPE, seed=8)
    terms = pair_terms(
        lambda xt, t: seen.append(xt) or 0 * xt, None, FlowSchedule(shift=3.0), DDIM(), 50, ImportanceWeight(), X0_W, X0_L, noise,
        T_FLOW,
    )  # fmt: skip
    x0, s = torch.cat([X0_W, X0_L]), (torch.cat([T_FLOW, T_FLOW]) / 1000).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(seen[0], (1 - s) * x0 + s * noise)
    torch.testing.assert_close(torch.cat([terms.chosen.target, terms.rejected.target]), noise - x0)
    torch.testing.assert_close(terms.rejected.policy_error, ((noise - x0)[B:] ** 2).flatten(1).mean(1))
