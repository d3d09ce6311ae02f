import torch
from support.terms import random_terms

from sipo import LOSSES, SFT, resolve_horizon


def test_sft_is_the_mse_of_the_chosen():
    terms = random_terms(4)
    loss, metrics = SFT()(terms)
    torch.testing.assert_close(
        loss, torch.nn.functional.mse_loss(terms.chosen.policy, terms.chosen.target, reduction="none").mean((1, 2, 3))
    )
    assert metrics == {}


def test_sft_needs_nothing_but_the_chosen():
    terms = random_terms(4, without="rejected")
    assert torch.equal(SFT()(terms)[0], SFT()(random_terms(4, without="reference"))[0])
    assert [SFT.needs_reference, SFT.needs_rejected, SFT.needs_importance_weights] == [False] * 3
    assert resolve_horizon(SFT(), 50) == SFT()


def test_the_registry_names_every_objective():
    assert {name: loss.__name__ for name, loss in LOSSES.items()} == {
        "sft": "SFT",
        "diffusion_dpo": "DiffusionDPO",
        "dpo_cm": "DPOCM",
        "sipo": "SIPO",
        "d3po": "D3PO",
        "ipo": "IPO",
        "dpop": "DPOP",
        "nca": "NCA",
        "safeguarded_dpo": "SafeguardedDPO",
        "profile_dpo": "ProfileDPO",
        "capped_dpo": "CappedDPO",
        "capped_sipo": "CappedSIPO",
    }
