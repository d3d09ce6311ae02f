"""The network that is trained: one denoiser, or several that take over from each other along the timesteps."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sipo.backbones.family import Adapter, Conditioning
from sipo.size import Size

SELECTED = "denoiser"  # in the conditioning: `selection` of the samples, on the CPU, so that the host need not read t from a GPU


class PredictOne(Protocol):
    """The prediction of one network, at a size in pixels (None: that of the training)."""

    def __call__(
        self, network: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, at: Size | None = None, /
    ) -> Tensor: ...


class Switched(nn.Module):
    """Several denoisers as one network: each sample goes through the one that its timestep selects.

    The first takes t >= boundaries[0], the next t >= boundaries[1], ..., the last the rest. So a micro-batch may hold
    timesteps on both sides of a boundary, and a network without samples gets gradients of zero.
    """

    def __init__(self, networks: dict[str, nn.Module], boundaries: tuple[float, ...]):
        super().__init__()
        self.networks, self.boundaries = nn.ModuleDict(networks), boundaries

    def forward(
        self,
        predict: PredictOne,
        xt: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        smallest: tuple[Size, tuple[int, ...]] | None = None,
    ) -> Tensor:
        """(B, ...), with `predict` for each network and its samples; on the meta device every network takes all of them.

        smallest: a size that the networks take, and the shape of a sample of that size; None for the size of xt.
        """
        if t.is_meta:  # timesteps without values select nothing
            given = [{name: value.clone() for name, value in conditioning.items()} for _ in self.networks]
            networks = zip(self.networks.values(), given, strict=True)
            return torch.stack([predict(network, xt.clone(), t, some) for network, some in networks]).sum(0)
        conditioning = dict(conditioning)
        given = conditioning.pop(SELECTED, None)
        selected = (selection(t, self.boundaries) if given is None else given).cpu()
        rows, predictions = [], []
        for number, network in enumerate(self.networks.values()):
            own = (selected == number).nonzero().squeeze(1)
            if len(own):
                places = own.to(xt.device, non_blocking=True)
                some = {name: v[places if v.device == xt.device else own] for name, v in conditioning.items()}
                predictions.append(predict(network, xt[places], t[places], some))
            else:
                # It computes a small sample, which is dropped: sharded networks need every process, and DDP a gradient (of
                # zero) for every weight.
                some = {name: value[:1] for name, value in conditioning.items()}
                size, shape = smallest or (None, xt.shape[1:])
                dropped = predict(network, xt[(slice(1), *map(slice, shape))], t[:1], some, size)
                predictions.append(dropped.flatten()[:0].view(0, *xt.shape[1:]))
            rows.append(own)
        return torch.cat(predictions)[torch.cat(rows).argsort().to(xt.device, non_blocking=True)]

    def enable_gradient_checkpointing(self, *args, **keys) -> None:
        for network in self.networks.values():
            network.enable_gradient_checkpointing(*args, **keys)  # pyright: ignore[reportCallIssue]


def selection(t: Tensor, boundaries: tuple[float, ...]) -> Tensor:
    """Number of the denoiser that takes each timestep, (B,), int64."""
    return torch.stack([t < boundary for boundary in boundaries]).sum(0)


def join(networks: dict[str, nn.Module], boundaries: tuple[float, ...]) -> nn.Module:
    """The one network itself, or all of them under one roof."""
    return Switched(networks, boundaries) if boundaries else next(iter(networks.values()))


def networks_of(denoiser: nn.Module) -> list[Any]:
    """The diffusers networks that a denoiser consists of, in the family's order. Mixins give them their methods."""
    return list(denoiser.networks.values()) if isinstance(denoiser, Switched) else [denoiser]


def prefix_of(denoiser: nn.Module, part: str) -> str:
    """What names in the denoiser have before the names in the part's own network."""
    return f"networks.{part}." if isinstance(denoiser, Switched) else ""


def by_part(
    denoiser: nn.Module, parts: Iterable[str], weights: dict[str, Tensor]
) -> Iterator[tuple[str, Any, dict[str, Tensor]]]:
    """(part, its network, those of the weights that are its own, by their names in it)."""
    for part, network in zip(parts, networks_of(denoiser), strict=True):
        prefix = prefix_of(denoiser, part)
        own = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
        yield part, network, own


def blocks_of(denoiser: nn.Module) -> list[nn.Module]:
    """What FSDP2 gathers at once: the items of each network's own lists, and its other children that have weights.

    Lists and dictionaries of modules have no forward of their own, before which they would be gathered.
    """
    children = (child for network in networks_of(denoiser) for child in network.children())
    held = (nn.ModuleList, nn.ModuleDict)
    parts = (part for child in children for part in (child.children() if isinstance(child, held) else [child]))
    return [part for part in parts if next(part.parameters(), None) is not None]


def streamed_blocks(denoiser: nn.Module) -> list[nn.Module]:
    """What `model.offload` moves at once, in the order of the forward: the items of each network's lists, and a U-Net's middle."""
    found = []
    for network in networks_of(denoiser):
        lists = [list(child) for child in network.children() if isinstance(child, nn.ModuleList)]
        middle = getattr(network, "mid_block", None)
        if middle is not None:  # which a U-Net registers after both of its lists
            lists.insert(1, [middle])
        found += [block for blocks in lists for block in blocks if next(block.parameters(), None) is not None]
    return found


def predict(
    adapter: Adapter,
    denoiser: nn.Module,
    xt: Tensor,
    t: Tensor,
    conditioning: Conditioning,
    size: Size,
    guidance: float,
) -> Tensor:
    """The denoiser's raw prediction, shape of xt; it may be wrapped for data parallelism, or a copy."""

    def one(network: nn.Module, xt: Tensor, t: Tensor, conditioning: Conditioning, at: Size | None = None) -> Tensor:
        return adapter.predict(network, xt, t, conditioning, at or size, guidance)

    if not adapter.boundaries:
        return one(denoiser, xt, t, conditioning)
    sizes = adapter.sizes
    small = Size(sizes.height, sizes.width)
    smallest = None if sizes.only_native else (small, adapter.latent_shape(small))
    return denoiser(one, xt, t, conditioning, smallest)
