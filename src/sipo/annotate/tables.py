"""The tables of votes, and the database that holds them: SQLite beside the study, or PostgreSQL by its URL."""

import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from sipo.annotate.study import VOTES
from sipo.errors import UserError

DATABASE = "SIPO_ANNOTATE_DATABASE"  # the variable that may hold the URL, which has a password in it

TABLES = sa.MetaData()
META = sa.Table(
    "meta", TABLES, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
PEOPLE = sa.Table(
    "people", TABLES,
    sa.Column("name", sa.Text, primary_key=True), sa.Column("team", sa.Integer, nullable=False),
    sa.Column("token", sa.Text, unique=True), sa.Column("discarded", sa.Boolean, nullable=False, default=False),
)  # fmt: skip
SLOTS = sa.Table(
    "slots", TABLES,
    sa.Column("id", sa.Integer, primary_key=True), sa.Column("person", sa.Text, sa.ForeignKey("people.name"), nullable=False),
    sa.Column("position", sa.Integer, nullable=False), sa.Column("item", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False), sa.Column("sides", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, default="open"),  # open, done, or void: taken away from a discarded person
    sa.UniqueConstraint("person", "position"), sa.Index("next_slot", "person", "state", "position"),
)  # fmt: skip
GIVEN = ("id", "slot", "answer", "seconds", "at")


def _given(name: str, *more: sa.Column | sa.UniqueConstraint) -> sa.Table:
    return sa.Table(
        name, TABLES,
        sa.Column("id", sa.Text, primary_key=True), sa.Column("slot", sa.Integer, sa.ForeignKey("slots.id"), nullable=False),
        sa.Column("answer", sa.Text, nullable=False), sa.Column("seconds", sa.Float), sa.Column("at", sa.Float, nullable=False), *more,
    )  # fmt: skip


GIVEN_VOTES = _given("votes", sa.UniqueConstraint("slot"))  # a slot takes one vote
WITHDRAWN = _given("withdrawn", sa.Column("withdrawn_at", sa.Float, nullable=False))


def make_engine(folder: Path, database: str | None) -> sa.Engine:
    if database is None:
        return sa.create_engine(
            "sqlite://", creator=lambda: _sqlite(folder / VOTES), poolclass=sa.QueuePool, pool_size=8
        )
    try:
        url = sa.make_url(database)
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise UserError(
                f"--database takes postgresql://..., not {url.get_backend_name()}://; without it votes go into SQLite."
            )
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_size=8, pool_pre_ping=True)
    except ArgumentError as error:
        raise UserError(f"--database is no URL of a database: {error}") from error
    except ModuleNotFoundError as error:
        raise UserError("PostgreSQL needs psycopg: pip install 'sipo[annotate-postgres]'.") from error


def _sqlite(path: Path) -> sqlite3.Connection:
    """FULL: each commit is synced before it returns, also in the write-ahead log."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
