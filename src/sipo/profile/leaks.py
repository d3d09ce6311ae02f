"""Prompts of benchmarks among the captions of the pairs: a model trained on them is no longer tested by them."""

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
LEAST = 5  # words of a benchmark's prompt that counts as part of a longer caption


@dataclass(frozen=True)
class Leak:
    """A caption that is a benchmark's prompt up to case, punctuation and spacing, or holds one as `whole` False."""

    caption: str
    prompt: str
    whole: bool


def words_of(text: str) -> tuple[str, ...]:
    """A text's words: case, punctuation, width and spacing do not count."""
    return tuple(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def find_leaks(captions: Sequence[str], prompts: Sequence[str]) -> list[Leak]:
    """Each distinct caption that is one of the prompts, or contains one of at least 5 words in a row; the longest counts."""
    wanted = {words: prompt for prompt in reversed(prompts) if (words := words_of(prompt))}
    by_start: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for words in sorted(wanted, key=len, reverse=True):
        if len(words) >= LEAST:
            by_start[words[:LEAST]].append(words)
    found = []
    for caption in dict.fromkeys(captions):
        words = words_of(caption)
        if words in wanted:
            found.append(Leak(caption, wanted[words], True))
        elif inside := max(_inside(words, by_start), key=len, default=None):
            found.append(Leak(caption, wanted[inside], False))
    return found


def _inside(
    words: tuple[str, ...], by_start: dict[tuple[str, ...], list[tuple[str, ...]]]
) -> Iterator[tuple[str, ...]]:
    for start in range(len(words) - LEAST + 1):
        for prompt in by_start.get(words[start : start + LEAST], ()):
            if words[start : start + len(prompt)] == prompt:
                yield prompt
                break


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
