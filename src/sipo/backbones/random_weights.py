"""A checkpoint of any planned architecture with random weights: to try sizes, speed and memory before any download."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer, GemmaTokenizer, PreTrainedTokenizerBase, Qwen2Tokenizer, T5Tokenizer

from sipo.backbones.architecture import architecture_folder, read_architecture, resolve_path
from sipo.backbones.meta import extra_class, make_network, make_text_encoder
from sipo.config import ModelConfig
from sipo.errors import UserError

ASCII = [chr(code) for code in range(33, 127)]
VOCABULARY = 256
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_random_checkpoint(model: ModelConfig, folder: Path, dtype: torch.dtype, seed: int = 0) -> None:
    """Write `folder` in diffusers layout: the configs of `model.path`, weights drawn as their classes initialise them.

    Tokenizers know single ASCII characters, and text encoders keep their width but have only the layers that the pipeline
    reads: what they compute matters to no size. Complete once its model_index.json is there, which comes last. Raises UserError for a model whose
    configs are neither shipped nor in a local folder.
    """
    path = resolve_path(model.path)
    source = Path(path) if Path(path).is_dir() else architecture_folder(path)
    if source is None:
        raise UserError(f"model.path: the shapes of {model.path} are not shipped, and it is no local folder")
    architecture = read_architecture(model)
    family, configs, index = architecture.family, architecture.configs, architecture.configs["model_index"]
    torch.manual_seed(seed)
    extras = {part: extra_class(architecture, part) for part in family.extras}
    for name, cls in {**family.denoisers, "vae": family.vae, **extras}.items():
        make_network(cls, configs[name]).to(dtype).save_pretrained(folder / name)
    tokenizers = {}
    for name in family.text_encoders:
        encoder: Any = make_text_encoder(configs[name], **_shallow(configs[name], family.encoder_layers))
        encoder.to(dtype).save_pretrained(folder / name)
        part, tokenizer = name.replace("text_encoder", "tokenizer"), _tokenizer(configs[name])
        for place in (part, *family.processors):
            tokenizer.save_pretrained(folder / place)
        tokenizers[part] = ["transformers", type(tokenizer).__name__]
    for part in ("scheduler", "guider"):  # parts without weights
        if part in index:
            shutil.copytree(source / part, folder / part, dirs_exist_ok=True)
    for part in family.processors:
        for config in (source / part).glob("*processor_config.json"):
            shutil.copy(config, folder / part)
    (folder / "model_index.json").write_text(json.dumps({**index, **tokenizers}), encoding="utf-8")


def _shallow(encoder: dict[str, Any], layers: int) -> dict[str, Any]:
    """Few layers, and a vocabulary as small as the tokenizer's. Language models of which many layers are read get thin ones."""
    kind = encoder["_class_name"]
    if not kind.startswith(("Qwen", "Gemma3")):
        return {"num_hidden_layers" if "CLIP" in kind else "num_layers": layers, "vocab_size": VOCABULARY}
    text = encoder.get("text_config", encoder)
    layers = min(layers, text["num_hidden_layers"])
    less = {"num_hidden_layers": layers, "vocab_size": VOCABULARY, "layer_types": None}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1} if "head_dim" in text else {}
    less |= {**heads, "intermediate_size": 8} if layers > 1 else {}
    if "text_config" in encoder:
        depth = "depth" if kind.startswith("Qwen") else "num_hidden_layers"
        parts = {"text_config": {**text, **less}, "vision_config": {**encoder["vision_config"], depth: 1}}
        return parts | ({"image_token_id": QWEN.index("<|image_pad|>")} if kind.startswith("Qwen") else {})
    return less


def _tokenizer(encoder: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Of the encoder's kind and length."""
    if "CLIP" in encoder["_class_name"]:
        pieces = [*ASCII, *(f"{letter}</w>" for letter in ASCII), "<|startoftext|>", "<|endoftext|>"]
        vocab = {piece: number for number, piece in enumerate(pieces)}
        return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=encoder.get("max_position_embeddings", 77))
    if "Qwen" in encoder["_class_name"]:
        pieces = [*QWEN, *ASCII, "\u0120", "\u010a"]  # space and newline, as bytes are written
        vocab = {piece: number for number, piece in enumerate(pieces)}
        return Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=QWEN[1:], chat_template=CHAT)
    if "Gemma3" in encoder["_class_name"]:
        pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *ASCII, "\u2581"]
        return GemmaTokenizer({piece: number for number, piece in enumerate(pieces)}, merges=[], model_max_length=1024)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("\u2581", -2.0), *((letter, -3.0) for letter in ASCII)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
