"""The losses of public implementations, written from their formulas, against ours: same tensors, loss and gradient.

In float64, through `pair_terms`, so that noising, target and the order of the rows are compared too. The two sides sum
in different orders, which leaves about 1e-13 of a margin that is a small difference of errors.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from support.core import cogvideox, f64, normal, scaled_linear, stable_diffusion
from torch import Tensor
from torch.nn.functional import logsigmoid

from sipo import DDIM, DiffusionDPO, FlowSchedule, VPSchedule, beta_equivalents
from sipo.terms import ImportanceWeight, pair_terms

B, SHAPE = 6, (4, 3, 4)
Peer = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # pred, ref_pred, target (2B, ...): loss, accuracy
close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-14)


def errors(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return ((pred - target) ** 2).flatten(1).mean(1).chunk(2)


def salesforce(pred: Tensor, ref_pred: Tensor, target: Tensor, beta: float = 5000) -> tuple[Tensor, Tensor]:
    """SalesforceAIResearch/DiffusionDPO:train.py. A tie counts as wrong."""
    (L_w, L_l), (R_w, R_l) = errors(pred, target), errors(ref_pred, target)
    inside = -0.5 * beta * ((L_w - L_l) - (R_w - R_l))
    return -logsigmoid(inside).mean(), (inside > 0).double().mean()


def diffusers_sd(pred: Tensor, ref_pred: Tensor, target: Tensor, beta: float = 2500) -> tuple[Tensor, Tensor]:
    """diffusers, research_projects/diffusion_dpo/train_diffusion_dpo.py: no 1/2. A tie counts as half right."""
    (L_w, L_l), (R_w, R_l) = errors(pred, target), errors(ref_pred, target)
    logits = (R_w - R_l) - (L_w - L_l)
    accuracy = (logits > 0).double().mean() + 0.5 * (logits == 0).double().mean()
    return -logsigmoid(beta * logits).mean(), accuracy


def diffusers_sdxl(pred: Tensor, ref_pred: Tensor, target: Tensor, beta: float = 5000) -> tuple[Tensor, Tensor]:
    """diffusers, research_projects/diffusion_dpo/train_diffusion_dpo_sdxl.py: with 1/2. A tie counts as half right."""
    loss, wins = salesforce(pred, ref_pred, target, beta)
    (L_w, L_l), (R_w, R_l) = errors(pred, target), errors(ref_pred, target)
    return loss, wins + 0.5 * (L_w - L_l == R_w - R_l).double().mean()


def flow_dpo(pred: Tensor, ref_pred: Tensor, target: Tensor, beta: float = 100) -> tuple[Tensor, Tensor]:
    """yifan123/flow_grpo:scripts/train_sd3_dpo.py: a constant beta on the errors of the velocity."""
    (L_w, L_l), (R_w, R_l) = errors(pred, target), errors(ref_pred, target)
    inside = -0.5 * beta * ((L_w - R_w) - (L_l - R_l))
    return -logsigmoid(inside).mean(), (inside > 0).double().mean()


def draw(t: Tensor, target_of: Callable, closeness: float = 0.02) -> dict[str, Tensor]:
    """One batch; the policy is near a reference whose errors are about 0.01, so that no sigmoid saturates."""
    x0 = normal(2 * B, *SHAPE, seed=1)
    eps = normal(B, *SHAPE, seed=2)
    target = target_of(x0, torch.cat([eps, eps]), torch.cat([t, t]))
    reference = target + 0.1 * normal(2 * B, *SHAPE, seed=3)
    return {"x0": x0, "eps": eps, "t": t, "target": target, "reference": reference,
            "policy": reference + closeness * normal(2 * B, *SHAPE, seed=4)}  # fmt: skip


def ours(objective: DiffusionDPO, schedule, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Our mean loss, its gradient with respect to the policy's predictions, and the metrics."""
    policy = batch["policy"].clone().requires_grad_()
    x0_chosen, x0_rejected = batch["x0"].chunk(2)
    terms = pair_terms(
        lambda xt, t: policy, lambda xt, t: batch["reference"], schedule, DDIM(), 50, ImportanceWeight(),
        x0_chosen, x0_rejected, batch["eps"], batch["t"],
    )  # fmt: skip
    losses, metrics = objective(terms)
    return losses.mean().detach(), torch.autograd.grad(losses.mean(), policy)[0], metrics


