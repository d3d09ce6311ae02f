"""Prompts of benchmarks among the captions of the pairs: a model trained on them is no longer tested by them."""

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sipo.errors import UsageError
from sipo.registry import miniature
from sipo.samples.prompts import read_prompts

GENEVAL = Path(__file__).with_name("geneval.txt")  # djghosh13/geneval: prompts/evaluation_metadata.jsonl, MIT
LEAST = 5  # words of a benchmark's prompt that counts as a part of a longer caption
PARTS = re.compile(r"[^\w\s'’-]+")  # what parts of a caption stand between: "a photo of a bench, 4k" has two

Words = tuple[str, ...]


@dataclass(frozen=True)
class Leak:
    """A caption that is a benchmark's prompt up to case, punctuation and spacing, or, `whole` False, has it as a part."""

    caption: str
    prompt: str
    whole: bool


def words_of(text: str) -> Words:
    """A text's words: case, punctuation, width and spacing do not count."""
    return tuple(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def find_leaks(captions: Sequence[str], prompts: Sequence[str]) -> list[Leak]:
    """Each distinct caption that is one of the prompts, or has one of at least 5 words as a part; the longest counts.

    A part begins and ends at punctuation or at an end of the caption: "a photo of an orange" is no part of "a photo of an
    orange cross".
    """
    wanted = {words: prompt for prompt in reversed(prompts) if (words := words_of(prompt))}
    by_start: dict[Words, list[Words]] = defaultdict(list)
    for words in wanted:
        if len(words) >= LEAST:
            by_start[words[:LEAST]].append(words)
    found = []
    for caption in dict.fromkeys(captions):
        words = words_of(caption)
        if words in wanted:
            found.append(Leak(caption, wanted[words], True))
        elif part := max(_parts(caption, by_start), key=len, default=None):
            found.append(Leak(caption, wanted[part], False))
    return found


def _parts(caption: str, by_start: dict[Words, list[Words]]) -> Iterator[Words]:
    """The prompts that are parts of a caption."""
    parts = [words_of(part) for part in PARTS.split(unicodedata.normalize("NFKC", caption))]
    words, ends = tuple(word for part in parts for word in part), [0, *itertools.accumulate(map(len, parts))]
    for start in ends:
        for prompt in by_start.get(words[start : start + LEAST], ()):
            if words[start : start + len(prompt)] == prompt and start + len(prompt) in ends:
                yield prompt


def benchmarks(given: dict[str, str], *paths: str) -> dict[str, list[str]]:
    """The prompts of every benchmark by name: those of files (`read_prompts`), GenEval's, and the held-out ones of
    miniatures among `paths`. Raises UsageError for a name that is taken."""
    shipped = {"geneval": str(GENEVAL)} | {path: path for path in paths if miniature(path)}
    if taken := sorted(given.keys() & shipped.keys()):
        raise UsageError(
            f"--benchmark: {', '.join(taken)} ships with the package and is compared anyway: choose another name"
        )
    files = shipped | given
    return {name: [item.prompt for item in read_prompts(file)] for name, file in files.items()}
