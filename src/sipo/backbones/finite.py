"""Weights that are NaN or infinite (of a damaged file, an overflow in fp16, a LoRA merged with such), and what they draw."""

import itertools

import numpy as np
from torch import nn
from torch.distributed.tensor import DTensor

from sipo.backbones.family import Media


def nonfinite_weight(part: str, network: nn.Module, trained: bool) -> str | None:
    """The first weight or buffer of a network that is not finite, with how much of it; None where all are.

    trained: look at the weights that take gradients too.
    """
    for name, tensor in itertools.chain(network.named_parameters(), network.named_buffers()):
        if tensor.requires_grad and not trained:
            continue
        own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if own.is_floating_point() and (count := int((~own.isfinite()).sum())):
            plain = name.replace(".base_layer.", ".")
            return f"{plain} of the {part} is NaN or infinite in {count:,} of {own.numel():,} values"
    return None


def lacks_a_channel(medium: Media) -> bool:
    """Whether a channel of a picture, or of all frames of a video, is 0 everywhere: what is left of NaN."""
    frames = medium if isinstance(medium, list) else [medium]
    brightest = np.max([np.asarray(frame.convert("RGB")).max(axis=(0, 1)) for frame in frames], axis=0)  # (3,)
    return not brightest.all()
