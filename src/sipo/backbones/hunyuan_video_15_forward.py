"""HunyuanVideo-1.5's transformer for text to video, without the tokens that its own forward masks out.

diffusers' forward gives every sample 729 image tokens and all padding of its texts, and masks them by a matrix of tokens x tokens
for each sample (2.5 GB at 121 frames of 480 x 848), whatever is masked. It also reads masks on the host. Nothing of that reaches
the prediction, so here texts are cut to the longest of the batch, and attention gets a mask of keys where others are shorter, or none.
"""

from types import MethodType
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0
from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15AttnProcessor2_0
from torch import Tensor, nn

from sipo.backbones.prompts import unpadded

TEXT, GLYPHS = 0, 1  # rows of the network's table of kinds of tokens; the third is images'


class JointAttention(HunyuanVideo15AttnProcessor2_0):
    """Of video and text tokens, with a mask of keys (B, 1, 1, N), with none, or with diffusers' own mask of text tokens (B, L)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        of_diffusers = attention_mask is not None and attention_mask.ndim == 2
        kind = HunyuanVideo15AttnProcessor2_0 if of_diffusers else HunyuanVideoAttnProcessor2_0
        inputs = hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
        return kind.__call__(self, attn, *inputs)  # pyright: ignore[reportArgumentType]


def prepare(network: Any) -> None:
    """Let calls with `glyphs` go through `text_to_video`, and so the pipeline's; others through diffusers' own forward."""
    for block in network.transformer_blocks:
        block.attn.set_processor(JointAttention())
    network.forward = MethodType(_forward, network)


def _forward(network: Any, *args: Any, **keys: Any) -> Any:
    if "glyphs" in keys:
        return text_to_video(network, *args, **keys)
    if args or not _is_text_to_video(**keys):
        return type(network).forward(network, *args, **keys)
    lengths = (keys[f"encoder_attention_mask{suffix}"].bool().sum(1).cpu() for suffix in ("", "_2"))
    texts = arranged(keys["encoder_hidden_states"], keys["encoder_hidden_states_2"], *lengths)
    prediction = text_to_video(network, keys["hidden_states"], keys["timestep"], **texts)
    return Transformer2DModelOutput(prediction) if keys.get("return_dict", True) else (prediction,)


def _is_text_to_video(
    image_embeds: Tensor, encoder_attention_mask: Tensor, encoder_attention_mask_2: Tensor, attention_kwargs: Any = None,
    timestep_r: Any = None, **others: Any,
) -> bool:  # fmt: skip
    """Whether a call of diffusers' forward has no image, and masks of tokens that come before all padding."""
    masks = encoder_attention_mask.bool(), encoder_attention_mask_2.bool()
    padded_last = all(bool((mask[:, 1:] <= mask[:, :-1]).all()) for mask in masks)
    return padded_last and not attention_kwargs and timestep_r is None and not image_embeds.any()


def arranged(text: Tensor, glyphs: Tensor, lengths: Tensor, lengths_2: Tensor) -> dict[str, Any]:
    """What `text_to_video` reads of texts (B, ., D) and glyphs (B, ., D') whose lengths (B,) are on the CPU: both cut to the longest.

    On the meta device, where lengths have no values, both are as long as they can be.
    """
    text, mask = unpadded({"encoder_hidden_states": text, "lengths": lengths})
    glyphs, of_glyphs = unpadded({"encoder_hidden_states": glyphs, "lengths": lengths_2})
    order = None
    if mask is not None or of_glyphs is not None:
        order = _order(lengths, lengths_2).to(text.device, non_blocking=True)
    return {"text": text, "glyphs": glyphs, "mask": mask, "order": order}


def _order(text: Tensor, glyphs: Tensor) -> Tensor:
    """(B, N) of lengths (B,): each sample's glyphs, then its text, numbered from the glyphs of the longest on; -1 after them."""
    start, places = int(glyphs.max()), torch.arange(int((text + glyphs).max()))
    glyphs, ends = glyphs.unsqueeze(1), (text + glyphs).unsqueeze(1)
    order = torch.where(places < glyphs, places, places - glyphs + start)
    return torch.where(places < ends, order, -1)


def text_to_video(
    network: Any, latents: Tensor, timestep: Tensor, *, text: Tensor, glyphs: Tensor, mask: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The velocity, (B, C, f, h, w), of latents (B, C, f, h, w) at timesteps (B,); channels of a first frame are zeros, if not given.

    text: (B, L, D) of Qwen2.5-VL, of which `mask` (B, L) has the tokens; None: all. glyphs: (B, G, D') of ByT5. order: (B, N),
    for each place of the text stream its token, of glyphs and then text side by side, or -1 for padding; None: all G + L.
    """
    config = network.config
    unconditioned = latents.new_zeros(len(latents), config.in_channels - latents.shape[1], *latents.shape[2:])
    rotary, temb = network.rope(latents), network.time_embed(timestep)
    video = network.x_embedder(torch.cat([latents, unconditioned], 1))  # (B, f h w, D)

    text = _of_kind(network, network.context_embedder(text, timestep, mask), TEXT)
    glyphs = _of_kind(network, network.context_embedder_2(glyphs), GLYPHS)
    stream, keys = torch.cat([glyphs.to(text.dtype), text], 1), None
    if order is not None:
        stream = stream.gather(1, order.clamp(min=0).unsqueeze(2).expand(-1, -1, stream.shape[2]))
        keys = torch.cat([order.new_ones(len(order), video.shape[1]), order >= 0], 1).bool()[:, None, None]

    checkpointed = network.gradient_checkpointing and torch.is_grad_enabled()
    for block in network.transformer_blocks:
        inputs = video, stream, temb, keys, rotary
        video, stream = network._gradient_checkpointing_func(block, *inputs) if checkpointed else block(*inputs)

    patches = network.proj_out(network.norm_out(video, temb))  # (B, f h w, C p p p)
    sides = config.patch_size_t, config.patch_size, config.patch_size
    grid = [number // side for number, side in zip(latents.shape[2:], sides, strict=True)]
    unfolded = patches.view(len(latents), *grid, -1, *sides).permute(0, 4, 1, 5, 2, 6, 3, 7)  # (B, C, f, p, h, p, w, p)
    return unfolded.reshape(len(latents), -1, *latents.shape[2:])


def _of_kind(network: nn.Module, tokens: Tensor, kind: int) -> Tensor:
    table: Any = network.cond_type_embed
    return tokens + table(torch.full(tokens.shape[:2], kind, device=tokens.device))
