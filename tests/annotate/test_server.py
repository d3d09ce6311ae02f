"""The server as browsers and attackers meet it: every route guarded, votes kept once, texts only shown as data."""

import json
import secrets
import sqlite3
from pathlib import Path

import httpx
import pytest
from support.hostile import INJECTIONS
from support.hostile import PROMPTS as HOSTILE
from support.studies import Served, Voter, hosting, links, serving, small_study

from sipo.annotate.study import Plan, read_study
from sipo.annotate.web import make_app, read_texts


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    study = small_study(tmp_path_factory.mktemp("served"), 8, plan=Plan(2, 2, 2))
    with hosting(study) as server:
        yield server


@pytest.fixture
def fresh(tmp_path):
    with hosting(small_study(tmp_path, 6, plan=Plan(1, 2, 2))) as server:
        yield server


def voters(server: Served) -> dict[str, Voter]:
    return {name: Voter(link) for name, link in links(server.study).items() if "/a/" in link}


def rows(study, query: str) -> list:
    with sqlite3.connect(study / "votes.db") as connection:
        return connection.execute(query).fetchall()


def routes() -> list[tuple[str, str]]:
    """(method, path) of everything that the app answers, from the app itself."""
    from sipo.annotate.web import Admin

    app = make_app(None, read_texts(), Admin(lambda token: False, dict, print))
    found, left = [], list(app.routes)
    while left:
        route = left.pop()
        left += getattr(getattr(route, "original_router", None), "routes", [])
        prefix = getattr(route, "path", None)
        if prefix:
            found += [(method, prefix) for method in route.methods]
    return sorted(set(found))


def test_the_app_lists_its_routes():
    assert {("POST", "/a/{token}/vote"), ("GET", "/a/{token}/media/{name}"), ("POST", "/admin/{token}/state")} <= set(
        routes()
    )
    assert len(routes()) >= 11


@pytest.mark.parametrize("token", ["", "wrong", "%00", "..", "%2e%2e%2fadmin", "x" * 3000, *INJECTIONS[:5]])
def test_every_route_refuses_without_or_with_a_wrong_token(served, token):
    client = httpx.Client()
    for method, path in routes():
        url = f"{served.url}{path.format(token=token, name='app.js')}"
        for headers in ({}, {"Content-Type": "application/json"}):
            answer = client.request(method, url, headers=headers, content=b"{" if method == "POST" else None)
            assert answer.status_code in (401, 403), (method, path, answer.status_code)
            assert answer.content == b""


def test_an_annotators_token_opens_no_researchers_page_and_the_reverse(served):
    found = links(served.study)
    mine, admin = found["g1-1"].split("/")[-2], found["researcher"].split("/")[-2]
    assert httpx.get(f"{served.url}/admin/{mine}/progress").status_code == 403
    assert httpx.get(f"{served.url}/a/{admin}/state").status_code == 403
    assert httpx.get(f"{served.url}/admin/{admin}/progress").status_code == 200


def test_addresses_that_are_none_are_refused_too(served):
    for path in (
        "/",
        "/docs",
        "/openapi.json",
        "/favicon.ico",
        "/a",
        "/admin",
        "/static/../links.csv",
        "/links.csv",
        "/votes.db",
    ):
        assert httpx.get(served.url + path).status_code == 401


def test_tokens_are_stored_as_hashes_alone(served):
    stored = json.dumps(rows(served.study, "SELECT * FROM people") + rows(served.study, "SELECT * FROM meta"))
    for link in links(served.study).values():
        token = link.split("/")[-2]
        assert len(token) >= 22  # 128 bits in base64
        assert token not in stored
    assert (served.study / "links.csv").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_writes_from_elsewhere_are_refused(served, headers, code):
    voter = voters(served)["g2-2"]
    body = {"slot": voter.state()["items"][0]["slot"], "vote": secrets.token_hex(16), "answer": "left"}
    sent = {"Content-Type": "application/json"} | headers
    assert httpx.post(f"{voter.link}vote", content=json.dumps(body), headers=sent).status_code == code
    assert voter.state()["answered"] == 0
    admin = links(served.study)["researcher"]
    assert httpx.post(f"{admin}state", content='{"state": "closed"}', headers=sent).status_code == code


