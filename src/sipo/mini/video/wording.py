"""All prompts of the moving world, with what a judge must check, and from a prompt's text back to its metadata.

An entry is {"tag", "include", "prompt"} as GenEval's are; a clause adds to GenEval's the keys `motion` and `pace`.
"""

import itertools
import re

from sipo.geneval.vocabulary import clause
from sipo.mini import VIDEO
from sipo.mini.video.clips import DIRECTIONS, PACES, SHAPES
from sipo.mini.world import COLORS

CATEGORIES = VIDEO.categories
"""The values of `tag` of prompts that are judged: what is stated of one thing, from its shape alone to its pace."""

HELDOUT = {"shape": 2, "color": 8, "direction": 36, "speed": 48}
"""How many prompts of each category are held out."""

WORDS = ("video", "moving", *PACES)
"""Those that the still world's prompts lack."""

_MOVING = rf"(?: moving(?: ({'|'.join(PACES)}))? ({'|'.join(DIRECTIONS)}))?"
_THING = rf"an? (?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)}){_MOVING}"
_ONE = re.compile(rf"a video of {_THING}")
_TWO = re.compile(rf"a video of {_THING} and {_THING}")


def moving(shape: str, color: str | None = None, motion: str | None = None, pace: str | None = None) -> dict:
    """A clause: one thing, and what is stated of it."""
    stated = {"motion": motion, "pace": pace}
    return clause(shape, color) | {key: value for key, value in stated.items() if value}


def entry(*clauses: dict) -> dict:
    """The entry for one thing, or for two."""
    tag = "two_object" if len(clauses) == 2 else _tag(clauses[0])
    return {"tag": tag, "include": list(clauses), "prompt": f"a video of {' and '.join(map(_phrase, clauses))}"}


def parse(prompt: str) -> dict | None:
    """The metadata of a prompt of this world, or None for any other text."""
    text = " ".join(prompt.lower().split()).rstrip(".")
    for pattern in (_ONE, _TWO):
        if found := pattern.fullmatch(text):
            groups = found.groups()
            things = [groups[k : k + 4] for k in range(0, len(groups), 4)]
            return entry(*(moving(shape, color, motion, pace) for color, shape, pace, motion in things))
    return None


def judged_prompts() -> dict[str, list[dict]]:
    """Those of one thing, by category: what the miniature is judged and aligned by."""
    groups = all_prompts()
    return {category: groups[category] for category in CATEGORIES}


def all_prompts() -> dict[str, list[dict]]:
    """Every prompt of the world by category, in a fixed order: those of CATEGORIES, and `two_object`, whose things differ in
    shape. Clips of two things are in the pretraining data; few that the miniature draws keep both shapes."""
    tints, pairs = (None, *COLORS), itertools.permutations(SHAPES, 2)
    return {
        "shape": [entry(moving(shape)) for shape in SHAPES],
        "color": [entry(moving(*each)) for each in itertools.product(SHAPES, COLORS)],
        "direction": [entry(moving(*each)) for each in itertools.product(SHAPES, tints, DIRECTIONS)],
        "speed": [entry(moving(*each)) for each in itertools.product(SHAPES, tints, DIRECTIONS, PACES)],
        "two_object": [
            entry(moving(a, motion=first), moving(b, motion=second))
            for (a, b), first, second in itertools.product(pairs, DIRECTIONS, DIRECTIONS)
        ],
    }


def _tag(thing: dict) -> str:
    tags = {"pace": "speed", "motion": "direction", "color": "color"}
    return next((tag for key, tag in tags.items() if key in thing), "shape")


def _phrase(thing: dict) -> str:
    words = [thing[key] for key in ("color", "class") if key in thing]
    words += ["moving"] if "motion" in thing else []
    words += [thing[key] for key in ("pace", "motion") if key in thing]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])
