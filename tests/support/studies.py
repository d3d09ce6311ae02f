"""Small studies on disk, their servers in a process of their own, and people who vote over HTTP."""

import csv
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import uvicorn
from PIL import Image
from support.ports import free_port

from sipo.annotate.create import CreateRequest, create
from sipo.annotate.serve import ServeRequest, bound_socket, study_app
from sipo.annotate.study import LINKS, Plan
from sipo.data.media.encode_video import encode_video

CATEGORIES = ("animals", "food")


def folder_of_samples(
    folder: Path, level: int, prompts: Sequence[str], video: bool = False, size=(48, 48), sources: Sequence[Path] = ()
) -> Path:
    """A system whose pictures are `level` bright, with a little noise, so that a test can tell it by its pixels.

    sources: of the samples, if they are edits, in the order of the prompts.
    """
    folder.mkdir(parents=True)
    lines = []
    for n, prompt in enumerate(prompts):
        rng = np.random.default_rng([level, n])
        frames = [
            np.clip(rng.integers(-8, 9, (size[1], size[0], 3)) + level, 0, 255).astype(np.uint8)
            for _ in range(8 if video else 1)
        ]
        name = f"{n:05d}.{'mp4' if video else 'png'}"
        if video:
            (folder / name).write_bytes(encode_video([Image.fromarray(frame) for frame in frames], fps=8))
        else:
            Image.fromarray(frames[0]).save(folder / name)
        metadata = {"category": CATEGORIES[n % len(CATEGORIES)]}
        source = {"source": str(sources[n])} if sources else {}
        lines.append({"file": name, "prompt": prompt, "seed": n, "metadata": metadata, **source})
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def small_study(
    root: Path, prompts: int | Sequence[str] = 6, levels=(60, 180), plan: Plan | None = None, video=False, **options
) -> Path:
    """A study of systems s60, s180, ...; with `plan` one group of one person where none is given."""
    texts = [f"prompt {n}" for n in range(prompts)] if isinstance(prompts, int) else prompts
    folders = [folder_of_samples(root / f"s{level}", level, texts, video) for level in levels]
    create(CreateRequest(folders, root / "study", plan or Plan(1, 1, 1), **options))
    return root / "study"


class Served:
    """A study and the address at which it is served."""

    def __init__(self, study: Path, port: int) -> None:
        self.study, self.port, self.url = study, port, f"http://127.0.0.1:{port}"

    def links(self) -> dict[str, str]:
        """name -> personal link, also of a study that was first served at another port."""
        return {name: self.url + urlsplit(link).path for name, link in links(self.study).items()}


class Server(Served):
    """`sipo annotate serve` as users start it, in a process of its own; `kill` is SIGKILL."""

    def __init__(self, study: Path, *options: str) -> None:
        super().__init__(study, free_port())
        self.options = options
        self.process: subprocess.Popen | None = None

    def start(self) -> "Server":
        command = [
            sys.executable,
            "-m",
            "sipo",
            "annotate",
            "serve",
            str(self.study),
            "--port",
            str(self.port),
            *self.options,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(600):
            try:
                httpx.get(self.url, timeout=5)
                return self
            except httpx.TransportError:
                if self.process.poll() is not None:
                    raise AssertionError(self.process.stdout.read().decode()) from None
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(study: Path, *options: str) -> Iterator[Server]:
    """A server in a process of its own."""
    server = Server(study, *options).start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def hosting(study: Path) -> Iterator[Served]:
    """The same application on a real port, in a thread of the test: it starts at once."""
    served = Served(study, free_port())
    with study_app(ServeRequest(study, port=served.port), say=lambda text: None) as app:
        config = uvicorn.Config(
            app, access_log=False, lifespan="off", log_level="warning", server_header=False, date_header=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound_socket("127.0.0.1", served.port)],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield served
        finally:
            server.should_exit = server.force_exit = True
            thread.join(30)


def links(study: Path) -> dict[str, str]:
    """name -> personal link."""
    with (study / LINKS).open() as file:
        return {row["annotator"]: row["link"] for row in csv.DictReader(file)}


class Voter:
    """One annotator at a personal link, without a browser."""

    def __init__(self, link: str, client: httpx.Client | None = None) -> None:
        self.link, self.client = link, client or httpx.Client(timeout=30)

    def state(self) -> dict:
        return self.client.get(f"{self.link}state").raise_for_status().json()

    def vote(self, slot: int, answer, vote: str | None = None, seconds: float = 3.0) -> httpx.Response:
        body = {"slot": slot, "vote": vote or secrets.token_hex(16), "answer": answer, "seconds": seconds}
        return self.client.post(f"{self.link}vote", json=body)

    def undo(self, vote: str | None = None) -> httpx.Response:
        return self.client.post(f"{self.link}undo", json={"vote": vote})

    def look(self, name: str) -> bytes:
        return self.client.get(f"{self.link}media/{name}").raise_for_status().content

    def all(self, choose) -> int:
        """Vote on everything; choose(state's item, voter) is the answer. The number of votes."""
        state, number = self.state(), 0
        while state["status"] == "open":
            item = state["items"][0]
            state = self.vote(item["slot"], choose(item, self)).raise_for_status().json()
            number += 1
        return number


class Session:
    """`sipo annotate solo` in a process of its own."""

    def __init__(self, folders, out) -> None:
        command = [
            sys.executable,
            "-m",
            "sipo",
            "annotate",
            "solo",
            *map(str, folders),
            "--out",
            str(out),
            "--no-browser",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.greeting = self.process.stdout.readline()
        self.voter = Voter(
            self.process.stdout.readline().strip(), httpx.Client(transport=httpx.HTTPTransport(retries=20), timeout=30)
        )