def theirs(peer: Peer, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    policy = batch["policy"].clone().requires_grad_()
    loss, accuracy = peer(policy, batch["reference"], batch["target"])
    return loss.detach(), torch.autograd.grad(loss, policy)[0], accuracy


def epsilon(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    return eps


def velocity(abar: Tensor, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    a = abar[t].reshape(-1, 1, 1, 1)
    return a.sqrt() * eps - (1 - a).sqrt() * x0


def flow(x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    return eps - x0


VP_T = torch.tensor([1, 20, 63, 400, 800, 999])
PEERS = {
    "Salesforce": (salesforce, 5.0, stable_diffusion(), VP_T, epsilon),
    "diffusers, SD": (diffusers_sd, 5.0, stable_diffusion(), VP_T, epsilon),
    "diffusers, SDXL": (diffusers_sdxl, 5.0, stable_diffusion(), VP_T, epsilon),
    "diffusers, SD 2 (v)": (
        diffusers_sd, 5.0, VPSchedule(scaled_linear(), "v_prediction"), VP_T, partial(velocity, scaled_linear()),
    ),
    "Salesforce on CogVideoX's schedule": (
        salesforce, 5.0, VPSchedule(cogvideox(3), "v_prediction"), VP_T, partial(velocity, cogvideox(3)),
    ),
    "Flow-DPO": (flow_dpo, 0.1, FlowSchedule(shift=3.0), f64(50, 200, 500, 700, 900, 1000), flow),
}  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
def test_loss_and_gradient_at_the_peers_own_beta(name):
    peer, beta, schedule, t, target_of = PEERS[name]
    batch = draw(t, target_of)
    loss, gradient, metrics = ours(DiffusionDPO(beta=beta), schedule, batch)
    expected_loss, expected_gradient, accuracy = theirs(peer, batch)
    assert gradient.abs().flatten(1).amax(1).min() > 0  # every row of both members takes part
    close(loss, expected_loss)
    close(gradient, expected_gradient)
    assert metrics["tie"].sum() == 0
    assert 0 < accuracy < 1
    close(metrics["accuracy"].mean(), accuracy)


@pytest.mark.parametrize("beta", [5.0, 2.0, 1.0, 0.02])  # those of the paper
@pytest.mark.parametrize("closeness", [1e-4, 0.02, 1.0])  # from the first steps to a saturated sigmoid
def test_units_of_beta(beta, closeness):
    batch = draw(VP_T, epsilon, closeness)
    units = beta_equivalents(DiffusionDPO(beta=beta))
    found = ours(DiffusionDPO(beta=beta), stable_diffusion(), batch)[:2]
    for peer, its_beta in (
        (salesforce, units["salesforce"]),
        (diffusers_sdxl, units["salesforce"]),
        (diffusers_sd, units["diffusers"]),
        (flow_dpo, 1000 * beta),
    ):
        expected = theirs(partial(peer, beta=its_beta), batch)[:2]
        for mine, other in zip(found, expected, strict=True):
            close(mine, other)


def test_the_tie_rule_differs_and_ours_gives_both():
    """Two of six pairs tie: policy = reference on both members. Ours counts no tie as right and reports ties apart."""
    batch = draw(VP_T, epsilon)
    ties = torch.tensor([0, 3])
    rows = torch.cat([ties, ties + B])
    batch["policy"][rows] = batch["reference"][rows]
    metrics = ours(DiffusionDPO(), stable_diffusion(), batch)[2]
    accuracy, tie = metrics["accuracy"].mean(), metrics["tie"].mean()
    assert metrics["tie"].tolist() == [1, 0, 0, 1, 0, 0]
    assert metrics["accuracy"][ties].tolist() == [0, 0]
    close(accuracy, theirs(salesforce, batch)[2])
    close(accuracy, theirs(flow_dpo, batch)[2])
    close(accuracy + tie / 2, theirs(diffusers_sd, batch)[2])
    close(accuracy + tie / 2, theirs(diffusers_sdxl, batch)[2])
