"""The client against a server that refuses, stalls, floods and repeats the key."""

import socket
import threading
import time

import pytest
from support.endpoint import Reply, completion, stand_in

from sipo.errors import UsageError, UserError
from sipo.scorers.judge.endpoint import Answer, Endpoint, Refused

TEXT = [{"type": "text", "text": "How are you?"}]
KEY = "sk/test-51"


def endpoint(server, **settings) -> Endpoint:
    return Endpoint(server.url, "small", **{"pause": 0.001, "retries": 2, "timeout": 5.0, **settings})


def test_a_request_says_model_message_and_options_and_the_answer_comes_with_its_tokens():
    with stand_in(lambda seen: completion("Well.", tokens=(7, 2))) as server:
        found = endpoint(server, options={"temperature": 0, "seed": 3}).ask(TEXT)
    assert found == Answer("Well.", 7, 2, "stop")
    (seen,) = server.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.body == {
        "model": "small", "messages": [{"role": "user", "content": TEXT}], "temperature": 0, "seed": 3,
    }  # fmt: skip
    assert "Authorization" not in seen.headers


def test_the_key_comes_from_the_environment_and_stands_nowhere_else(monkeypatch, capfd):
    monkeypatch.setenv("OF_THE_TEST", KEY)

    def repeats(seen):
        said = seen.headers["Authorization"]
        return (
            Reply({"error": {"message": f"wrong: {'x' * 280}{said}"}}, 400)
            if len(server.seen) > 1
            else completion(said)
        )

    with stand_in(repeats) as server:
        asked = endpoint(server, key_variable="OF_THE_TEST")
        assert asked.ask(TEXT).text == "Bearer ***"
        with pytest.raises(Refused) as caught:
            asked.ask(TEXT)
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    for text in (str(caught.value), repr(asked), *capfd.readouterr()):
        assert KEY[:4] not in text


@pytest.mark.parametrize("key", [None, "", "two words", "line\nbreak", "\x00"])
def test_a_missing_or_broken_key_is_a_mistake_before_any_request(monkeypatch, key):
    monkeypatch.delenv("OF_THE_TEST", raising=False)
    if key and "\x00" not in key:
        monkeypatch.setenv("OF_THE_TEST", key)
    with (
        stand_in(lambda seen: completion("")) as server,
        pytest.raises(UsageError, match="environment variable OF_THE_TEST") as caught,
    ):
        endpoint(server, key_variable="OF_THE_TEST").ask_all([TEXT] * 3)
    assert server.seen == []
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_is_temporary_is_tried_again(status):
    def busy_twice(seen):
        return completion("done") if len(server.seen) > 2 else Reply({"error": "busy"}, status)

    with stand_in(busy_twice) as server:
        assert endpoint(server).ask(TEXT).text == "done"
    assert len(server.seen) == 3


def test_pauses_double_and_the_endpoint_may_ask_for_its_own():
    asked = Endpoint("http://localhost/v1", "small")
    assert [asked._pause(attempt, None) for attempt in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (asked._pause(3, 0.0), asked._pause(0, 1e6)) == (0.0, 60)
    with stand_in(
        lambda seen: completion("done") if len(server.seen) > 1 else Reply("", 429, {"Retry-After": "0"})
    ) as server:
        started = time.monotonic()
        assert endpoint(server, pause=30.0).ask(TEXT).text == "done"
    assert time.monotonic() - started < 5


def test_one_request_that_fails_to_the_end_leaves_the_others():
    with stand_in(
        lambda seen: Reply({"error": {"message": "crashed"}}, 500) if seen.text == "bad" else completion(seen.text)
    ) as server:
        texts = ["a", "bad", "b"]
        found = endpoint(server).ask_all([[{"type": "text", "text": text}] for text in texts])
    assert [each.text for each in (found[0], found[2])] == ["a", "b"]
    assert str(found[1]) == "HTTP 500: crashed (3 attempts)"


def test_an_endpoint_that_fails_again_and_again_ends_the_command():
    with (
        stand_in(lambda seen: Reply({"error": "overloaded"}, 503)) as server,
        pytest.raises(UserError, match="8 requests in a row failed; the last: HTTP 503: overloaded"),
    ):
        endpoint(server, retries=0, concurrency=2).ask_all([TEXT] * 40)
    assert len(server.seen) <= 8 + 1  # the other of the two was on its way


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the key is refused"),
        (404, "no such address or model"),
        (402, "payment"),
        (307, "redirects are not followed"),
    ],
)
def test_what_no_retry_mends_ends_the_command_at_once(status, said, monkeypatch):
    monkeypatch.setenv("OF_THE_TEST", KEY)
    with (
        stand_in(
            lambda seen: Reply({"error": {"message": "no"}}, status, {"Location": "http://127.0.0.1:1/v1"})
        ) as server,
        pytest.raises(UserError, match=said),
    ):
        endpoint(server, key_variable="OF_THE_TEST", concurrency=1).ask_all([TEXT] * 5)
    assert len(server.seen) <= 2


def test_a_request_that_is_refused_for_itself_is_not_tried_again():
    with stand_in(lambda seen: Reply({"error": {"message": "the picture is not allowed\x1b[2J"}}, 400)) as server:
        (found,) = endpoint(server).ask_all([TEXT])
    assert isinstance(found, Refused)
    assert str(found) == "HTTP 400: the picture is not allowed\\x1b[2J"
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>hello", "no chat completion: <html>hello"),
        ({"choices": []}, "no chat completion"),
        ({"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}, "ended by content_filter"),
        ([1], "no chat completion"),
        (b"[" * 100_000, "no chat completion"),
        (b"x" * (5 * 2**20), r"more than 4,194,304 bytes"),
        ({"choices": [{"message": {"content": "x" * (5 * 2**20)}}]}, r"more than 4,194,304 bytes"),
    ],
)
def test_answers_of_another_form_or_size_are_refused(body, said):
    with stand_in(lambda seen: Reply(body)) as server, pytest.raises(Refused, match=said):
        endpoint(server).ask(TEXT)


def test_nonsense_counts_as_no_tokens():
    with stand_in(
        lambda seen: Reply({"choices": [{"message": {"content": "hm"}}], "usage": {"prompt_tokens": True}})
    ) as s:
        assert endpoint(s).ask(TEXT) == Answer("hm", 0, 0, "None")


def test_a_server_that_stalls_is_left_after_the_timeout():
    held = threading.Event()
    with stand_in(lambda seen: (held.wait(5), completion("late"))[1]) as server:
        with pytest.raises(Refused, match="no answer: timed out"):
            endpoint(server, timeout=0.1, retries=0).ask(TEXT)
        held.set()


def test_a_connection_that_breaks_is_tried_again():
    def breaks(seen):
        return completion("done") if len(server.seen) > 1 else Reply(b"{", headers={"Content-Length": "90"})

    with stand_in(breaks) as server:
        assert endpoint(server, timeout=0.3).ask(TEXT).text == "done"


def test_nobody_at_the_address_is_said_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=f"{url} cannot be reached .*refused.* Is the server running"):
            Endpoint(url, "small", retries=9, pause=60).ask_all([TEXT])


def test_so_many_requests_are_in_flight_as_were_asked_for_and_answers_keep_their_order():
    together = threading.Barrier(4, timeout=5)

    def waits(seen):
        together.wait()
        return completion(seen.text)

    with stand_in(waits) as server:
        texts = [str(number) for number in range(8)]
        found = endpoint(server, concurrency=4).ask_all([[{"type": "text", "text": text}] for text in texts])
    assert [each.text for each in found] == texts
    assert server.most_at_once == 4
