"""Captions longer than CLIP reads, in windows, as AUTOMATIC1111 and ComfyUI encode them.

A caption's tokens are cut into chunks of 75. Each stands between a start and an end of its own, is encoded alone, and the
hidden states are put one after the other, which the denoiser's cross-attention reads whatever their number.
"""

from typing import Any

import torch
from torch import Tensor


def window_ids(tokenizer: Any, prompts: list[str], windows: int, length: int) -> tuple[Tensor, Tensor]:
    """Token ids (B, windows, length): start, up to length - 2 tokens of the caption, end, padding; and 0 where padding is, else 1.

    Captions that need fewer windows have empty ones at the end; of those that need more the rest is cut off.
    """
    room = length - 2
    ids = torch.full((len(prompts), windows, length), tokenizer.pad_token_id)
    ids[..., 0], ids[..., 1] = tokenizer.bos_token_id, tokenizer.eos_token_id
    mask = torch.zeros_like(ids)
    mask[..., :2] = 1
    texts = tokenizer(prompts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    for row, tokens in enumerate(texts):
        for window in range(windows):
            chunk = tokens[window * room : (window + 1) * room]
            ids[row, window, 1 : len(chunk) + 2] = torch.tensor([*chunk, tokenizer.eos_token_id])
            mask[row, window, : len(chunk) + 2] = 1
    return ids, mask


def encode_windows(encoder: Any, ids: Tensor, mask: Tensor | None, penultimate: bool) -> tuple[Tensor, Tensor]:
    """From ids and, for encoders that read one, mask (B, windows, length): hidden states (B, windows * length, D), of the last
    layer but one where `penultimate`; and the pooled state of the first window (B, D), as kohya's scripts take it."""
    mask = None if mask is None else mask.flatten(0, 1).to(encoder.device)
    found = encoder(ids.flatten(0, 1).to(encoder.device), attention_mask=mask, output_hidden_states=penultimate)
    hidden = found.hidden_states[-2] if penultimate else found[0]
    states = hidden.unflatten(0, ids.shape[:2]).flatten(1, 2)
    pooled = found.text_embeds if "text_embeds" in found else found.pooler_output
    return states, pooled.unflatten(0, ids.shape[:2])[:, 0]