def test_long_and_malformed_bodies_are_refused(served):
    voter = voters(served)["g2-2"]
    kind = {"Content-Type": "application/json"}
    assert httpx.post(f"{voter.link}vote", content=b"x" * 70_000, headers=kind).status_code == 413
    assert httpx.post(f"{voter.link}vote", content=iter([b"{}"]), headers=kind).status_code == 411
    slot = voter.state()["items"][0]["slot"]
    good = {"slot": slot, "vote": secrets.token_hex(16), "answer": "left", "seconds": 1.0}
    wrong = [
        {"slot": "x"}, {"slot": -1}, {"slot": 2**40}, {"vote": "short"}, {"vote": None}, {"answer": "a"}, {"answer": None},
        {"answer": ["left"]}, {"answer": "bad"}, {"more": 1}, {"seconds": "soon"}, {"answer": {"overall": [0, 1]}},
    ]  # fmt: skip
    for change in wrong:
        assert httpx.post(f"{voter.link}vote", json=good | change).status_code == 422, change
    for content in (b"", b"[", b"null", b"[]", b'"x"', b"\xff"):
        assert httpx.post(f"{voter.link}vote", content=content, headers=kind).status_code in (400, 422)
    assert voter.state()["answered"] == 0


def test_headers_are_strict_and_the_same_everywhere(served):
    voter = voters(served)["g2-2"]
    name = voter.state()["items"][0]["media"][0]
    found = [httpx.get(voter.link + path) for path in ("", "page/app.js", "page/texts.json", "state", f"media/{name}")]
    for answer in [*found, httpx.get(served.url)]:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not {"server", "date", "etag", "last-modified", "set-cookie"} & set(answer.headers)


def test_the_page_loads_nothing_from_elsewhere(served):
    voter = voters(served)["g1-1"]
    for part in ("", "page/app.js", "page/media.js", "page/style.css", "page/admin.js"):
        text = httpx.get(voter.link + part).text
        assert "://" not in text.replace("http://www.w3.org", "")
        assert "innerHTML" not in text
        assert " style=" not in text
        assert "onclick=" not in text


def test_paths_never_leave_the_study(served):
    voter = voters(served)["g1-1"]
    for name in ("../study.json", "..%2fstudy.json", "%2e%2e%2fvotes.db", "/etc/passwd", "000000.png", "study.json"):
        for where in ("media", "page"):
            assert httpx.get(f"{voter.link}{where}/{name}").status_code in (401, 403, 404, 410), name


def test_hostile_prompts_arrive_as_data(tmp_path):
    with hosting(small_study(tmp_path, HOSTILE, plan=Plan(1, 1, 1))) as server:
        voter, seen = Voter(links(server.study)["g1-1"]), []
        voter.all(lambda item, _: seen.append(item["prompt"]) or "tie")
        assert sorted(seen) == sorted(HOSTILE)


def test_injections_have_no_effect(fresh):
    voter = voters(fresh)["g1-1"]
    slot, client = voter.state()["items"][0]["slot"], voter.client
    for text in INJECTIONS:
        assert client.get(f"{fresh.url}/a/{text}/state").status_code in (401, 403)
        assert client.get(f"{fresh.url}/admin/{text}/progress").status_code in (401, 403)
        assert client.get(f"{voter.link}media/{text}").status_code in (401, 404, 410)
        for change in ({"slot": text}, {"vote": text}, {"answer": text}, {"seconds": text}):
            body = {"slot": slot, "vote": secrets.token_hex(16), "answer": "left"} | change
            assert client.post(f"{voter.link}vote", json=body).status_code == 422
        assert voter.undo(text).status_code == 422
    assert rows(fresh.study, "SELECT count(*) FROM votes") == [(0,)]
    assert rows(fresh.study, "SELECT count(*) FROM people WHERE NOT discarded") == [(2,)]
    assert len(rows(fresh.study, "SELECT * FROM slots")) == 12


