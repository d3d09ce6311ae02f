"""A checkpoint of any planned architecture with random weights: to try sizes, speed and memory before any download."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer, T5Tokenizer

from sipo.backbones.architecture import architecture_folder, read_architecture, resolve_path
from sipo.backbones.meta import make_text_encoder
from sipo.config import ModelConfig
from sipo.errors import UserError

ASCII = [chr(code) for code in range(33, 127)]


def write_random_checkpoint(model: ModelConfig, folder: Path, dtype: torch.dtype, seed: int = 0) -> None:
    """Write `folder` in diffusers layout: the configs of `model.path`, weights drawn as their classes initialise them.

    Tokenizers know single ASCII characters, and text encoders keep their width but have one layer: what they compute
    matters to no size. Complete once its model_index.json is there, which comes last. Raises UserError for a model whose
    configs are neither shipped nor in a local folder.
    """
    path = resolve_path(model.path)
    source = Path(path) if Path(path).is_dir() else architecture_folder(path)
    if source is None:
        raise UserError(f"model.path: the shapes of {model.path} are not shipped, and it is no local folder")
    architecture = read_architecture(model)
    family, configs, index = architecture.family, architecture.configs, architecture.configs["model_index"]
    torch.manual_seed(seed)
    for name, cls in {**family.denoisers, "vae": family.vae}.items():
        cls.from_config(configs[name]).to(dtype).save_pretrained(folder / name)
    for name in family.text_encoders:
        encoder: Any = make_text_encoder(configs[name], **_shallow(configs[name]))
        encoder.to(dtype).save_pretrained(folder / name)
        _tokenizer(configs[name]).save_pretrained(folder / name.replace("text_encoder", "tokenizer"))
    shutil.copytree(source / "scheduler", folder / "scheduler", dirs_exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(_with_our_tokenizers(index)), encoding="utf-8")


def _shallow(encoder: dict) -> dict:
    """One layer, and a vocabulary as small as the tokenizer's."""
    return {"num_hidden_layers" if "CLIP" in encoder["_class_name"] else "num_layers": 1, "vocab_size": 256}


def _tokenizer(encoder: dict) -> CLIPTokenizer | T5Tokenizer:
    """Of the encoder's kind and length."""
    if "CLIP" in encoder["_class_name"]:
        pieces = [*ASCII, *(f"{letter}</w>" for letter in ASCII), "<|startoftext|>", "<|endoftext|>"]
        vocab = {piece: number for number, piece in enumerate(pieces)}
        return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=encoder.get("max_position_embeddings", 77))
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("\u2581", -2.0), *((letter, -3.0) for letter in ASCII)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _with_our_tokenizers(index: dict) -> dict:
    """The index with the classes that were written, and without the parts that are never used."""
    ours = {}
    for key, value in index.items():
        if key.startswith("tokenizer") and value:
            value = ["transformers", "CLIPTokenizer" if "CLIP" in value[1] else "T5Tokenizer"]
        ours[key] = value
    return ours
