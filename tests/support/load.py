"""Many annotators at once over HTTP, as impatient people with bad lines behave; `python -m support.load` measures the speed."""

import http.client
import json
import random
import secrets
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from support.studies import Server, small_study

from sipo.annotate.store import open_store
from sipo.annotate.study import Plan, read_study
from sipo.annotate.tables import GIVEN_VOTES, SLOTS, WITHDRAWN

ANSWERS = ("left", "right", "tie")


class Line:
    """A connection that is kept; a request that gets no answer raises `OSError` or `HTTPException`."""

    def __init__(self, link: str) -> None:
        where = urlsplit(link)
        self.path, self.address, self.connection = where.path, (where.hostname, where.port), None

    def ask(self, path: str, body: dict | None = None) -> tuple[int, dict]:
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(*self.address, timeout=60)
            content = None if body is None else json.dumps(body)
            headers = {} if body is None else {"Content-Type": "application/json"}
            self.connection.request("GET" if body is None else "POST", self.path + path, content, headers)
            answer = self.connection.getresponse()
            return answer.status, json.loads(answer.read())
        except BaseException:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None


def insist(line: Line, path: str, body: dict | None = None) -> tuple[int, dict]:
    """Ask until there is an answer, as the page does."""
    for _ in range(2000):
        try:
            return line.ask(path, body)
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)
    raise AssertionError("no answer in 2,000 tries")


@dataclass
class Impatient:
    """An annotator who clicks twice, has two tabs open, and whose line breaks. `kept`: slot -> (vote, answer) acknowledged."""

    link: str
    seed: int
    trouble: bool = True
    kept: dict[int, tuple[str, str]] = field(default_factory=dict)
    refused: int = 0
    requests: int = 0

    def work(self) -> None:
        rng, line = random.Random(self.seed), Line(self.link)
        state = insist(line, "state")[1]
        while state["status"] == "open":
            slot = state["items"][0]["slot"]
            body = {"slot": slot, "vote": secrets.token_hex(16), "answer": rng.choice(ANSWERS), "seconds": 2.0}
            tabs = (
                [threading.Thread(target=self._tab, args=(slot, rng.random()))]
                if self.trouble and rng.random() < 0.08
                else []
            )
            for tab in tabs:
                tab.start()
            if self.trouble and rng.random() < 0.05:
                self._lost(body)
            state = self._send(line, body)
            if self.trouble and rng.random() < 0.1:
                self._send(line, body)  # clicked twice
            for tab in tabs:
                tab.join()
            if tabs:
                state = insist(line, "state")[1]

    def _send(self, line: Line, body: dict) -> dict:
        code, state = insist(line, "vote", body)
        self.requests += 1
        if code == 200:
            before = self.kept.setdefault(body["slot"], (body["vote"], body["answer"]))
            assert before == (body["vote"], body["answer"]), "two votes on one slot were acknowledged"
        else:
            assert (code, state["refused"]) == (409, "answered"), (code, state)
            self.refused += 1
        return state

    def _tab(self, slot: int, number: float) -> None:
        """The same item answered in another window, at the same moment, otherwise."""
        answer = ANSWERS[int(3 * number)]
        self._send(Line(self.link), {"slot": slot, "vote": secrets.token_hex(16), "answer": answer, "seconds": 2.0})

    def _lost(self, body: dict) -> None:
        """The request is sent, and the line breaks before the answer."""
        line = Line(self.link)
        try:
            line.connection = http.client.HTTPConnection(*line.address, timeout=60)
            line.connection.request("POST", line.path + "vote", json.dumps(body), {"Content-Type": "application/json"})
        except OSError:
            pass
        line.hang_up()


def run_all(people: list[Impatient]) -> float:
    """Seconds until all have finished; raises what any of them raised."""
    failed: list[BaseException] = []

    def work(person: Impatient) -> None:
        try:
            person.work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(person,)) for person in people]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - begin


def all_votes_are_kept_once(study: Path, people: list[Impatient], database: str | None = None) -> None:
    with open_store(study, read_study(study), database) as store:
        votes = {row.slot: (row.id, json.loads(row.answer)) for row in store.rows(GIVEN_VOTES.select())}
        slots = store.rows(SLOTS.select())
        assert store.rows(WITHDRAWN.select()) == []
    assert len(votes) == len(slots) == store.study.plan.group_size * len(store.study.items)
    assert {slot.state for slot in slots} == {"done"}
    acknowledged = {slot: kept for person in people for slot, kept in person.kept.items()}
    assert acknowledged.items() <= votes.items()  # (what was sent on a line that broke may be kept without an answer)
    assert len(acknowledged) >= 0.9 * len(votes)


def killed_while_working(
    study: Path, kills: int, pause: float, *options: str, database: str | None = None
) -> list[Impatient]:
    server = Server(study, *options).start()
    people = [Impatient(link, n) for n, (name, link) in enumerate(server.links().items()) if name != "researcher"]
    working = threading.Thread(target=lambda: done.append(run_all(people)))
    done: list[float] = []
    try:
        working.start()
        for _ in range(kills):
            time.sleep(pause)
            server.kill()
            server.start()
        working.join(900)
    finally:
        server.kill()
    assert done, "somebody failed"
    all_votes_are_kept_once(study, people, database)
    return people


def main(num_people: int = 64, num_items: int = 100) -> None:
    with tempfile.TemporaryDirectory() as folder:
        study = small_study(Path(folder), num_items, plan=Plan(1, num_people, num_people))
        server = Server(study).start()
        people = [
            Impatient(link, n, trouble=False)
            for n, (name, link) in enumerate(server.links().items())
            if name != "researcher"
        ]
        try:
            seconds = run_all(people)
        finally:
            server.kill()
    votes = sum(len(person.kept) for person in people)
    print(
        f"{num_people} annotators, {votes:,} votes in {seconds:.1f} s: {votes / seconds:.0f} votes a second, each synced to disk"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
