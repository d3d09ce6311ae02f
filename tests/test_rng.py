import pytest
import torch

from sipo.rng import pair_generator, pair_rand, pair_randn


def test_draws_depend_on_the_slot_and_not_on_the_split():
    """Eight slots at once, as two halves (two ranks, or two micro-batches), or in another order: the same numbers."""
    slots = torch.arange(8)
    for draw in (lambda k: pair_randn((3, 4, 4), 7, 11, k, "eps"), lambda k: pair_rand(7, 11, k, "timestep")):
        whole = draw(slots)
        assert torch.equal(whole, torch.cat([draw(slots[:4]), draw(slots[4:])]))
        assert torch.equal(whole[[5, 2]], draw(torch.tensor([5, 2])))


@pytest.mark.parametrize("other", [(8, 11, 0, "eps"), (7, 12, 0, "eps"), (7, 11, 1, "eps"), (7, 11, 0, "z")])
def test_every_part_of_the_key_counts(other):
    draws = [
        pair_randn((64,), seed, step, torch.tensor([slot]), stream)
        for seed, step, slot, stream in [(7, 11, 0, "eps"), other]
    ]
    assert not torch.equal(*draws)
    assert abs(torch.corrcoef(torch.cat(draws))[0, 1]) < 0.5


def test_draws_are_standard():
    slots = torch.arange(4000)
    z, u = pair_randn((5,), 0, 1, slots, "eps"), pair_rand(0, 1, slots, "timestep")
    assert z.shape == (4000, 5)
    assert abs(z.mean()) < 0.03
    assert abs(z.var() - 1) < 0.05
    assert u.shape == (4000,)
    assert u.min() >= 0
    assert u.max() < 1
    assert torch.histc(u, 10, 0, 1).min() > 320  # 400 expected, 4 deviations


def test_draws_ignore_the_global_generator_and_leave_it_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = pair_randn((3,), 0, 0, torch.tensor([0]), "eps", dtype=torch.float64)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(first, pair_randn((3,), 0, 0, torch.tensor([0]), "eps", dtype=torch.float64))
    assert first.dtype == torch.float64


def test_a_generator_is_as_good_as_new():
    a, b = pair_generator(0, 1, 2, "eps"), pair_generator(0, 1, 2, "eps")
    assert torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
