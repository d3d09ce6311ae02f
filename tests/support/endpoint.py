"""A stand-in for an OpenAI-compatible endpoint: a server in a thread of the test, whose model is a function."""

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from PIL import Image, ImageStat
from support.serving import served


@dataclass
class Reply:
    """What the server sends; `body` as it is if it is bytes."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """A request: headers, the body, its texts, and the pictures that were sent with it, in order."""

    path: str
    headers: dict[str, str]
    body: dict

    @property
    def content(self) -> list[dict]:
        return self.body["messages"][0]["content"]

    @property
    def text(self) -> str:
        return "".join(part["text"] for part in self.content if part["type"] == "text")

    @property
    def pictures(self) -> list[Image.Image]:
        urls = [part["image_url"]["url"] for part in self.content if part["type"] == "image_url"]
        assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
        return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]

    @property
    def brightness(self) -> list[float]:
        """Of each picture, from 0 to 255."""
        return [ImageStat.Stat(picture.convert("L")).mean[0] for picture in self.pictures]


@dataclass
class StandIn:
    """The server's address, and what it was sent."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0

    def judge(self, folder: Path, stem: str = "judge", **keys) -> str:
        """A judge's file that asks this server."""
        path = Path(folder) / f"{stem}.yaml"
        path.write_text(
            json.dumps({"url": self.url, "model": "stand-in", "template": "rating", **keys})
        )  # YAML holds JSON
        return str(path)


def completion(text: str | None, ended_by: str = "stop", tokens: tuple[int, int] = (100, 10)) -> Reply:
    return Reply({
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": ended_by}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]},
    })  # fmt: skip


@contextlib.contextmanager
def stand_in(answer: Callable[[Seen], Reply]) -> Iterator[StandIn]:
    """Serve `answer` on a port of this machine."""
    lock, inside = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen = Seen(self.path, dict(self.headers), body)
            with lock:
                found.seen.append(seen)
                inside[0] += 1
                found.most_at_once = max(found.most_at_once, inside[0])
            reply = answer(seen)
            with lock:
                inside[0] -= 1
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            with contextlib.suppress(OSError):  # the client hung up
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with served(Handler) as (url, _):
        found = StandIn(f"{url}/v1")
        yield found
