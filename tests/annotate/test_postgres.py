"""The same promises on a real PostgreSQL server. `make test-annotate` runs these."""

import httpx
import psycopg
import pytest
from support.load import killed_while_working
from support.postgres import postgres
from support.studies import Voter, serving, small_study

from sipo.annotate.people import discard
from sipo.annotate.report import report
from sipo.annotate.store import Refused, open_store
from sipo.annotate.study import Plan, read_study
from sipo.errors import UserError

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server():
    with postgres() as url:
        yield url


@pytest.fixture
def database(server):
    """A new database on the server."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS votes")
        connection.execute("CREATE DATABASE votes")
    yield server.rpartition("/")[0] + "/votes"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE votes WITH (FORCE)")


def test_votes_undo_and_replacement(database, tmp_path):
    root = small_study(tmp_path, 4, plan=Plan(1, 2, 2))
    with open_store(root, read_study(root), database) as store:
        slot = store.open_slots("g1-1")[0].id
        for _ in range(2):
            store.vote("g1-1", slot, "0" * 32, "left", 1.0)
        with pytest.raises(Refused, match="answered"):
            store.vote("g1-1", slot, "1" * 32, "right", 1.0)
        store.undo("g1-1", "0" * 32)
        assert store.count_votes() == 0
        store.vote("g1-1", slot, "0" * 32, "left", 1.0)  # a late copy
        assert store.count_votes() == 0
        store.vote("g1-1", slot, "2" * 32, "right", 1.0)
        assert discard(store, "g1-1", replace=True) == (4, 0, "g1-3")
        with pytest.raises(Refused, match="discarded"):
            store.vote("g1-1", slot + 1, "3" * 32, "right", 1.0)
    with open_store(root, read_study(root), database) as store:
        assert store.count_votes() == 1
    assert not (root / "votes.db").exists()


def test_another_study_is_refused(database, tmp_path):
    one, other = small_study(tmp_path / "1", 3), small_study(tmp_path / "2", 4)
    with open_store(one, read_study(one), database) as store:
        store.vote("g1-1", store.open_slots("g1-1")[0].id, "0" * 32, "left", 1.0)
    with pytest.raises(UserError, match="holds 1 votes"), open_store(other, read_study(other), database):
        pass


def test_people_vote_through_the_server_and_the_report_reads_them(database, tmp_path, monkeypatch):
    root = small_study(tmp_path, 5, plan=Plan(1, 3, 3))
    monkeypatch.setenv("SIPO_ANNOTATE_DATABASE", database)
    with serving(root) as server:
        for name, link in server.links().items():
            if name != "researcher":
                Voter(link).all(lambda item, voter: "tie")
        assert httpx.get(f"{server.links()['researcher']}progress").json()["groups"] == [
            {"group": 1, "answered": 15, "total": 15}
        ]
    assert "s60 wins 50.0% against s180" in report(root, database=database)


def test_many_people_and_a_kill(database, tmp_path):
    study = small_study(tmp_path, 30, plan=Plan(1, 8, 8))
    killed_while_working(study, 1, 0.5, "--database", database, database=database)


def test_a_server_that_is_not_there_is_a_message(tmp_path):
    root = small_study(tmp_path, 3)
    for url, words in (
        ("postgresql://127.0.0.1:9/votes", "cannot be opened"),
        ("mysql://x/y", "postgresql://"),
        ("nonsense", "no URL"),
    ):
        with pytest.raises(UserError, match=words), open_store(root, read_study(root), url):
            pass
