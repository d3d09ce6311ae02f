"""Blocks that come when they run: the same numbers, one or two of them at a time, and the weights in their place afterwards."""

import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sipo.backbones import load_backbone
from sipo.backbones.denoisers import streamed_blocks
from sipo.backbones.offload import COPIES, Blocks, offload
from sipo.config import ModelConfig

WIDTH = 6
CPU = torch.device("cpu")


class Layer(nn.Module):
    """A weight of its own beside those of its parts, which are saved for the backward in several ways."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(WIDTH))
        self.norm, self.one = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.down, self.up = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)  # an adapter

    def forward(self, x):
        h = self.norm(x) * self.shift
        return x + torch.tanh(self.one(h) + self.up(self.down(h)))


class Network(nn.Module):
    def __init__(self, checkpointing: bool, depth: int = 5):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.blocks = nn.Linear(WIDTH, WIDTH), nn.ModuleList(Layer() for _ in range(depth))
        self.checkpointing = checkpointing
        self.requires_grad_(False)
        for block in self.blocks:
            block.down.requires_grad_(True)
            block.up.requires_grad_(True)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        return x


def step(network: nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A frozen forward, then a forward and a backward; the gradients of the adapters."""
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(x)
    out = network(x)
    out.square().sum().backward()
    grads = [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]
    network.zero_grad()
    return out.detach(), grads


@pytest.mark.parametrize("checkpointing", [True, False])
def test_values_and_gradients_are_those_of_the_plain_network(checkpointing):
    plain, moved = Network(checkpointing), Network(checkpointing)
    before = dict(moved.named_parameters())
    offload(moved, CPU)
    for _ in range(2):
        (out, grads), (expected, of_plain) = step(moved), step(plain)
        assert out.equal(expected)
        assert len(grads) == 10
        assert all(a.equal(b) for a, b in zip(grads, of_plain, strict=True))
    after = dict(moved.named_parameters())
    assert all(after[name] is weight for name, weight in before.items())


def watched(moved: Blocks, monkeypatch) -> list[int]:
    """The number of blocks whose copies are alive, at every copy that is made."""
    alive, most = [], []
    send = Blocks._send

    def counted(self, number):
        fresh = number not in self.copies
        send(self, number)
        if fresh:
            alive.append([weakref.ref(weight) for weight in self.copies[number].values()])
            most.append(sum(any(ref() is not None for ref in refs) for refs in alive))

    monkeypatch.setattr(Blocks, "_send", counted)
    return most


def test_no_more_than_two_blocks_are_on_the_device(monkeypatch):
    """What `sipo.plan` counts; in the backward too, where the graph holds the copies of one block."""
    moved = Network(checkpointing=True)
    alive = watched(offload(moved, CPU), monkeypatch)
    step(moved)
    assert max(alive) == COPIES == 2
    assert len(alive) >= 3 * 5 - 2  # each came for the frozen forward, the forward, and the backward


def test_the_next_block_is_sent_for_before_it_runs(monkeypatch):
    network, sent = Network(checkpointing=True), []
    blocks = offload(network, CPU)
    send = Blocks._send
    monkeypatch.setattr(Blocks, "_send", lambda self, n: (sent.append((n, n in self.copies)), send(self, n))[1])
    with torch.no_grad():
        network(torch.randn(2, WIDTH))
    waited = [n for n, was_there in sent[:1]] + [n for n, there in sent if not there][1:]
    assert waited == [0, 1, 2, 3, 4]
    running = [n for n, there in sent if there]
    assert running == [1, 2, 3, 4]  # each was on its way when it was needed
    assert set(blocks.copies) == {4}


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux", "cogvideox-2b", "wan", "wan2.2-14b"])
def test_most_of_a_denoiser_is_in_its_blocks_and_its_first_weight_is_not(family, tiny_family):
    """Diffusers' pipelines take the device of the first weight for the network's."""
    denoiser = load_backbone(ModelConfig(str(tiny_family(family)))).denoiser
    blocks = streamed_blocks(denoiser)
    inside = {id(weight) for block in blocks for weight in block.parameters()}
    assert id(next(denoiser.parameters())) not in inside
    assert sum(w.numel() for b in blocks for w in b.parameters()) > 0.5 * sum(w.numel() for w in denoiser.parameters())
