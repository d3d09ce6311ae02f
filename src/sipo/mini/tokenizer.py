"""A CLIP tokenizer made offline: every byte is a token, and so is every word of the world."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from transformers import CLIPTokenizer

from sipo.mini.world import COLORS, PLURALS, SHAPES

MAX_LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"

WORLD_WORDS = ["a", "an", "photo", "of", "and", "left", "right", "above", "below", "one", "two", "three", "four"]
COMMON_WORDS = """
the in on with to for is at by from face man woman person hand eye eyes heart smiling big small up down open closed
button arrow sign symbol flag cat dog bird fish tree flower sun moon light dark water fire house car ball book box
clock ring crown pink brown gray grey background picture image painting drawing portrait style colorful
"""


def byte_symbols() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in byte order (CLIP uses the same)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_in = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [stand_in[byte] for byte in range(256)]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent first, until each of `words` is a single token."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in dict.fromkeys(words)]
    merges = []
    while any(len(word) > 1 for word in pieces):
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        pieces = [_merged(word, best) for word in pieces]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def make_tokenizer(words: Sequence[str] = ()) -> CLIPTokenizer:
    """The miniature's tokenizer: any text encodes without an unknown token, and is cut at MAX_LENGTH tokens.

    words: that are one token each, besides those of the still world.
    """
    symbols = byte_symbols()
    merges = learn_merges([*WORLD_WORDS, *COLORS, *SHAPES, *PLURALS.values(), *COMMON_WORDS.split(), *words])
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair) for pair in merges), START, END]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_LENGTH)  # pyright: ignore[reportArgumentType]  # takes pairs


def tokenize(tokenizer: CLIPTokenizer, prompts: list[str]):
    """Token ids (B, MAX_LENGTH) int64, padded and cut as StableDiffusionPipeline does it."""
    settings = {"padding": "max_length", "max_length": MAX_LENGTH, "truncation": True, "return_tensors": "pt"}
    return tokenizer(prompts, **settings).input_ids
