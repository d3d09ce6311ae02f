"""What the page asks for: the next two items under names that are used once, a vote, an undo."""

import json
import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sipo.annotate.store import Person, Store
from sipo.annotate.study import MEDIA, TYPES, Item, Study
from sipo.errors import UserError
from sipo.files import hash_file

Medium = Callable[[], tuple[bytes, str]]  # reads (content, type)
REMEMBERED = 256  # names of each person; older ones are forgotten
ANSWERS = ("left", "right", "tie", "bad")


class Desk(Protocol):
    """One study, or one person's own session, as the server sees it. All methods may be called from several threads."""

    def person(self, token: str) -> Person | None: ...

    def config(self, person: Person) -> dict:
        """What does not change from item to item."""
        ...

    def look(self, person: Person) -> dict:
        """Where the person is: status, answered, total, last (vote), and the current item and the next one."""
        ...

    def vote(self, person: Person, slot: int, vote: str, answer: Any, seconds: float | None) -> None:
        """Raises Refused, or ValueError for an answer that this item cannot have."""
        ...

    def undo(self, person: Person, vote: str | None) -> None: ...

    def medium(self, person: Person, name: str) -> tuple[bytes, str] | None: ...


@dataclass(frozen=True)
class Names:
    """Random names for what is shown: each is good for one request by one person, so it tells nothing."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: dict[str, OrderedDict[str, Medium]] = field(default_factory=dict)

    def give(self, person: str, media: Sequence[Medium]) -> list[str]:
        with self.lock:
            mine = self.known.setdefault(person, OrderedDict())
            names = [secrets.token_urlsafe(16) for _ in media]
            mine.update(zip(names, media, strict=True))
            while len(mine) > REMEMBERED:
                mine.popitem(last=False)
        return names

    def take(self, person: str, name: str) -> Medium | None:
        with self.lock:
            return self.known.get(person, OrderedDict()).pop(name, None)


@dataclass(frozen=True)
class StudyDesk:
    """The desk of a study."""

    folder: Path
    store: Store
    names: Names = field(default_factory=Names)

    @property
    def study(self) -> Study:
        return self.store.study

    def person(self, token: str) -> Person | None:
        return self.store.person(token)

    def config(self, person: Person) -> dict:
        study = self.study
        examples = [self._shown(person, item, range(len(item.media))) for item in study.examples]
        return {
            "mode": study.mode, "kind": study.kind, "title": study.title, "dimensions": study.dimensions,
            "both_bad": study.both_bad, "guideline": study.guideline, "examples": examples,
        }  # fmt: skip

    def look(self, person: Person) -> dict:
        answered, total = self.store.counts(person.name)
        state = "discarded" if person.discarded else self.store.state()
        slots = self.store.open_slots(person.name) if state == "open" else []
        items = [
            {"slot": slot.id} | self._shown(person, self.study.items[slot.item], json.loads(slot.sides))
            for slot in slots
        ]
        status = state if state != "open" or items else "done"
        return {
            "status": status, "answered": answered, "total": total, "last": self.store.last_vote(person.name), "items": items,
        }  # fmt: skip

    def vote(self, person: Person, slot: int, vote: str, answer: Any, seconds: float | None) -> None:
        check_answer(self.study, answer)
        self.store.vote(person.name, slot, vote, answer, seconds)

    def undo(self, person: Person, vote: str | None) -> None:
        self.store.undo(person.name, vote)

    def medium(self, person: Person, name: str) -> tuple[bytes, str] | None:
        found = self.names.take(person.name, name)
        return found() if found else None

    def _shown(self, person: Person, item: Item, places: Sequence[int]) -> dict:
        """See `on_page`."""

        def medium(name: str) -> Medium:
            path = self.folder / MEDIA / name
            return lambda: (path.read_bytes(), TYPES[path.suffix])

        media = [medium(item.media[place]) for place in places]
        return on_page(self.names, person, item.prompt, media, medium(item.source[1]) if item.source else None)


def on_page(names: Names, person: Person, prompt: str, media: Sequence[Medium], source: Medium | None) -> dict:
    """What the page shows of an item: the prompt, a name for each result from left to right, and for the source if it has one."""
    item = {"prompt": prompt, "media": names.give(person.name, media)}
    return item | ({"source": names.give(person.name, [source])[0]} if source else {})


def check_answer(study: Study, answer: Any) -> None:
    """Raises ValueError unless it is an answer to an item of this study: a side, or the ranking of every dimension."""
    if study.mode == "pairwise":
        allowed = ANSWERS if study.both_bad else ANSWERS[:3]
        if answer not in allowed:
            raise ValueError(f"The answer is one of {', '.join(allowed)}.")
        return
    whole = list(range(len(study.systems)))
    if not isinstance(answer, dict) or set(answer) != set(study.dimensions):
        raise ValueError("A ranking has one order for each dimension.")
    if not all(isinstance(order, list) and sorted(order, key=str) == whole for order in answer.values()):
        raise ValueError("An order lists every place once, the best first.")


def check_media(folder: Path, study: Study) -> None:
    """Raises UserError that names every file of the study that is missing or was changed."""
    wrong = []
    for name, expected in study.hashes.items():
        path = folder / MEDIA / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif hash_file(path) != expected:
            wrong.append(f"{name} was changed")
    if wrong:
        raise UserError(f"The media of {folder} are not those of the study: {'; '.join(wrong[:40])}.")


def sound_seconds(seconds: float | None) -> float | None:
    """A time that a browser sent, if it can be one."""
    return seconds if seconds is not None and math.isfinite(seconds) and 0 <= seconds < 86_400 else None
