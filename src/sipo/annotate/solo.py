"""`sipo annotate solo`: one person's pairs by a Swiss tournament in each prompt. Every answer is one line of a log.

All state is a pure function of the samples and the log's lines, so a killed session goes on where it was.
"""

import math
import os
import secrets
import threading
import webbrowser
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sipo.annotate.desk import ANSWERS, Medium, Names, on_page
from sipo.annotate.store import Person, Refused
from sipo.annotate.swiss import Look, Pairs, Prompt, next_pair, pairs_of
from sipo.data.media.kinds import MAX_VIDEO_BYTES
from sipo.errors import UsageError, UserError
from sipo.evaluate.scores.sources import find_media
from sipo.files import read_regular, write_atomic
from sipo.jsonl import append_jsonl, cut_torn_line, dump_jsonl, read_jsonl

ME = Person("solo", 1, False)


@dataclass(frozen=True)
class SoloRequest:
    """rounds: None for log2 of a prompt's samples, upwards. seed: of the order of prompts, the lots and the sides."""

    folders: Sequence[Path]
    out: Path
    prompts: str | None = None
    pairs: Pairs = "judged"
    rounds: int | None = None
    seed: int = 0
    port: int = 0
    browser: bool = True

    @property
    def log(self) -> Path:
        """Where the answers are kept, beside the manifest."""
        return self.out.with_suffix(".looks.jsonl")


