"""A tiny random Qwen2-VL: weights, config, a tokenizer over bytes; and its forward in plain torch, on its tensors' first names."""

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, silu
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
            "<|image_pad|>", "<|video_pad|>"]  # fmt: skip
WIDTH, HEADS, KEYS, EYE, EYE_HEADS = 32, 4, 2, 32, 2


def tokenizer() -> Qwen2Tokenizer:
    """Each byte is a token of its own number; the special ones follow from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    letters = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    found = Qwen2Tokenizer(vocab={letter: byte for byte, letter in enumerate(letters)}, merges=[])
    found.add_special_tokens({"additional_special_tokens": SPECIALS[1:]})
    return found


def config(vocabulary: int = 272) -> Qwen2VLConfig:
    return Qwen2VLConfig(
        text_config={
            "vocab_size": vocabulary, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": HEADS, "num_key_value_heads": KEYS, "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": 2,
            "rope_parameters": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        },
        vision_config={"depth": 2, "embed_dim": EYE, "hidden_size": WIDTH, "num_heads": EYE_HEADS},
        image_token_id=262, video_token_id=263, vision_start_token_id=259, vision_end_token_id=260,
    )  # fmt: skip


def model(vocabulary: int = 272, seed: int = 0) -> Qwen2VLForConditionalGeneration:
    """Random weights, large enough that all parts show in what comes out."""
    found = Qwen2VLForConditionalGeneration(config(vocabulary)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(
                1 + 0.2 * noise if norm else noise * (0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
            )
    return found


def first_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of transformers 4.45, under which the published reward models were written."""
    return {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): t
        for name, t in state.items()
    }


def save_base(folder: Path, vocabulary: int = 272) -> Path:
    """Config and tokenizer, no weights."""
    config(vocabulary).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def plain_states(
    state: dict[str, Tensor], ids: list[int], patches: Tensor, grid: tuple[int, int, int], pad: int
) -> Tensor:
    """The last hidden states (L, D) of one sample, as the first forward of the reward models computes them."""
    x = state["model.embed_tokens.weight"][torch.tensor(ids)]
    x[torch.tensor(ids) == pad] = _see(state, patches, grid)
    frequencies = (
        (1e6 ** -(torch.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS))).bfloat16().float()
    )  # model.to(bfloat16)
    turns = _turns(torch.arange(len(ids)), frequencies)
    hidden = torch.full((len(ids), len(ids)), -torch.inf).triu(1)
    for i in range(2):
        layer = f"model.layers.{i}"
        y = _rms(x, state[f"{layer}.input_layernorm.weight"])
        q, k, v = (
            linear(y, state[f"{layer}.self_attn.{n}_proj.weight"], state[f"{layer}.self_attn.{n}_proj.bias"])
            for n in "qkv"
        )
        k, v = (t.view(len(ids), KEYS, -1).repeat_interleave(HEADS // KEYS, 1).flatten(1) for t in (k, v))
        x = x + linear(_attend(q, k, v, HEADS, turns, hidden), state[f"{layer}.self_attn.o_proj.weight"])
        y = _rms(x, state[f"{layer}.post_attention_layernorm.weight"])
        gate, up = (linear(y, state[f"{layer}.mlp.{name}_proj.weight"]) for name in ("gate", "up"))
        x = x + linear(silu(gate) * up, state[f"{layer}.mlp.down_proj.weight"])
    return _rms(x, state["model.norm.weight"])


def _see(state: dict[str, Tensor], patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The vision tower: patches in groups of 2 x 2, each frame pair attending to itself alone."""
    t, h, w = grid
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    grouped = [p.reshape(h // 2, 2, w // 2, 2).transpose(1, 2).flatten() for p in (rows, columns)]
    frequencies = (10000.0 ** -(torch.arange(0, EYE // EYE_HEADS // 2, 2) / (EYE // EYE_HEADS // 2))).bfloat16().float()
    angles = torch.cat([p[:, None] * frequencies for p in grouped], 1).repeat(t, 1)
    turns = torch.cat([angles, angles], 1)
    frame = torch.arange(t).repeat_interleave(h * w)
    hidden = torch.where(frame[:, None] == frame[None], 0.0, -torch.inf)
    x = linear(patches, state["visual.patch_embed.proj.weight"].flatten(1))

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (EYE,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def dense(x: Tensor, name: str) -> Tensor:
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    for i in range(2):
        block = f"visual.blocks.{i}"
        q, k, v = dense(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
        x = x + dense(_attend(q, k, v, EYE_HEADS, turns, hidden), f"{block}.attn.proj")
        y = dense(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        x = x + dense(y * torch.sigmoid(1.702 * y), f"{block}.mlp.fc2")
    merged = norm(x, "visual.merger.ln_q").reshape(-1, 4 * EYE)
    return dense(gelu(dense(merged, "visual.merger.mlp.0")), "visual.merger.mlp.2")


def _turns(positions: Tensor, frequencies: Tensor) -> Tensor:
    angles = positions[:, None] * frequencies
    return torch.cat([angles, angles], 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, turns: Tensor, hidden: Tensor) -> Tensor:
    q, k, v = (t.view(len(t), heads, -1).transpose(0, 1) for t in (q, k, v))  # (heads, L, d)
    half = q.shape[-1] // 2
    q, k = (t * turns.cos() + torch.cat([-t[..., half:], t[..., :half]], -1) * turns.sin() for t in (q, k))
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + hidden).softmax(-1)
    return (weights @ v).transpose(0, 1).flatten(1)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight
