"""Metadata in GenEval's schema <-> GenEval's wording, and every prompt of the world, by category."""

import itertools
import re

from sipo.mini.world import COLORS, PLURALS, SHAPES

CATEGORIES = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}

_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}
_THING = rf"an? (?:({'|'.join(COLORS)}) )?({'|'.join(SHAPES)})"
_ONE = re.compile(rf"a photo of {_THING}")
_BOTH = re.compile(rf"a photo of {_THING} and {_THING}")
_PLACED = re.compile(rf"a photo of {_THING} ({'|'.join(RELATIONS)}) {_THING}")
_COUNTED = re.compile(rf"a photo of (two|three|four) (?:({'|'.join(COLORS)}) )?({'|'.join(_SINGULAR)})")


def _clause(shape: str, color: str | None = None, count: int = 1) -> dict:
    return {"class": shape, "count": count} | ({"color": color} if color else {})


def _phrase(clause: dict) -> str:
    words = f"{clause['color']} {clause['class']}" if "color" in clause else clause["class"]
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def single(shape: str, color: str | None = None) -> dict:
    clause = _clause(shape, color)
    tag = "colors" if color else "single_object"
    return {"tag": tag, "include": [clause], "prompt": f"a photo of {_phrase(clause)}"}


def both(first: dict, second: dict) -> dict:
    tag = "color_attr" if "color" in first or "color" in second else "two_object"
    return {"tag": tag, "include": [first, second], "prompt": f"a photo of {_phrase(first)} and {_phrase(second)}"}


def counted(shape: str, count: int, color: str | None = None) -> dict:
    """Like GenEval's counting prompts; a colour is this world's addition, for enough distinct prompts."""
    include, exclude = [_clause(shape, color, count)], [{"class": shape, "count": count + 1}]
    words = f"{color} {PLURALS[shape]}" if color else PLURALS[shape]
    return {
        "tag": "counting",
        "include": include,
        "exclude": exclude,
        "prompt": f"a photo of {NUMBERS[count]} {words}",
    }


def placed(shape: dict, relation: str, target: dict) -> dict:
    """`shape` stands in `relation` to `target`; the target's clause comes first, as in GenEval."""
    include = [target, shape | {"position": [relation, 0]}]
    prompt = f"a photo of {_phrase(shape)} {relation} {_phrase(target)}"
    return {"tag": "position", "include": include, "prompt": prompt}


def parse(prompt: str) -> dict | None:
    """The metadata of a prompt of this world, or None for any other text."""
    text = " ".join(prompt.lower().split()).rstrip(".")
    if found := _ONE.fullmatch(text):
        return single(found[2], found[1])
    if found := _COUNTED.fullmatch(text):
        return counted(_SINGULAR[found[3]], next(n for n, word in NUMBERS.items() if word == found[1]), found[2])
    if found := _BOTH.fullmatch(text):
        return both(_clause(found[2], found[1]), _clause(found[4], found[3]))
    if found := _PLACED.fullmatch(text):
        return placed(_clause(found[2], found[1]), found[3], _clause(found[5], found[4]))
    return None


def all_prompts() -> dict[str, list[dict]]:
    """Every prompt of the world by category, in a fixed order. Two-object prompts name two different shapes."""
    couples = list(itertools.permutations(SHAPES, 2))
    tints = list(itertools.permutations(COLORS, 2))
    return {
        "single_object": [single(shape) for shape in SHAPES],
        "two_object": [both(_clause(a), _clause(b)) for a, b in couples],
        "counting": [counted(s, n, color) for s in SHAPES for n in (2, 3, 4) for color in (None, *COLORS)],
        "colors": [single(shape, color) for shape in SHAPES for color in COLORS],
        "position": [placed(_clause(a), relation, _clause(b)) for a, b in couples for relation in RELATIONS],
        "color_attr": [both(_clause(a, c), _clause(b, d)) for a, b in couples for c, d in tints],
    }
