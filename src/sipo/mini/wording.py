"""The miniature's world as GenEval's vocabulary, all of its prompts, and from a prompt's text back to its metadata."""

import re

from sipo.geneval.compose import every_prompt
from sipo.geneval.vocabulary import NUMBERS, World, both, clause, counted, placed, single
from sipo.mini.world import COLORS, PLURALS, SHAPES
from sipo.samples.metadata import RELATIONS

WORLD = World(tuple(SHAPES), tuple(COLORS), colored_counts=True, plurals=PLURALS)
"""The miniature's: five shapes in eight colours, which may be counted too."""

_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}
_COUNTS = {NUMBERS[count]: count for count in WORLD.counts}
_THING = rf"an? (?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)})"
_ONE = re.compile(rf"a photo of {_THING}")
_BOTH = re.compile(rf"a photo of {_THING} and {_THING}")
_PLACED = re.compile(rf"a photo of {_THING} ({'|'.join(RELATIONS)}) {_THING}")
_COUNTED = re.compile(rf"a photo of ({'|'.join(_COUNTS)}) (?:({'|'.join(COLORS)}) )?({'|'.join(_SINGULAR)})")


def parse(prompt: str) -> dict | None:
    """The metadata of a prompt of this world, or None for any other text."""
    text = " ".join(prompt.lower().split()).rstrip(".")
    if found := _ONE.fullmatch(text):
        return single(clause(found[2], found[1]))
    if found := _COUNTED.fullmatch(text):
        return counted(clause(_SINGULAR[found[3]], found[2], _COUNTS[found[1]]), WORLD)
    if found := _BOTH.fullmatch(text):
        return both(clause(found[2], found[1]), clause(found[4], found[3]))
    if found := _PLACED.fullmatch(text):
        return placed(clause(found[2], found[1]), found[3], clause(found[5], found[4]))
    return None


def all_prompts() -> dict[str, list[dict]]:
    """Every prompt of the world by category, in a fixed order. Two-object prompts name two different shapes."""
    return every_prompt(WORLD)
