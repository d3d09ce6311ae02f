"""Tiny text encoders with random weights, and tokenizers over single ASCII characters."""

from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
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


def clip_vision() -> tuple[CLIPVisionModel, CLIPImageProcessorPil]:
    """Of 2 x 2 patches, and what scales and crops pictures to its 28 x 28 pixels."""
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    sides = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    return CLIPVisionModel(config), CLIPImageProcessorPil(**sides)


def t5_tokenizer(length: int) -> T5Tokenizer:
    """A T5 tokenizer over single ASCII characters."""
    letters = [chr(code) for code in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("\u2581", -2.0), *((letter, -3.0) for letter in letters)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=length)


def t5(config=T5Config, model=T5EncoderModel, vocab_size: int = 128):
    return model(config(vocab_size=vocab_size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                        feed_forward_proj="gated-gelu"))  # fmt: skip


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
CHARACTERS = [chr(code) for code in range(33, 127)] + ["\u0120", "\u010a"]  # space and newline, as bytes


def qwen_tokenizer() -> Qwen2Tokenizer:
    """A Qwen tokenizer over single ASCII characters, with the chat template of Qwen 3 for one message."""
    vocab = {piece: number for number, piece in enumerate([*SPECIAL, *CHARACTERS])}
    template = (
        "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    )
    return Qwen2Tokenizer(vocab=vocab, merges=[], additional_special_tokens=SPECIAL[1:], chat_template=template)


def chat_tokenizer() -> Qwen2Tokenizer:
    """The same with a chat template for messages of several roles, as Qwen 2.5's, and padding on the right."""
    found = qwen_tokenizer()
    found.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    found.padding_side = "right"
    return found


def qwen25_vl_text() -> Qwen2_5_VLTextModel:
    """The language model of a Qwen2.5-VL, as HunyuanVideo-1.5 has it; the last layer but two is the first of three."""
    return Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(
        vocab_size=len(SPECIAL) + len(CHARACTERS), hidden_size=16, intermediate_size=16, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2,
        rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
    ))  # fmt: skip


def qwen25_vl() -> Qwen2_5_VLForConditionalGeneration:
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        text_config={"vocab_size": len(SPECIAL) + len(CHARACTERS), "hidden_size": 16, "intermediate_size": 16,
                     "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
                     "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
        image_token_id=SPECIAL.index("<|image_pad|>"), vision_start_token_id=SPECIAL.index("<|vision_start|>"),
    ))  # fmt: skip


def qwen3(model=Qwen3Model, layers: int = 2) -> Qwen3Model | Qwen3ForCausalLM:
    return model(Qwen3Config(
        vocab_size=len(SPECIAL) + len(CHARACTERS), hidden_size=16, intermediate_size=16, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    ))  # fmt: skip


GEMMA = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]


def gemma_tokenizer(length: int = 1024) -> GemmaTokenizer:
    """A Gemma tokenizer over single ASCII characters, which begins with a token of its own; a space is one of \u2581."""
    pieces = [*GEMMA, *(chr(code) for code in range(33, 127)), "\u2581"]
    return GemmaTokenizer({piece: number for number, piece in enumerate(pieces)}, merges=[], model_max_length=length)


def gemma3(layers: int = 2) -> Gemma3ForConditionalGeneration:
    """With its vision tower, as LTX-2 has it; every second layer sees a window of tokens alone."""
    return Gemma3ForConditionalGeneration(Gemma3Config(
        text_config={"vocab_size": len(GEMMA) + 95, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": layers,
                     "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 32,
                     "layer_types": ["sliding_attention", "full_attention"] * (layers // 2)},
        vision_config={"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
    ))  # fmt: skip
