"""The tokenizer loses nothing of any text but case and spacing, which CLIP's own loses too."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipo.mini.tokenizer import COMMON_WORDS, MAX_LENGTH, WORLD_WORDS, byte_symbols, make_tokenizer, tokenize
from sipo.mini.wording import all_prompts
from sipo.mini.world import COLORS, PLURALS, SHAPES

TOKENIZER = make_tokenizer()
BYTE_OF = {symbol: byte for byte, symbol in enumerate(byte_symbols())}


def spelled(text):
    """The text that the tokens of `text` stand for."""
    tokens = TOKENIZER.convert_ids_to_tokens(TOKENIZER(text, add_special_tokens=False).input_ids)
    symbols = "".join(token.removesuffix("</w>") for token in tokens)
    return bytes(BYTE_OF[symbol] for symbol in symbols).decode()


# Of letters that this Python's Unicode does not know (Cn), the tokenizer's newer tables may know the small form.
@settings(max_examples=300)
@given(st.text(st.characters(exclude_categories=["Cs", "Cn", "Z", "Cc", "Cf"]), max_size=40))
def test_any_text_comes_back(text):
    lowered = unicodedata.normalize("NFC", text).lower()
    assert spelled(text) == "".join(lowered.split())


def test_all_bytes_are_tokens():
    vocabulary = TOKENIZER.get_vocab()
    assert len(set(byte_symbols())) == 256
    assert all(symbol in vocabulary and symbol + "</w>" in vocabulary for symbol in byte_symbols())


@pytest.mark.parametrize(
    "words", [WORLD_WORDS, list(COLORS), list(SHAPES), list(PLURALS.values()), COMMON_WORDS.split()]
)
def test_known_words_are_one_token_each(words):
    for word in words:
        assert len(TOKENIZER(word, add_special_tokens=False).input_ids) == 1


def test_prompts_fit_and_long_captions_are_cut():
    prompts = [prompt["prompt"] for group in all_prompts().values() for prompt in group]
    assert max(len(TOKENIZER(prompt).input_ids) for prompt in prompts) <= MAX_LENGTH // 2
    ids = tokenize(TOKENIZER, ["", "a photo of a star", "日本 " * 100, "🙂" * 50])
    assert ids.shape == (4, MAX_LENGTH)
    assert (ids[:, 0] == TOKENIZER.bos_token_id).all()
    assert (ids[:, -1] == TOKENIZER.eos_token_id).all()
