"""Prompts drawn at random from the objects, colours, counts and relations of a world, with what a judge must check."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sipo.errors import UsageError, UserError
from sipo.geneval.vocabulary import GENEVAL, World, both, clause, counted, placed, single
from sipo.samples.metadata import CATEGORIES


def compose(
    num: int,
    seed: int = 0,
    world: World = GENEVAL,
    tags: Sequence[str] = CATEGORIES,
    avoid: Collection[str] = (),
) -> list[dict]:
    """`num` different entries of GenEval's metadata, drawn from `world`. Deterministic in `seed`.

    The categories `tags` alternate; one that has no prompt left is skipped. Prompts in `avoid`, such as those that the
    model will be judged on, are never drawn. Raises UsageError for an unknown tag, UserError if the world has fewer.
    """
    if unknown := [tag for tag in tags if tag not in CATEGORIES]:
        raise UsageError(f"There are no prompts of the category {unknown[0]!r}; there are {', '.join(CATEGORIES)}.")
    rng = np.random.default_rng(seed)
    avoided, categories = {" ".join(prompt.split()) for prompt in avoid}, _categories(world)
    streams = {tag: _stream(categories[tag], rng, avoided) for tag in tags}
    found: list[dict] = []
    while streams and len(found) < num:
        for tag in list(streams):
            entry = next(streams[tag], None)
            if entry is None:
                del streams[tag]
            elif len(found) < num:
                found.append(entry)
    if len(found) < num:
        raise UserError(f"There are {len(found)} different prompts of these categories, and {num} are needed.")
    return found


def every_prompt(world: World) -> dict[str, list[dict]]:
    """All entries of a world by category, in a fixed order. GenEval's own has millions."""
    return {
        tag: [category.make(*picked) for picked in itertools.product(*category.axes)]
        for tag, category in _categories(world).items()
    }


@dataclass(frozen=True)
class _Category:
    """`size` entries by number: combinations are not listed, because some have half a million."""

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


def _categories(world: World) -> dict[str, _Category]:
    couples = list(itertools.permutations(world.objects, 2))
    colored = list(itertools.permutations(world.colorable, 2))
    tints = list(itertools.permutations(world.colors, 2))
    count_tints = (None, *world.colors) if world.colored_counts else (None,)
    found = (
        _Category((world.objects,), lambda name: single(clause(name))),
        _Category((couples,), lambda couple: both(*map(clause, couple))),
        _Category(
            (world.objects, world.counts, count_tints),
            lambda name, count, color: counted(clause(name, color, count), world),
        ),
        _Category((world.colorable, world.colors), lambda name, color: single(clause(name, color))),
        _Category(
            (couples, world.relations),
            lambda couple, relation: placed(clause(couple[0]), relation, clause(couple[1])),
        ),
        _Category((colored, tints), lambda couple, colors: both(*map(clause, couple, colors))),
    )
    return dict(zip(CATEGORIES, found, strict=True))


def _stream(category: _Category, rng: np.random.Generator, avoided: Collection[str]) -> Iterator[dict]:
    for number in rng.permutation(category.size):
        entry = category[int(number)]
        if entry["prompt"] not in avoided:
            yield entry
