"""The clean stage's second task: each place of the denoiser looks up its own cell's token of the caption.

A convolution knows its place only by the zeros that pad the borders. Until the queries of the cross-attention know
theirs, the denoising loss says nothing about which token to look up: 7,000 steps of it alone left positions at chance.
So some heads of every cross-attention are taught to attend to the token that answers for their cell (`cells.AFTER`).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from sipo.mini.cells import AFTER, GRID


@contextmanager
def cross_attentions(denoiser: nn.Module) -> Iterator[list[tuple[Attention, list[Tensor]]]]:
    """All cross-attentions of a diffusers network, each with the queries and keys (B, places or tokens, width) of one pass
    within the context.
    """
    seen: list[tuple[Attention, list[Tensor]]] = [
        (module, []) for module in denoiser.modules() if isinstance(module, Attention) and module.is_cross_attention
    ]
    hooks = [
        layer.register_forward_hook(lambda layer, given, result, passed=passed: passed.append(result))
        for attention, passed in seen
        for layer in (attention.to_q, attention.to_k)
        if layer is not None
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def lookup_loss(seen: list[tuple[Attention, list[Tensor]]], heads: int) -> Tensor:
    """Cross-entropy (scalar) between where the first `heads` heads attend and each place's own token."""
    losses = []
    for attention, passed in seen:
        query, key = (x.float().unflatten(-1, (attention.heads, -1))[:, :, :heads].transpose(1, 2) for x in passed)
        losses.append(lookup_cross_entropy(query, key))
    return torch.stack(losses).mean()


@contextmanager
def normed_attentions(transformer: nn.Module) -> Iterator[list[dict[str, Tensor]]]:
    """The normed queries and keys of all joint attentions of a diffusers transformer in one pass within the context, by the
    name of the layer that normed them."""
    attentions = [module for module in transformer.modules() if "norm_q" in dict(module.named_children())]
    seen: list[dict[str, Tensor]] = [{} for _ in attentions]
    hooks = [
        layer.register_forward_hook(
            lambda layer, given, result, name=name, passed=passed: passed.update({name: result})
        )
        for attention, passed in zip(attentions, seen, strict=True)
        for name, layer in attention.named_children()
        if name in ("norm_q", "norm_k", "norm_added_k")
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def lookup_cross_entropy(query: Tensor, key: Tensor, after: int = AFTER) -> Tensor:
    """Scalar, for queries (..., places, width) and the keys of the text (..., tokens, width), whose own tokens are sought."""
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (..., places, tokens)
    own = own_tokens(query.shape[-2], after).to(logits.device).expand(logits.shape[:-1])
    return F.cross_entropy(logits.flatten(0, -2), own.flatten())


def own_tokens(places: int, after: int = AFTER) -> Tensor:
    """The token (places,) that answers for the cell of each place of a square map, row by row."""
    side = round(places**0.5)
    cell = torch.arange(side) * GRID // side
    return (after + cell[:, None] * GRID + cell).flatten()