def test_a_vote_sent_again_is_kept_once(fresh):
    voter, vote = voters(fresh)["g1-1"], secrets.token_hex(16)
    slot = voter.state()["items"][0]["slot"]
    for _ in range(3):
        assert voter.vote(slot, "left", vote).json()["answered"] == 1
    second = voter.vote(slot, "right")
    assert second.status_code == 409
    assert second.json()["refused"] == "answered"
    assert rows(fresh.study, "SELECT id, answer FROM votes") == [(vote, '"left"')]


def test_undo_takes_back_the_last_and_keeps_the_record(fresh):
    voter, votes = voters(fresh)["g1-1"], [secrets.token_hex(16) for _ in range(3)]
    slots = []
    for vote in votes:
        slots.append(voter.state()["items"][0]["slot"])
        voter.vote(slots[-1], "left", vote)
    assert voter.undo(votes[-1]).json()["answered"] == 2
    assert voter.undo(votes[-1]).json()["answered"] == 2  # sent again
    assert voter.state()["items"][0]["slot"] == slots[-1]
    assert voter.vote(slots[-1], "left", votes[-1]).json()["answered"] == 2  # a late copy of what was taken back
    assert voter.vote(slots[-1], "right").json()["answered"] == 3
    assert rows(fresh.study, "SELECT id, slot FROM withdrawn") == [(votes[-1], slots[-1])]


def test_nobody_votes_on_anothers_slot(fresh):
    one, other = voters(fresh).values()
    assert one.vote(other.state()["items"][0]["slot"], "left").status_code == 409
    assert other.state()["answered"] == 0


def test_pause_close_and_return(tmp_path):
    study = small_study(tmp_path, 3, plan=Plan(1, 1, 1))
    with hosting(study) as fresh:
        paused_and_closed(fresh)
    with hosting(study) as again:
        assert Voter(again.links()["g1-1"]).state()["answered"] == 1


def paused_and_closed(fresh: Served) -> None:
    voter, admin = voters(fresh)["g1-1"], links(fresh.study)["researcher"]
    slot = voter.state()["items"][0]["slot"]
    for state in ("paused", "closed"):
        assert httpx.post(f"{admin}state", json={"state": state}).json()["state"] == state
        assert voter.state()["status"] == state
        assert voter.vote(slot, "left").json()["refused"] == state
    httpx.post(f"{admin}state", json={"state": "open"})
    assert voter.vote(slot, "left").json()["answered"] == 1


def test_the_researcher_sees_progress_and_times(fresh):
    for name, voter in voters(fresh).items():
        slot = voter.state()["items"][0]["slot"]
        voter.vote(slot, "left", seconds=4.0 if name == "g1-1" else 8.0)
    found = httpx.get(f"{links(fresh.study)['researcher']}progress").json()
    assert [(p["name"], p["answered"], p["total"], p["seconds"]) for p in found["people"]] == [
        ("g1-1", 1, 6, 4.0),
        ("g1-2", 1, 6, 8.0),
    ]
    assert found["groups"] == [{"group": 1, "answered": 2, "total": 12}]
    assert found["items"][0]["seconds"] >= 6.0


def test_names_are_good_once_and_for_their_person_alone(served):
    one, other = voters(served)["g1-1"], voters(served)["g1-2"]
    name = one.state()["items"][0]["media"][0]
    assert other.client.get(f"{other.link}media/{name}").status_code == 410
    assert one.look(name)
    assert one.client.get(f"{one.link}media/{name}").status_code == 410
    assert name not in json.dumps(one.state())


def test_new_links_end_the_old_ones(fresh, monkeypatch, capsys):
    from support.command_line import run

    old = voters(fresh)["g1-1"]
    old.vote(old.state()["items"][0]["slot"], "left")
    assert run(monkeypatch, capsys, "annotate", "links", fresh.study, "--url", fresh.url)[0] == 0
    assert old.client.get(f"{old.link}state").status_code == 403
    assert voters(fresh)["g1-1"].state()["answered"] == 1


def test_a_study_needs_no_torch_to_be_served(tmp_path):
    with serving(small_study(tmp_path, 2)) as server:
        assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()


def test_the_plan_is_what_is_shown(served):
    study = read_study(served.study)
    voter = voters(served)["g2-1"]
    shown = [item["prompt"] for item in voter.state()["items"]]
    assert shown == [study.items[slot.item].prompt for slot in study.slots("g2-1", 2)[:2]]
