"""Text embeddings of prompts of different lengths, as one tensor for the cache, and as the network gets them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sipo.backbones.family import Conditioning


def padded(hidden: Sequence[Tensor], length: int) -> Conditioning:
    """Text embeddings (L, D) of prompts of any length as one tensor (B, length, D), zeros after each, and their lengths (B,)."""
    whole = [pad(each, (0, 0, 0, length - len(each))) for each in hidden]
    return {"encoder_hidden_states": torch.stack(whole), "lengths": torch.tensor([len(each) for each in hidden])}


def unpadded(conditioning: Conditioning) -> tuple[Tensor, Tensor | None]:
    """`padded`, cut to the longest prompt, (B, L, D), and what is a token of it, (B, L); None where all are.

    On the meta device, where lengths have no values, prompts are as long as they can be.
    """
    hidden, lengths = conditioning["encoder_hidden_states"], conditioning["lengths"]
    if lengths.is_meta:
        return hidden, None
    longest = max(lengths.tolist())
    if min(lengths.tolist()) == longest:
        return hidden[:, :longest], None
    positions = torch.arange(longest, device=hidden.device)
    return hidden[:, :longest], positions < lengths.to(hidden.device, non_blocking=True).unsqueeze(1)


def separate(conditioning: Conditioning) -> list[Tensor]:
    """The prompts of `padded`, (L, D) each. On the meta device they are as long as they can be."""
    hidden, lengths = conditioning["encoder_hidden_states"], conditioning["lengths"]
    if lengths.is_meta:
        return list(hidden)
    return [each[:length] for each, length in zip(hidden, lengths.tolist(), strict=True)]
