"""Tiny detectors with random weights, built from config and saved as their publishers save them."""

from pathlib import Path

import torch
from support import checkpoints as tiny
from transformers import (
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    SwinConfig,
)

LENGTH = 48  # tokens: letters
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**TOWER, "vocab_size": 190, "max_position_embeddings": LENGTH, "bos_token_id": 188, "eos_token_id": 189,
        "pad_token_id": 189}  # fmt: skip


def clip_tokenizer() -> CLIPTokenizer:
    """Of letters, as `tiny`'s, for longer texts."""
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = LENGTH
    return tokenizer


def owlv2(folder: Path) -> Path:
    """16 boxes on pictures of 32 pixels."""
    torch.manual_seed(0)
    config = Owlv2Config(
        text_config=TEXT, vision_config={**TOWER, "image_size": 32, "patch_size": 8}, projection_dim=32
    )
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    Owlv2ImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


def bert_tokenizer() -> BertTokenizer:
    """Of letters. The ids of its special tokens are those that Grounding DINO splits its caption at."""
    vocab = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    pieces = [prefix + chr(code) for prefix in ("", "##") for code in range(97, 123)]
    return BertTokenizer(vocab=vocab | {piece: 2000 + i for i, piece in enumerate(pieces)}, model_max_length=256)


def grounding_dino(folder: Path) -> Path:
    """12 boxes."""
    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = {"model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 4, "vocab_size": 2100, "max_position_embeddings": 256}  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=4, decoder_attention_heads=4, num_queries=12,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def mask2former(folder: Path, num_labels: int = 80) -> Path:
    """10 masks."""
    torch.manual_seed(0)
    backbone = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=10,
        num_labels=num_labels,
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPConfig(text_config=TEXT, vision_config={**TOWER, "image_size": 32, "patch_size": 8}, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder
