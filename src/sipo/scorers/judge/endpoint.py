"""Chat completions over HTTP (the interface of OpenAI, which vLLM, SGLang, llama.cpp and most providers serve).

Answers are bounded in size and time. What is temporary is tried again with growing pauses; an endpoint that refuses the key
or the model, or that fails again and again, ends the command. Redirects are not followed, since the key would travel along.
"""

import http.client
import json
import math
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from sipo.errors import UsageError, UserError, printable, shown

MOST_ANSWER = 4 * 2**20  # bytes of a whole response
MOST_SAID = 300  # characters of an endpoint's error that are shown
MOST_PAUSE = 60.0  # seconds between two attempts
TEMPORARY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
HOPELESS = {
    401: "the key is refused", 402: "payment is required", 403: "access is refused",
    404: "there is no such address or model", 405: "this is no address of chat completions",
}  # fmt: skip
PATIENCE = 8  # requests in a row that fail to the end, after which the command ends


class Refused(Exception):
    """No answer to this one request; others may have one."""


class _Temporary(Exception):
    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause  # seconds that the endpoint asks for


@dataclass(frozen=True)
class Answer:
    """What the model wrote, the tokens of question and answer (0 where the endpoint counts none), and why it ended.

    first: tokens with which it may have begun, and their probabilities; empty where the endpoint lists none.
    """

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    ended_by: str = "stop"
    first: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Endpoint:
    """Answers of `model` at `url` (https://.../v1), `concurrency` requests at once.

    key_variable: the environment variable that holds the key; it is read when a request is sent, and stands in no file
    and no message. options: further keys of a request. retries: of one request. timeout: seconds of one attempt.
    pause: seconds before the first retry; each next pause is twice as long.
    """

    url: str
    model: str
    key_variable: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    concurrency: int = 8
    retries: int = 5
    timeout: float = 120.0
    pause: float = 1.0

    def __post_init__(self) -> None:
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._answered = self._failed_in_a_row = 0

    def ask_all(self, contents: Sequence[list[dict]]) -> list[Answer | Refused]:
        """An answer to each message, or why there is none, in order.

        Raises UserError where the endpoint cannot be reached, refuses the key or the model, or answers nothing any more.
        """
        self._headers  # noqa: B018  # before any thread: a missing key is one mistake
        with ThreadPoolExecutor(self.concurrency) as threads:
            try:
                return list(threads.map(self._answer_or_reason, contents))
            except BaseException:
                self._stopped.set()
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def ask(self, content: list[dict]) -> Answer:
        """The answer to one message of the user. Raises Refused; UserError as `ask_all`."""
        body = {"model": self.model, "messages": [{"role": "user", "content": content}], **self.options}
        data = json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            try:
                answer = self._once(data)
            except _Temporary as error:
                if attempt == self.retries or self._stopped.wait(self._pause(attempt, error.pause)):
                    raise self._failed(f"{error} ({attempt + 1} attempts)") from None
            else:
                with self._lock:
                    self._answered, self._failed_in_a_row = self._answered + 1, 0
                return answer
        raise AssertionError

    def _answer_or_reason(self, content: list[dict]) -> Answer | Refused:
        if self._stopped.is_set():
            return Refused("not asked: the command ends")
        try:
            return self.ask(content)
        except Refused as error:
            return error
        except BaseException:
            self._stopped.set()
            raise

    def _pause(self, attempt: int, wanted: float | None) -> float:
        return min(self.pause * 2**attempt if wanted is None else wanted, MOST_PAUSE)

    def _failed(self, reason: str) -> Refused | UserError:
        with self._lock:
            self._failed_in_a_row += 1
            lost = self._failed_in_a_row >= PATIENCE
            if lost:
                self._stopped.set()  # before any other request ends, so that none is sent after it
        return (
            UserError(f"{self.url}: {PATIENCE} requests in a row failed; the last: {reason}")
            if lost
            else Refused(reason)
        )

    def _once(self, data: bytes) -> Answer:
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", data, self._headers)
        ends = time.monotonic() + self.timeout
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                content = self._without_key(_read(response, ends))
        except urllib.error.HTTPError as error:
            raise self._status(error, ends) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise self._unreached(error) from None
        return _parse(content)

    def _status(self, error: urllib.error.HTTPError, ends: float) -> Exception:
        """What a status other than success means for the request, or for the command."""
        with error:
            try:
                said = _said(self._without_key(_read(error, ends)))
            except (_Temporary, OSError, http.client.HTTPException, Refused):
                said = ""
        text = f"HTTP {error.code}{': ' if said else ''}{said}"
        if error.code in TEMPORARY:
            return _Temporary(text, _seconds(error.headers.get("Retry-After")))
        if error.code in HOPELESS or 300 <= error.code < 400:
            why = HOPELESS.get(
                error.code, "it redirects, and redirects are not followed; write the other address as url"
            )
            return UserError(f"{self.url}, model {self.model}: {why} ({text})")
        return Refused(text)

    def _unreached(self, error: Exception) -> Exception:
        reason = getattr(error, "reason", error)
        said = f"no answer: {printable(reason) or type(reason).__name__}"
        if not self._answered and isinstance(reason, ConnectionRefusedError | socket.gaierror):
            return UserError(f"{self.url} cannot be reached ({printable(reason)}). Is the server running?")
        return _Temporary(said)

    @cached_property
    def _headers(self) -> dict[str, str]:
        found = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "sipo"}
        return found | ({"Authorization": f"Bearer {self._key}"} if self._key else {})

    @cached_property
    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            what = "holds no key, but characters that no header can carry" if key else "is empty or not set"
            raise UsageError(
                f"the environment variable {self.key_variable} {what}; export the endpoint's key under that name"
            )
        return key

    def _without_key(self, content: bytes) -> bytes:
        """An endpoint may repeat the key that it was sent; answers are kept in files."""
        for form in (self._key, self._key.replace("/", "\\/")) if self._key else ():
            content = content.replace(form.encode(), b"***")
        return content

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        """Without redirects; a server on this machine is asked directly, others through the environment's proxy."""
        is_local = urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")
        return urllib.request.build_opener(_NoRedirects, *([urllib.request.ProxyHandler({})] if is_local else []))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args, **_kwargs):
        return None


