"""The two disjoint prompt lists that ship: `train` for preference pairs, `heldout` for evaluation."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np

from sipo.files import write_atomic
from sipo.jsonl import dump_jsonl, read_jsonl
from sipo.mini import STILL
from sipo.mini.wording import all_prompts
from sipo.registry import Miniature

SPLIT_SEED = 0
HELDOUT = {"single_object": 2, "two_object": 6, "counting": 45, "colors": 12, "position": 28, "color_attr": 167}
"""How many prompts of each category are held out: 260 in all; the small categories have few to give."""


Groups = dict[str, list[dict]]  # prompts by category


def split_prompts(
    groups: Groups | None = None, held_out: Mapping[str, int] = HELDOUT, seed: int = SPLIT_SEED
) -> tuple[Groups, Groups]:
    """(train, heldout), each by category: of the prompts `groups` (default: the still world's) a seeded number is held out."""
    rng = np.random.default_rng(seed)
    train, heldout = {}, {}
    for category, prompts in (groups or all_prompts()).items():
        order = rng.permutation(len(prompts))
        held = set(order[: held_out[category]].tolist())
        heldout[category] = [prompt for i, prompt in enumerate(prompts) if i in held]
        train[category] = [prompt for i, prompt in enumerate(prompts) if i not in held]
    return train, heldout


def interleaved(groups: dict[str, list[dict]]) -> list[dict]:
    """Categories in turn, each spread evenly over the list, so that any prefix is a fair sample of it."""
    placed = [
        ((i + 0.5) / len(group), rank, item)
        for rank, group in enumerate(groups.values())
        for i, item in enumerate(group)
    ]
    return [item for _, _, item in sorted(placed, key=lambda entry: entry[:2])]


@cache
def _read(path: Path) -> tuple[dict, ...]:
    return tuple(read_jsonl(path))


def load_prompts(split: str, miniature: Miniature = STILL) -> list[dict]:
    """The shipped prompts of `split` ("train" or "heldout"): metadata with "prompt" and "tag"."""
    paths = {"train": miniature.train_prompts, "heldout": miniature.heldout_prompts}
    return [dict(prompt) for prompt in _read(paths[split])]


def sample_prompts(
    n: int, seed: int, split: str = "train", shares: dict[str, float] | None = None, miniature: Miniature = STILL
) -> list[dict]:
    """`n` prompts of the shipped list `split`, as `draw_prompts` draws them."""
    shipped = load_prompts(split, miniature)
    groups = {tag: [prompt for prompt in shipped if prompt["tag"] == tag] for tag in miniature.categories}
    return draw_prompts(groups, n, seed, shares)


def draw_prompts(by_category: Groups, n: int, seed: int, shares: dict[str, float] | None = None) -> list[dict]:
    """`n` prompts, the categories in `shares` (default: equal) and in turn, drawn by `seed`.

    A category's prompts repeat once all of them have come.
    """
    rng, categories, groups = np.random.default_rng([seed, 7]), list(by_category), list(by_category.values())
    weights = np.array([(shares or {}).get(category, 0.0 if shares else 1.0) for category in categories])
    due, decks = np.zeros(len(categories)), [[] for _ in categories]
    chosen = []
    for _ in range(n):
        due += weights / weights.sum()
        turn = int(due.argmax())
        due[turn] -= 1
        decks[turn] = decks[turn] or rng.permutation(len(groups[turn])).tolist()
        chosen.append(dict(groups[turn][decks[turn].pop()]))
    return chosen


def balanced(groups: dict[str, list[dict]], each: int, rng: np.random.Generator) -> list[dict]:
    """`each` prompts of every category, in turn; a category's prompts repeat, in a new order, once all have come."""
    decks = {
        category: [group[i] for _ in range(-(-each // len(group))) for i in rng.permutation(len(group))][:each]
        for category, group in groups.items()
    }
    return interleaved(decks)


def write_prompts(
    folder: Path,
    each_train: int = 120,
    each_heldout: int = 40,
    groups: Groups | None = None,
    held_out: Mapping[str, int] = HELDOUT,
) -> None:
    """Write train.jsonl and heldout.jsonl with an equal number of prompts of every category."""
    rng = np.random.default_rng([SPLIT_SEED, 1])
    splits = split_prompts(groups, held_out)
    for name, each, split in zip(("train", "heldout"), (each_train, each_heldout), splits, strict=True):
        write_atomic(folder / f"{name}.jsonl", dump_jsonl(balanced(split, each, rng)))
