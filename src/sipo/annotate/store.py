"""Votes in a database: SQLite beside the study, or PostgreSQL by its URL. A vote acknowledged is a vote kept.

Every change is one transaction, synced to disk before the answer. A vote carries an id that the browser drew, so that
sending it again changes nothing; a slot takes one vote, whichever tab was first. Tokens are kept as hashes.
"""

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import sqlalchemy as sa
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from sipo.annotate.study import Slot, Study
from sipo.annotate.tables import GIVEN, GIVEN_VOTES, META, PEOPLE, SLOTS, TABLES, WITHDRAWN, make_engine
from sipo.errors import UserError

RESEARCHER = "researcher"
State = Literal["open", "paused", "closed"]


class Refused(Exception):
    """A vote or an undo that cannot be taken; the reason is a word for the page: answered, unknown, paused, closed, discarded."""


@dataclass(frozen=True)
class Person:
    name: str
    group: int
    discarded: bool


@dataclass(frozen=True)
class Store:
    """`serial`: held while SQLite is written; PostgreSQL has locks of its own."""

    engine: sa.Engine
    study: Study
    serial: threading.Lock

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; durable once left without an error."""
        if self.engine.dialect.name != "sqlite":
            with self.engine.begin() as connection:
                yield connection
            return
        with self.serial, self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    def rows(self, query: sa.Select) -> Sequence[sa.Row]:
        with self.engine.connect() as connection:
            return connection.execute(query).all()

    def person(self, token: str) -> Person | None:
        found = self.rows(select(PEOPLE).where(PEOPLE.c.token == hashed(token)))
        return Person(found[0].name, found[0].team, found[0].discarded) if found else None

    def people(self) -> list[Person]:
        """Everybody, by group and name."""
        found = self.rows(select(PEOPLE).order_by(PEOPLE.c.team, PEOPLE.c.name))
        return [Person(row.name, row.team, row.discarded) for row in found]

    def is_researcher(self, token: str) -> bool:
        return secrets.compare_digest(self.meta(RESEARCHER) or "", hashed(token))

    def meta(self, key: str) -> str | None:
        found = self.rows(select(META.c.value).where(META.c.key == key))
        return found[0].value if found else None

    def state(self) -> State:
        return cast(State, self.meta("state"))  # the row is there from the study's creation on

    def set_state(self, state: State) -> None:
        with self.writing() as c:
            c.execute(META.update().where(META.c.key == "state").values(value=state))

    def count_votes(self) -> int:
        return self.rows(select(func.count()).select_from(GIVEN_VOTES))[0][0]

    def open_slots(self, name: str, limit: int = 2) -> Sequence[sa.Row]:
        """The next slots of a person that have no vote."""
        mine = select(SLOTS).where(SLOTS.c.person == name, SLOTS.c.state == "open")
        return self.rows(mine.order_by(SLOTS.c.position).limit(limit))

    def counts(self, name: str) -> tuple[int, int]:
        """(answered, all) slots of a person."""
        query = select(SLOTS.c.state, func.count()).where(SLOTS.c.person == name).group_by(SLOTS.c.state)
        found = {row[0]: row[1] for row in self.rows(query)}
        return found.get("done", 0), found.get("done", 0) + found.get("open", 0)

    def vote(self, name: str, slot: int, vote: str, answer: Any, seconds: float | None) -> None:
        """Keep a vote; again with the same id it does nothing, also after it was withdrawn. Raises Refused."""
        with self.writing() as c:
            self._require_open(c, name)
            if self._known(c, vote):
                return
            row = c.execute(select(SLOTS).where(SLOTS.c.id == slot, SLOTS.c.person == name).with_for_update()).first()
            if row is None or row.state == "void":
                raise Refused("unknown")
            if row.state == "done":
                raise Refused("answered")
            given = {"id": vote, "slot": slot, "answer": json.dumps(answer), "seconds": seconds, "at": time.time()}
            c.execute(GIVEN_VOTES.insert().values(given))
            c.execute(SLOTS.update().where(SLOTS.c.id == slot).values(state="done"))

    def undo(self, name: str, vote: str | None = None) -> None:
        """Withdraw a person's last vote, if it is the one of this id (None: whichever); it stays on record. Raises Refused."""
        mine = select(GIVEN_VOTES).join(SLOTS, SLOTS.c.id == GIVEN_VOTES.c.slot).where(SLOTS.c.person == name)
        with self.writing() as c:
            self._require_open(c, name)
            last = c.execute(mine.order_by(GIVEN_VOTES.c.at.desc(), SLOTS.c.position.desc()).limit(1)).first()
            if last is None or (vote is not None and last.id != vote):
                return
            c.execute(GIVEN_VOTES.delete().where(GIVEN_VOTES.c.id == last.id))
            c.execute(
                WITHDRAWN.insert().values({key: getattr(last, key) for key in GIVEN} | {"withdrawn_at": time.time()})
            )
            c.execute(SLOTS.update().where(SLOTS.c.id == last.slot).values(state="open"))

    def last_vote(self, name: str) -> str | None:
        mine = select(GIVEN_VOTES.c.id).join(SLOTS, SLOTS.c.id == GIVEN_VOTES.c.slot).where(SLOTS.c.person == name)
        found = self.rows(mine.order_by(GIVEN_VOTES.c.at.desc(), SLOTS.c.position.desc()).limit(1))
        return found[0].id if found else None

    def _require_open(self, c: Connection, name: str) -> None:
        """Raises Refused unless the study and the person take votes; holds the person's row until the end."""
        state = c.execute(select(META.c.value).where(META.c.key == "state")).scalar_one()
        if state != "open":
            raise Refused(state)
        if c.execute(select(PEOPLE.c.discarded).where(PEOPLE.c.name == name).with_for_update()).scalar_one():
            raise Refused("discarded")

    def _known(self, c: Connection, vote: str) -> bool:
        return any(c.execute(select(t.c.id).where(t.c.id == vote)).first() for t in (GIVEN_VOTES, WITHDRAWN))

    def new_tokens(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Name -> new token, of those people, or of everybody and the researcher; earlier tokens stop working."""
        with self.writing() as c:
            known = [
                row.name
                for row in c.execute(
                    select(PEOPLE.c.name).where(~PEOPLE.c.discarded).order_by(PEOPLE.c.team, PEOPLE.c.name)
                )
            ]
            tokens = {name: secrets.token_urlsafe(24) for name in (names or [*known, RESEARCHER])}  # 192 bits
            for name, token in tokens.items():
                if name == RESEARCHER:
                    c.execute(META.update().where(META.c.key == RESEARCHER).values(value=hashed(token)))
                else:
                    c.execute(PEOPLE.update().where(PEOPLE.c.name == name).values(token=hashed(token)))
        return tokens


def hashed(token: str) -> str:
    """SHA-256: tokens are 192 random bits, which need no salt."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def open_store(folder: Path, study: Study, database: str | None = None) -> Iterator[Store]:
    """The votes of a study; made and planned when first opened.

    database: postgresql://...; None: SQLite in the folder. Raises UserError where the database cannot be reached, holds
    another study, or votes on what has changed since.
    """
    engine = make_engine(folder, database)
    try:
        store = Store(engine, study, threading.Lock())
        try:
            TABLES.create_all(engine)
            _plan(store)
        except OperationalError as error:
            raise UserError(f"The database of {folder} cannot be opened: {error.orig}") from error
        yield store
    finally:
        engine.dispose()


def _plan(store: Store) -> None:
    """Write everybody's slots where there are none. Raises UserError where votes are on another study."""
    study = store.study
    if store.meta("study") == study.fingerprint:
        return
    with store.writing() as c:
        c.execute(META.insert().values(key="planning", value=""))  # a second server waits here for the first
        known = c.execute(select(META.c.value).where(META.c.key == "study")).scalar()
        if known is not None and known != study.fingerprint:
            count = c.execute(select(func.count()).select_from(GIVEN_VOTES)).scalar_one()
            raise UserError(
                f"The study was changed after its database was made, which holds {count:,} votes on it as it was. Put "
                "study.json back, or make a new study in another folder; nothing was changed."
            )
        if known is None:
            for key, value in {"study": study.fingerprint, "state": "open", RESEARCHER: ""}.items():
                c.execute(META.insert().values(key=key, value=value))
            for name, group in study.plan.annotators():
                c.execute(PEOPLE.insert().values(name=name, team=group, discarded=False))
                rows = [_row(name, n, slot) for n, slot in enumerate(study.slots(name, group))]
                c.execute(SLOTS.insert(), rows)
        c.execute(META.delete().where(META.c.key == "planning"))


def _row(name: str, position: int, slot: Slot) -> dict:
    sides = json.dumps(slot.order)
    return {"person": name, "position": position, "item": slot.item, "kind": slot.kind, "sides": sides, "state": "open"}
