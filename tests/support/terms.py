"""PairTerms made by hand, float64, for the tests of the objectives."""

from dataclasses import replace

import torch
from support.core import f64, normal
from torch import Tensor

from sipo import Branch, PairTerms

Errors = tuple[float, float]


def from_errors(policy: Errors, reference: Errors, log_iw: tuple[float, float] | None = None) -> PairTerms:
    """One pair with the given squared errors, (chosen, rejected) each: predictions of one dimension, target 0."""

    def branch(i: int) -> Branch:
        root = [f64(error[i]).sqrt()[:, None] for error in (policy, reference)]
        return Branch(torch.zeros_like(root[0]), *root, None if log_iw is None else f64(log_iw[i]))

    return PairTerms(branch(0), branch(1), torch.tensor([500]), f64(0.07))


def random_terms(
    batch: int,
    log_iw: tuple[Tensor, Tensor] | None = None,
    policy_is_reference: bool = False,
    chosen: tuple[Tensor, ...] | None = None,
    rejected: tuple[Tensor, ...] | None = None,
    without: str | None = None,
) -> PairTerms:
    """Pairs of (batch, 2, 2, 2) with errors of about 0.01, where nothing saturates; parts may be given or left out."""

    def branch(seed: int, given: tuple[Tensor, ...] | None, log_iw: Tensor | None) -> Branch:
        target, policy, reference = (normal(batch, 2, 2, 2, seed=seed + i) for i in range(3))
        reference = target + 0.1 * reference
        target, policy, reference = given or (target, reference + 0.02 * policy, reference)
        return Branch(target, reference if policy_is_reference else policy, reference, log_iw)

    weights = log_iw or (0.1 * normal(batch, seed=50), 0.1 * normal(batch, seed=51))
    w, l = branch(1, chosen, weights[0]), branch(21, rejected, weights[1])
    terms = PairTerms(w, l, torch.arange(batch) + 100, 0.05 + 0.1 * torch.arange(batch, dtype=torch.float64))
    match without:
        case "rejected" | "step_coefficient":
            return replace(terms, **{without: None})
        case "reference" | "log_iw":
            return replace(terms, chosen=replace(w, **{without: None}), rejected=replace(l, **{without: None}))
    return terms


def swapped(terms: PairTerms) -> PairTerms:
    assert terms.rejected is not None
    return replace(terms, chosen=terms.rejected, rejected=terms.chosen)


def gradient(loss, terms: PairTerms, member: str) -> Tensor:
    """d loss / d prediction of the policy on "chosen" or "rejected"."""
    prediction = getattr(terms, member).policy.requires_grad_()
    return torch.autograd.grad(loss(terms)[0].sum(), prediction)[0]
