"""The annotators: their personal links, and what happens to the items of one who is left out."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, select

from sipo.annotate.store import RESEARCHER, Store, open_store
from sipo.annotate.study import LINKS, Study, read_study
from sipo.annotate.tables import PEOPLE, SLOTS
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.tables import csv_table


def discard(store: Store, name: str, replace: bool = False) -> tuple[int, int, str | None]:
    """Leave a person's votes out, and hand their items to members of the group who do not have them.

    replace: a new member takes what is left. Returns (items handed over, items that nobody can take, new member).
    Raises UserError for a name that is unknown or discarded.
    """
    with store.writing() as c:
        people = {row.name: row for row in c.execute(select(PEOPLE).with_for_update())}
        if name not in people or people[name].discarded:
            active = ", ".join(sorted(other for other, row in people.items() if not row.discarded))
            raise UserError(f"{name!r} is no active annotator of this study; these are: {active}.")
        group = people[name].team
        c.execute(PEOPLE.update().where(PEOPLE.c.name == name).values(discarded=True))
        c.execute(SLOTS.update().where(SLOTS.c.person == name, SLOTS.c.state == "open").values(state="void"))
        slots = c.execute(
            select(SLOTS).where(SLOTS.c.person == name, SLOTS.c.kind == "main").order_by(SLOTS.c.position)
        ).all()
        mates = [other for other, row in people.items() if row.team == group and not row.discarded and other != name]
        new = None
        if replace:
            numbers = [int(other.rpartition("-")[2]) for other, row in people.items() if row.team == group]
            new = f"g{group}-{max(numbers) + 1}"
            c.execute(PEOPLE.insert().values(name=new, team=group))
        placed, left = _hand_over(store.study, c, [slot.item for slot in slots], mates, new)
    return placed, left, new


def _hand_over(
    study: Study, c: Connection, items: Sequence[int], mates: Sequence[str], new: str | None
) -> tuple[int, int]:
    """(placed, left): each item to the mate without it who has the fewest slots, else to the new member."""
    people = [*mates, *([new] if new else [])]
    rows = c.execute(select(SLOTS).where(SLOTS.c.person.in_(people))).all()
    has = {person: {row.item for row in rows if row.person == person} for person in people}
    load = Counter(row.person for row in rows)
    end = {person: max((row.position for row in rows if row.person == person), default=-1) + 1 for person in people}
    rng = np.random.default_rng([study.plan.seed, 3, sum(end.values())])
    left = 0
    for item in items:
        free = [person for person in mates if item not in has[person]] or ([new] if new else [])
        if not free:
            left += 1
            continue
        person = min(free, key=lambda who: (load[who], who))
        sides = json.dumps(study.sides(rng, item))
        c.execute(
            SLOTS.insert().values(
                person=person, position=end[person], item=item, kind="main", sides=sides, state="open"
            )
        )
        has[person].add(item)
        load[person] += 1
        end[person] += 1
    return len(items) - left, left


def write_links(folder: Path, tokens: dict[str, str], url: str) -> Path:
    """`links.csv`: name and personal link; readable by its owner alone. The only place where tokens are written."""
    rows = [(name, link(url, name, token)) for name, token in tokens.items()]
    write_atomic(folder / LINKS, csv_table(("annotator", "link"), rows))
    (folder / LINKS).chmod(0o600)
    return folder / LINKS


def link(url: str, name: str, token: str) -> str:
    return f"{url.rstrip('/')}/{'admin' if name == RESEARCHER else 'a'}/{token}/"


def issue_links(folder: Path, url: str, database: str | None = None) -> Path:
    """New personal links for everybody, in `links.csv`; earlier ones stop working. The file's path."""
    with open_store(folder, read_study(folder), database) as store:
        return write_links(folder, store.new_tokens(), url)


def discard_and_say(folder: Path, name: str, replace: bool, url: str, database: str | None = None) -> str:
    """`sipo annotate discard`: what it did, with the new member's link."""
    with open_store(folder, read_study(folder), database) as store:
        placed, left, new = discard(store, name, replace)
        lines = [f"{name}'s votes are left out of all results; {placed} items go to other members of the group."]
        if new:
            (_, token), *_ = store.new_tokens([new]).items()
            lines.append(f"new annotator {new}: {link(url, new, token)}")
        elif left:
            lines.append(
                f"{left} items are judged by all other members already; --replace takes in a new one for such items."
            )
    return "\n".join(lines)
