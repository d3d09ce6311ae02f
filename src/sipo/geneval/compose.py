"""Compositional prompts drawn at random from objects, colours, counts and relations, with what a judge must check.

Wording and metadata are GenEval's (djghosh13/geneval: prompts/create_prompts.py), its plain plurals included ("sheeps",
"knifes"), so that a model trained on such prompts is asked in the same words. Its `include` and `exclude` clauses are what
`sipo.geneval.rules` judges by.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sipo.errors import UsageError, UserError
from sipo.geneval.objects import COCO

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
RELATIONS = ("left of", "right of", "above", "below")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class World:
    """What prompts are made of. `colorless` objects never get a colour; `colored_counts` allows "two red circles"."""

    objects: tuple[str, ...]
    colors: tuple[str, ...] = COLORS
    counts: tuple[int, ...] = (2, 3, 4)
    relations: tuple[str, ...] = RELATIONS
    colorless: tuple[str, ...] = ()
    colored_counts: bool = False
    plurals: Mapping[str, str] = field(default_factory=dict)  # where they are not GenEval's

    @property
    def colorable(self) -> tuple[str, ...]:
        return tuple(name for name in self.objects if name not in self.colorless)

    def plural(self, name: str) -> str:
        return self.plurals.get(name) or (f"{name}es" if name[-1] == "s" else f"{name}s")


GENEVAL = World(COCO, colorless=("person",))


def compose(
    num: int,
    seed: int = 0,
    world: World = GENEVAL,
    tags: Sequence[str] = TAGS,
    avoid: Collection[str] = (),
) -> list[dict]:
    """`num` different prompts in GenEval's schema: {"tag", "include", "exclude" of counts, "prompt"}.

    The categories `tags` come in turn; one that has no prompt left is passed over. `avoid` holds prompts that must not
    come, such as those that the model will be judged on. Deterministic in `seed`. Raises UsageError for an unknown tag,
    UserError where the world has fewer prompts.
    """
    if unknown := [tag for tag in tags if tag not in _MAKERS]:
        raise UsageError(f"There are no prompts of the category {unknown[0]!r}; there are {', '.join(_MAKERS)}.")
    rng = np.random.default_rng(seed)
    avoided = {" ".join(prompt.split()) for prompt in avoid}
    streams = {tag: _stream(_MAKERS[tag](world), rng, avoided) for tag in tags}
    found: list[dict] = []
    while streams and len(found) < num:
        for tag in list(streams):
            prompt = next(streams[tag], None)
            if prompt is None:
                del streams[tag]
            elif len(found) < num:
                found.append({"tag": tag, **prompt})
    if len(found) < num:
        raise UserError(f"There are {len(found)} different prompts of these categories, and {num} were asked for.")
    return found


@dataclass(frozen=True)
class _Category:
    """`size` prompts by number: combinations are counted, not listed, for there are half a million of some."""

    axes: tuple[Sequence, ...]
    make: Callable[..., dict]

    @property
    def size(self) -> int:
        return int(np.prod([len(axis) for axis in self.axes]))

    def __getitem__(self, number: int) -> dict:
        picked = []
        for axis in self.axes:
            number, place = divmod(number, len(axis))
            picked.append(axis[place])
        return self.make(*picked)


def _stream(category: _Category, rng: np.random.Generator, avoided: Collection[str]) -> Iterator[dict]:
    for number in rng.permutation(category.size):
        prompt = category[int(number)]
        if prompt["prompt"] not in avoided:
            yield prompt


def _clause(name: str, color: str | None = None, count: int = 1) -> dict:
    return {"class": name, "count": count} | ({"color": color} if color else {})


def _phrase(name: str, color: str | None = None) -> str:
    words = f"{color} {name}" if color else name
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _single(world: World) -> _Category:
    return _Category(
        (world.objects,), lambda name: {"include": [_clause(name)], "prompt": f"a photo of {_phrase(name)}"}
    )


def _both(couple: tuple[str, str], colors: tuple[str | None, str | None] = (None, None)) -> dict:
    things = list(zip(couple, colors, strict=True))
    include = [_clause(*thing) for thing in things]
    return {"include": include, "prompt": "a photo of " + " and ".join(_phrase(*thing) for thing in things)}


def _two(world: World) -> _Category:
    return _Category((_couples(world.objects),), _both)


def _counting(world: World) -> _Category:
    def make(name: str, count: int, color: str | None) -> dict:
        words = f"{color} {world.plural(name)}" if color else world.plural(name)
        exclude = [{"class": name, "count": count + 1}]
        return {"include": [_clause(name, color, count)], "exclude": exclude,
                "prompt": f"a photo of {NUMBERS[count]} {words}"}  # fmt: skip

    return _Category((world.objects, world.counts, (None, *world.colors) if world.colored_counts else (None,)), make)


def _colors(world: World) -> _Category:
    return _Category(
        (world.colorable, world.colors),
        lambda name, color: {"include": [_clause(name, color)], "prompt": f"a photo of {_phrase(name, color)}"},
    )


def _position(world: World) -> _Category:
    def make(couple: tuple[str, str], relation: str) -> dict:
        name, target = couple
        include = [_clause(target), _clause(name) | {"position": [relation, 0]}]
        return {"include": include, "prompt": f"a photo of {_phrase(name)} {relation} {_phrase(target)}"}

    return _Category((_couples(world.objects), world.relations), make)


def _color_attr(world: World) -> _Category:
    return _Category((_couples(world.colorable), _couples(world.colors)), _both)


def _couples(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every two different ones, in both orders."""
    return list(itertools.permutations(names, 2))


_MAKERS: dict[str, Callable[[World], _Category]] = {
    "single_object": _single,
    "two_object": _two,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
}
