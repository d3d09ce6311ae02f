"""The stand-in of the hub over HTTP, and how the hub's client of this process is led to it, or finds nobody."""

import contextlib
import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

from support.hub import ROUTES, Hub, Refusal, Reply, Request
from support.serving import served

MINE, READER = "hf_meMeMeMeMeMeMeMeMeMeMeMeMeMeMe", "hf_readerReaderReaderReaderReader"


@contextlib.contextmanager
def stand_in() -> Iterator[Hub]:
    """A hub on a port of this machine, where `me` (token hf_me...) may write and `reader` may not."""
    hub = Hub(users={MINE: ("me", ["my-group"], True), READER: ("reader", [], False)})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if hub.closed:  # of connections that were kept
                self.close_connection = True
                return
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                content = b"".join(self.chunks())
            bearer = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            request = Request(hub, self.command, parts.path, parse_qs(parts.query), bearer, content)
            hub.requests.append(f"{self.command} {parts.path}")
            try:
                reply = self.routed(request)
            except Refusal as refusal:
                headers = {"X-Error-Message": refusal.message}
                headers |= {"X-Error-Code": refusal.code} if refusal.code else {}
                reply = Reply({"error": refusal.message, **refusal.more}, headers, refusal.status)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            with contextlib.suppress(OSError):  # the client hung up
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        def routed(self, request: Request) -> Reply:
            if hub.broken:
                raise Refusal(hub.broken, "The hub is down for maintenance")
            for method, pattern, handler in ROUTES:
                found = re.fullmatch(pattern, request.path)
                if found and re.fullmatch(method, request.method):
                    return handler(request, **found.groupdict())
            raise Refusal(404, f"the stand-in has no {request.method} {request.path}")

        def chunks(self) -> Iterator[bytes]:
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        do_GET = do_HEAD = do_POST = do_PUT = answer

        def log_message(self, *_):
            pass

    with served(Handler) as (url, stop):
        hub.url = url

        def close() -> None:
            hub.closed = True
            stop()

        hub.close = close
        yield hub


def connect(monkeypatch, hub: Hub, cache, token: str | None = None) -> None:
    """Let the hub's client of this process talk to the stand-in, as HF_ENDPOINT and its siblings would at its import."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setenv(
        "XDG_CACHE_HOME", str(cache / "own")
    )  # ports come again, and what was remembered of them with it
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))  # between attempts
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN", raising=False)


def go_away(hub: Hub, monkeypatch, how: str) -> None:
    """offline: its client may not ask. closed: nobody listens. broken: it answers 503."""
    from huggingface_hub import constants

    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif how == "closed":
        hub.close()
    else:
        hub.broken = 503