@dataclass
class SoloDesk:
    """The desk of one person; the log is all of its state."""

    request: SoloRequest
    prompts: Sequence[Prompt]
    token: str
    lines: list[dict] = field(default_factory=list)  # of the log, without those that were taken back
    known: set[str] = field(default_factory=set)  # ids of all answers, taken back or not
    lock: threading.RLock = field(default_factory=threading.RLock)
    names: Names = field(default_factory=Names)

    def person(self, token: str) -> Person | None:
        return ME if secrets.compare_digest(token.encode(), self.token.encode()) else None

    def config(self, person: Person) -> dict:
        return {
            "mode": "pairwise", "kind": "image", "title": "", "dimensions": [], "both_bad": True, "guideline": "",
            "examples": [], "help": False,
        }  # fmt: skip

    def total(self) -> int:
        return sum(self._rounds(prompt) * (len(prompt.files) // 2) for prompt in self.prompts)

    def looks(self) -> dict[str, list[Look]]:
        found: dict[str, list[Look]] = defaultdict(list)
        for line in self.lines:
            found[line["prompt_id"]].append(Look(line["left"], line["right"], line["answer"]))
        return found

    def look(self, person: Person) -> dict:
        with self.lock:
            looks, items = self.looks(), []
            for number, prompt in enumerate(self.prompts):
                pair = self._next(number, looks[prompt.id])
                if pair is not None:
                    items.append((number, len(looks[prompt.id]), pair))
                if len(items) == 2:
                    break
            shown = [self._shown(*item) for item in items]
            if shown and len(items) and (after := self._foreseen(items[0], looks)):
                shown[1:] = [self._shown(*after)]
            last = self.lines[-1]["vote"] if self.lines else None
            status = "open" if shown else "done"
            return {
                "status": status,
                "answered": len(self.lines),
                "total": max(self.total(), len(self.lines)),
                "last": last,
                "items": shown,
            }

    def vote(self, person: Person, slot: int, vote: str, answer: Any, seconds: float | None) -> None:
        if answer not in ANSWERS:
            raise ValueError(f"The answer is one of {', '.join(ANSWERS)}.")
        with self.lock:
            if vote in self.known:
                return
            number, turn = divmod(slot, 10_000)
            if number >= len(self.prompts):
                raise Refused("unknown")
            prompt, looks = self.prompts[number], self.looks()
            pair = self._next(number, looks[prompt.id])
            if pair is None or turn != len(looks[prompt.id]):
                raise Refused("answered")
            line = {
                "vote": vote,
                "prompt_id": prompt.id,
                "left": pair[0],
                "right": pair[1],
                "answer": answer,
                "seconds": seconds,
            }
            append_jsonl(self.request.log, [line])
            self.lines.append(line)
            self.known.add(vote)
            if self._next(number, self.looks()[prompt.id]) is None:
                self.write()

    def undo(self, person: Person, vote: str | None) -> None:
        with self.lock:
            if self.lines and vote in (None, self.lines[-1]["vote"]):
                append_jsonl(self.request.log, [{"undo": self.lines[-1]["vote"]}])
                self.lines.pop()

    def medium(self, person: Person, name: str) -> tuple[bytes, str] | None:
        found = self.names.take(person.name, name)
        return found() if found else None

    def write(self) -> int:
        """The manifest of all that was judged; the number of its pairs."""
        with self.lock:
            looks, out = self.looks(), self.request.out
            lines = [
                line for prompt in self.prompts if looks[prompt.id]
                for line in pairs_of(prompt, looks[prompt.id], self.request.pairs, out.parent)
            ]  # fmt: skip
            write_atomic(out, dump_jsonl(lines))
            return len(lines)

    def read_log(self) -> None:
        """Take up what an earlier session wrote."""
        cut_torn_line(self.request.log)
        for number, line in enumerate(read_jsonl(self.request.log) if self.request.log.exists() else [], start=1):
            if "undo" in line:
                self.lines = [other for other in self.lines if other["vote"] != line["undo"]]
            elif fault := _fault(line):
                raise UserError(f"{self.request.log}, line {number}: {fault}.")
            else:
                self.lines.append(line)
                self.known.add(line["vote"])
        ids = {prompt.id for prompt in self.prompts}
        if strangers := sum(line["prompt_id"] not in ids for line in self.lines):
            raise UserError(
                f"{self.request.log} holds {strangers} answers on samples that these folders do not have (moved, added or "
                "removed since). Name the folders as they were, or choose another --out."
            )

    def _rounds(self, prompt: Prompt) -> int:
        return min(self.request.rounds or math.ceil(math.log2(len(prompt.files))), len(prompt.files) - 1)

    def _next(self, number: int, looks: Sequence[Look]) -> tuple[int, int] | None:
        """The next pair of a prompt, from left to right."""
        prompt = self.prompts[number]
        rng = np.random.default_rng([self.request.seed, number])
        pair = next_pair(len(prompt.files), looks, self._rounds(prompt), rng)
        if pair is None:
            return None
        swap = np.random.default_rng([self.request.seed, number, len(looks)]).random() < 0.5
        return (pair[1], pair[0]) if swap else pair

    def _foreseen(self, item: tuple[int, int, tuple[int, int]], looks: Mapping[str, Sequence[Look]]) -> tuple | None:
        """The item after this one, where that does not depend on the answer: within a round of the same prompt."""
        number, turn, pair = item
        mine = looks[self.prompts[number].id]
        after = {self._next(number, [*mine, Look(*pair, answer)]) for answer in ("left", "right", "tie")}
        only = after.pop()
        return (number, turn + 1, only) if not after and only else None

    def _shown(self, number: int, turn: int, pair: tuple[int, int]) -> dict:
        prompt = self.prompts[number]

        def medium(file: Path) -> Medium:
            return lambda: browser_ready(file)

        media, source = [medium(prompt.files[n]) for n in pair], medium(prompt.source) if prompt.source else None
        return {"slot": number * 10_000 + turn} | on_page(self.names, ME, prompt.text, media, source)


def _fault(line: dict) -> str | None:
    """Why a line of the log is no look, or None."""
    kinds = {"vote": str, "prompt_id": str, "left": int, "right": int, "answer": str}
    return next(
        (f"no {kind.__name__} under {key}" for key, kind in kinds.items() if type(line.get(key)) is not kind), None
    )


def browser_ready(path: Path) -> tuple[bytes, str]:
    """(content, type): what browsers show is sent as it is, all else is encoded as a study's media are."""
    types = {
        ".png": "image/png",
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".webp": "image/webp",
        ".mp4": "video/mp4",
        ".webm": "video/webm",
    }
    if path.suffix.lower() in types and path.is_file():
        return read_regular(path, MAX_VIDEO_BYTES), types[path.suffix.lower()]
    from sipo.annotate.media import common_target, encode, shape_of

    shape = shape_of(path)
    fps = None if shape.length is None else float(shape.fps) if shape.length.timed else 8.0
    return encode(path, common_target([shape], fps)), "image/png" if fps is None else "video/mp4"


def open_prompts(request: SoloRequest) -> list[Prompt]:
    """The prompts that have several samples, in an order drawn by the seed; one with several sources counts as several.

    Raises UserError where there is none, and for files that do not exist.
    """
    found: dict[tuple[str, Path | None], list[Path]] = defaultdict(list)
    for folder in request.folders:
        for media in find_media(folder, request.prompts):
            for sample in media.samples:
                source = Path(sample.source).resolve() if sample.source else None
                found[sample.prompt, source].append((media.path / sample.file).resolve())
    named = [file for (_, source), files in found.items() for file in [*([source] if source else []), *files]]
    missing = [str(file) for file in named if not os.path.exists(file)]
    if missing:
        raise UserError("\n  ".join([f"{len(missing)} files do not exist:", *missing[:40]]))
    several = [Prompt(text, tuple(files), source) for (text, source), files in found.items() if len(files) > 1]
    if not several:
        raise UserError("No prompt has two samples: name several folders, or generate with --images-per-prompt 8.")
    order = np.random.default_rng(request.seed).permutation(len(several))
    return [several[n] for n in order]


def run_solo(request: SoloRequest, say=print) -> str:
    """Serve the page until Ctrl-C; returns what the terminal shows then."""
    from sipo.annotate.serve import bound_socket, load_texts, run
    from sipo.annotate.web import make_app

    if request.out.suffix != ".jsonl":
        raise UsageError(f"--out: {request.out} should end in .jsonl")
    desk = SoloDesk(request, open_prompts(request), secrets.token_urlsafe(24))
    desk.read_log()
    request.out.parent.mkdir(parents=True, exist_ok=True)
    listening = bound_socket("127.0.0.1", request.port)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/a/{desk.token}/"
    several = sum(len(prompt.files) for prompt in desk.prompts)
    say(
        f"{len(desk.prompts)} prompts with {several} samples, {len(desk.lines)} of about {desk.total()} looks done. Ctrl-C stops; nothing is lost."
    )
    say(url)
    if request.browser:
        webbrowser.open(url)
    run(make_app(desk, load_texts(None)), listening)
    return f"{desk.write()} pairs from {len(desk.lines)} looks: {request.out}"
