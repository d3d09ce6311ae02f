"""Tiny text encoders with random weights, and tokenizers over single ASCII characters."""

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer over single ASCII characters."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=16)


def text_encoder(projection: bool = False, width: int = 32):
    config = CLIPTextConfig(
        vocab_size=190, hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=16, projection_dim=width, bos_token_id=188, eos_token_id=189, pad_token_id=189,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5_tokenizer(length: int) -> T5Tokenizer:
    """A T5 tokenizer over single ASCII characters."""
    letters = [chr(code) for code in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("\u2581", -2.0), *((letter, -3.0) for letter in letters)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


def t5(config=T5Config, model=T5EncoderModel):
    return model(config(vocab_size=128, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                        feed_forward_proj="gated-gelu"))  # fmt: skip