def _read(response: Any, ends: float) -> bytes:
    """The body. Raises Refused beyond `MOST_ANSWER` bytes, _Temporary after the moment `ends`."""
    parts, size = [], 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if size > MOST_ANSWER:
            raise Refused(f"an answer of more than {MOST_ANSWER:,} bytes")
        if time.monotonic() > ends:
            raise _Temporary("no whole answer in time")
    if getattr(response, "length", None):
        raise _Temporary("the connection broke off in an answer")
    return b"".join(parts)


def _parse(content: bytes) -> Answer:
    """The first choice of a chat completion. Raises Refused where there is none."""
    try:
        found = json.loads(content)
        choice = found["choices"][0]
        text, ended_by = choice["message"]["content"], str(choice.get("finish_reason"))
        usage = found.get("usage") or {}
        tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise Refused(f"no chat completion: {printable(content[:MOST_SAID].decode(errors='replace'))}") from None
    if not isinstance(text, str):
        raise Refused(f"an answer without text (it ended by {printable(ended_by)})")
    return Answer(text, *tokens, ended_by, _first_token(choice))


def _first_token(choice: dict) -> dict[str, float]:
    """The probability of each listed alternative of the first token (`logprobs` with `top_logprobs` in the request)."""
    try:
        place = choice["logprobs"]["content"][0]
        rows = [(row["token"], row["logprob"]) for row in (place, *place["top_logprobs"])]
    except (LookupError, TypeError):
        return {}
    return {token: math.exp(min(value, 0.0)) for token, value in rows if isinstance(token, str) and _is_log(value)}


def _is_log(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else 0


def _said(content: bytes) -> str:
    """The message of an error's body, which most endpoints write as {"error": {"message": ...}}."""
    text = content.decode(errors="replace")
    try:
        found = json.loads(text)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, RecursionError):
        pass
    text = " ".join((text if isinstance(text, str) else shown(text, MOST_SAID)).split())
    return printable(text[:MOST_SAID])


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; None for a date or nonsense."""
    return float(text) if text and text.strip().isdigit() and len(text.strip()) < 9 else None
