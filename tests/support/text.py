"""Tiny random language models, and preferences over strings of digits."""

import random
from functools import cache

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

TOKENS = ["<pad>", "<eos>", *"0123456789>"]
SIZES = {
    "vocab_size": len(TOKENS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 32, "initializer_range": 0.3,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """A token a character."""
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


def language_model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def mixture_of_experts(seed: int) -> MixtralForCausalLM:
    torch.manual_seed(seed)
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2, output_router_logits=True))


def preferences(pairs: int = 8) -> Dataset:
    """Prompts of 2 to 4 digits; answers of 1 to 6."""
    draw = random.Random(0)

    def digits(low: int, high: int) -> str:
        return "".join(draw.choices("0123456789", k=draw.randint(low, high)))

    rows = [
        {"prompt": digits(2, 4) + ">", "chosen": digits(1, 6), "rejected": digits(1, 6)} for _ in range(pairs)
    ]  # fmt: skip
    return Dataset.from_list(rows)
