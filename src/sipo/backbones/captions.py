"""Captions beyond what the text encoders read: the rest of such a caption is cut off, so captions may become one."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import transformers

from sipo.backbones.architecture import Architecture

AT_ONCE = 1024


@dataclass(frozen=True)
class Overlong:
    """How many of `total` captions a text encoder cuts at `limit` tokens; `longest`: the most tokens that one has."""

    part: str
    limit: int
    count: int
    total: int
    longest: int

    def __str__(self) -> str:
        return (
            f"{self.count:,} of {self.total:,} captions are longer than {self.part} reads: {self.limit} tokens (the longest "
            f"has {self.longest:,}). The rest of them is cut off"
        )


def overlong(architecture: Architecture, folder: Path, captions: Collection[str]) -> list[Overlong]:
    """For each text encoder that cuts some. Equal captions count once. folder: where the tokenizers are."""
    different, found = sorted(set(captions)), []
    for part, limit in architecture.adapter.tokens.items():
        name = part.replace("text_encoder", "tokenizer")
        tokenizer = getattr(transformers, architecture.configs["model_index"][name][1]).from_pretrained(folder / name)
        lengths = [
            len(tokens)
            for start in range(0, len(different), AT_ONCE)
            for tokens in tokenizer(different[start : start + AT_ONCE], truncation=False, verbose=False)["input_ids"]
        ]
        beyond = [length for length in lengths if length > limit]
        if beyond:
            found.append(Overlong(part, limit, len(beyond), len(different), max(beyond)))
    return found
