"""A study on disk: what is shown to whom. Written once by `create`, never changed.

study.json    everything below; written last
media/        what is shown, re-encoded alike; the browser never sees these names
links.csv     a personal link for each annotator, and the researcher's (readable by the owner alone)
votes.db      the votes, unless they are in PostgreSQL
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sipo.errors import UserError
from sipo.files import digest
from sipo.jsonl import read_json

STUDY, MEDIA, LINKS, VOTES = "study.json", "media", "links.csv", "votes.db"
VERSION = 1
TYPES = {".png": "image/png", ".mp4": "video/mp4"}  # of what is in `MEDIA`
Mode = Literal["pairwise", "ranking"]
MODES: tuple[Mode, ...] = ("pairwise", "ranking")
DIMENSIONS = ("text alignment", "visual quality", "overall")


@dataclass(frozen=True)
class Item:
    """One question: the results of some systems for one prompt.

    systems: numbers of the systems; media: their files in `MEDIA`; sources: the files these were made from.
    worst: for a check item, the place in `media` of the result that was spoilt on purpose; None for all others.
    source: the picture that all results were made of, and its file in `MEDIA`; None where they were made of the prompt alone.
    """

    prompt: str
    seed: int
    category: str | None
    systems: tuple[int, ...]
    media: tuple[str, ...]
    sources: tuple[str, ...]
    worst: int | None = None
    source: tuple[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As study.json has it: `source` where there is one."""
        return {key: value for key, value in asdict(self).items() if key != "source" or value is not None}


@dataclass(frozen=True)
class Plan:
    """Who judges what. repeats: votes for each item in a group (at most `group_size`, where everybody judges everything).

    duplicates: items that each annotator is shown a second time; they do not count as votes. seed: of every random choice.
    """

    groups: int = 3
    group_size: int = 4
    repeats: int = 4
    duplicates: int = 0
    seed: int = 0

    def annotators(self) -> list[tuple[str, int]]:
        """(name, group) of everybody, groups from 1."""
        return [(f"g{g}-{n}", g) for g in range(1, self.groups + 1) for n in range(1, self.group_size + 1)]


@dataclass(frozen=True)
class Slot:
    """One showing that is planned for an annotator. order: places in the item's `media`, from left to right."""

    item: int
    kind: Literal["main", "duplicate", "check"]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Study:
    """See the fields of `Item` and `Plan`. folders: of the systems' sources, for their scores. examples: items that
    illustrate the guideline and are not judged. both_bad: whether "both are bad" may be answered.
    """

    title: str
    mode: Mode
    kind: Literal["image", "video"]
    systems: tuple[str, ...]
    folders: tuple[str, ...]
    items: tuple[Item, ...]
    plan: Plan
    hashes: dict[str, str]  # file in `MEDIA` -> SHA-256
    dimensions: tuple[str, ...] = DIMENSIONS
    both_bad: bool = False
    guideline: str = ""
    examples: tuple[Item, ...] = field(default=())
    version: int = VERSION

    def to_json(self) -> str:
        items = {key: [item.to_dict() for item in getattr(self, key)] for key in ("items", "examples")}
        return json.dumps(asdict(self) | items, ensure_ascii=False, indent=1) + "\n"

    @cached_property
    def fingerprint(self) -> str:
        """What the study is; votes remember it."""
        return digest(json.loads(self.to_json()))

    def slots(self, name: str, group: int) -> list[Slot]:
        """What an annotator of a group is shown, in order: a pure function of the study.

        The order of the items is the group's; sides are drawn for each annotator and item; duplicates come back at least
        a quarter of the study later, on sides drawn anew; check items are strewn in.
        """
        member, size = int(name.rpartition("-")[2]) - 1, self.plan.group_size
        main = [n for n, item in enumerate(self.items) if item.worst is None]
        order = np.random.default_rng([self.plan.seed, 1, group]).permutation(main)
        mine = [int(n) for place, n in enumerate(order) if (member - place) % size < self.plan.repeats]
        rng = np.random.default_rng([self.plan.seed, 2, group, member])
        slots = [Slot(n, "main", self.sides(rng, n)) for n in mine]
        twice = rng.permutation(len(mine) * 3 // 4)[: self.plan.duplicates]
        for place in sorted(map(int, twice), reverse=True):
            later = int(rng.integers(place + max(1, len(mine) // 4), len(slots) + 1))
            slots.insert(later, Slot(mine[place], "duplicate", self.sides(rng, mine[place])))
        for n, item in enumerate(self.items):
            if item.worst is not None:
                slots.insert(int(rng.integers(len(slots) + 1)), Slot(n, "check", self.sides(rng, n)))
        return slots

    def sides(self, rng: np.random.Generator, item: int) -> tuple[int, ...]:
        """A random arrangement of an item's results from left to right."""
        return tuple(int(place) for place in rng.permutation(len(self.items[item].media)))


def read_study(folder: Path) -> Study:
    """The study in `folder`. Raises UserError where there is none, or it was written by a newer version."""
    record = read_json(Path(folder) / STUDY, "It is written whole by `sipo annotate create`, and not to be edited.")
    if record is None:
        raise UserError(f"{folder} is no study: it has no {STUDY}. `sipo annotate create` makes one.")
    try:
        if record["version"] != VERSION:
            raise UserError(f"{folder}: {STUDY} has version {record['version']}, this sipo reads version {VERSION}.")
        lists = {key: tuple(record[key]) for key in ("systems", "folders", "dimensions")}
        items = {key: tuple(_item(each) for each in record[key]) for key in ("items", "examples")}
        return Study(**record | lists | items | {"plan": Plan(**record["plan"])})
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder}: {STUDY} was edited or damaged ({error}).") from error


def _item(record: dict[str, Any]) -> Item:
    lists: dict[str, Any] = {key: tuple(record[key]) for key in ("systems", "media", "sources")}
    if record.get("source"):
        lists["source"] = tuple(record["source"])
    return Item(**(record | lists))
