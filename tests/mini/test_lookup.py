"""Places are taught to look up the token of their own cell."""

import pytest
import torch

from sipo.mini.cells import AFTER, GRID
from sipo.mini.lookup import cross_attentions, lookup_loss, own_tokens
from sipo.mini.networks import TEXT_WIDTH, make_unet


def test_each_place_has_the_token_of_its_cell():
    own = own_tokens(64).view(8, 8)
    for row in range(8):
        for column in range(8):
            assert own[row, column] == AFTER + GRID * (row // 2) + column // 2


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return make_unet()


def attend(unet, states):
    with cross_attentions(unet) as seen:
        unet(torch.randn(2, 4, 16, 16), torch.tensor(500), states)
    return seen


def test_every_head_alike_costs_the_log_of_the_number_of_tokens(unet):
    """Equal keys: attention is uniform over the 32 tokens, whatever the queries."""
    seen = attend(unet, torch.randn(2, 1, TEXT_WIDTH).expand(-1, 32, -1))
    assert len(seen) == 4
    assert lookup_loss(seen, 2).item() == pytest.approx(torch.tensor(32.0).log().item(), rel=1e-5)


def test_the_loss_is_that_of_the_attention_which_the_network_computes(unet):
    """The probabilities that diffusers' own code forms from the same queries and keys."""
    losses = []
    seen = attend(unet, torch.randn(2, 32, TEXT_WIDTH))
    for attention, (query, key) in seen:
        shares = attention.get_attention_scores(attention.head_to_batch_dim(query), attention.head_to_batch_dim(key))
        shares = shares.unflatten(0, (2, attention.heads))[:, :2]  # (B, heads, places, tokens)
        own = own_tokens(shares.shape[2]).expand(shares.shape[:3])
        losses.append(-shares.gather(-1, own[..., None]).log().mean())
    torch.testing.assert_close(lookup_loss(seen, 2), torch.stack(losses).mean())


def test_only_the_heads_that_are_taught_have_a_gradient(unet):
    seen = attend(unet, torch.randn(2, 32, TEXT_WIDTH))
    lookup_loss(seen[:1], 1).backward()
    attention, _ = seen[0]
    first, *others = attention.to_k.weight.grad.chunk(attention.heads)
    assert first.abs().max() > 0
    assert not any(other.any() for other in others)


def test_nothing_stays_on_the_network(unet):
    seen = attend(unet, torch.randn(2, 32, TEXT_WIDTH))
    unet(torch.randn(2, 4, 16, 16), torch.tensor(500), torch.randn(2, 32, TEXT_WIDTH))
    assert all(len(passed) == 2 for _, passed in seen)
    assert not any(module._forward_hooks for module in unet.modules())
