"""`sipo annotate serve`: the study's server, and what the researcher's page shows."""

import contextlib
import os
import socket
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI
from sqlalchemy import func, select

from sipo.annotate.ballots import read_ballots
from sipo.annotate.desk import StudyDesk, check_media
from sipo.annotate.people import write_links
from sipo.annotate.results import flags_of
from sipo.annotate.store import Store, open_store
from sipo.annotate.study import LINKS, read_study
from sipo.annotate.tables import DATABASE, GIVEN_VOTES, SLOTS, WITHDRAWN
from sipo.annotate.web import Admin, make_app, read_texts
from sipo.errors import UsageError, UserError
from sipo.files import read_text

SLOWEST = 10  # items that the researcher's page lists


@dataclass(frozen=True)
class ServeRequest:
    """database: postgresql://..., None for SQLite in the study. url: what the links begin with, None: http://host:port.
    texts: a translation of page/texts.json.
    """

    study: Path
    host: str = "127.0.0.1"
    port: int = 8765
    url: str | None = None
    database: str | None = None
    texts: Path | None = None


def serve(request: ServeRequest, say=print) -> None:
    """Serve until stopped. Writes the personal links when the study is served for the first time."""
    with study_app(request, say) as app:
        run(app, bound_socket(request.host, request.port))


@contextmanager
def study_app(request: ServeRequest, say=print) -> Iterator[FastAPI]:
    """The application of a study whose media are as they were made."""
    study = read_study(request.study)
    check_media(request.study, study)
    with open_store(request.study, study, database_url(request.database)) as store:
        url = request.url or f"http://{request.host}:{request.port}"
        if not store.meta("researcher"):
            say(f"personal links: {write_links(request.study, store.new_tokens(), url)}")
        else:
            say(f"personal links are those of {request.study / LINKS} (`sipo annotate links` makes new ones)")
        say(f"serving {request.study} on http://{request.host}:{request.port}; stop with Ctrl-C")
        admin = Admin(store.is_researcher, lambda: progress(store), store.set_state)
        yield make_app(StudyDesk(request.study, store), load_texts(request.texts), admin)


def bound_socket(host: str, port: int) -> socket.socket:
    """It listens. Raises UserError where the address is taken or not ours; port 0 is a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio turns off delays for TCP alone
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # a browser that is opened before the server runs waits instead of being refused
    except OSError as error:
        listening.close()
        raise UserError(f"{host}:{port} cannot be used ({error.strerror}): choose another --port.") from error
    return listening


def run(app: FastAPI, listening: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM. Tokens are in addresses, so requests are not logged."""
    config = uvicorn.Config(
        app, access_log=False, lifespan="off", log_level="warning", server_header=False, date_header=False
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listening])


def load_texts(path: Path | None) -> dict[str, str]:
    """Raises UsageError where a translation is not one."""
    try:
        return read_texts(read_text(path) if path else None)
    except ValueError as error:
        raise UsageError(f"--texts: {path}: {error}") from error


def database_url(given: str | None) -> str | None:
    """The option, or the environment's variable, which no process list shows."""
    return given or os.environ.get(DATABASE)


def progress(store: Store) -> dict:
    """Groups, annotators with their flags, and the items that take longest."""
    study, state = store.study, store.state()
    states = store.rows(
        select(SLOTS.c.person, SLOTS.c.state, func.count().label("n")).group_by(SLOTS.c.person, SLOTS.c.state)
    )
    counts: dict[str, Counter] = defaultdict(Counter)
    for row in states:
        counts[row.person][row.state] += row.n
    due = {name: count["done"] + count["open"] for name, count in counts.items()}
    ballots, _ = read_ballots(store)
    undone = Counter(
        row.person for row in store.rows(select(SLOTS.c.person).join(WITHDRAWN, WITHDRAWN.c.slot == SLOTS.c.id))
    )
    flags = flags_of(ballots, due, closed=state == "closed")
    times: dict[str, dict[str, float]] = defaultdict(dict)
    last: dict[str, float] = {}
    for ballot in ballots:
        last[ballot.annotator] = ballot.at
        if ballot.seconds is not None:
            times[ballot.annotator][ballot.vote] = ballot.seconds
    people = [
        {
            "name": row.name, "group": row.group, "discarded": row.discarded, "answered": counts[row.name]["done"],
            "total": due.get(row.name, 0), "seconds": _median([*times[row.name].values()]), "undone": undone[row.name],
            "last": last.get(row.name), "flags": [asdict(flag) for flag in flags.get(row.name, [])],
        }
        for row in store.people()
    ]  # fmt: skip
    groups: dict[int, Counter] = defaultdict(Counter)
    for person in people:
        if not person["discarded"]:
            groups[person["group"]].update(answered=person["answered"], total=person["total"])
    return {
        "title": study.title, "state": state, "people": people, "items": _slowest(store),
        "groups": [{"group": group, **count} for group, count in sorted(groups.items())],
    }  # fmt: skip


def _slowest(store: Store) -> list[dict]:
    seconds: dict[int, list[float]] = defaultdict(list)
    for row in store.rows(
        select(SLOTS.c.item, GIVEN_VOTES.c.seconds).join(GIVEN_VOTES, GIVEN_VOTES.c.slot == SLOTS.c.id)
    ):
        if row.seconds is not None:
            seconds[row.item].append(row.seconds)
    found = [
        {"item": item, "prompt": store.study.items[item].prompt[:200], "votes": len(each), "seconds": _median(each)}
        for item, each in seconds.items()
    ]
    return sorted(found, key=lambda row: -row["seconds"])[:SLOWEST]


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
