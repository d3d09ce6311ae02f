"""A reward model that lives in an environment of its own: an external command that reads and writes JSON Lines.

    COMMAND ... --requests REQUESTS.jsonl --scores SCORES.jsonl

A line of the requests is `{"id", "file", "prompt"}`: id counts from 0, file is an absolute path of a picture or video.
The command answers every request with one line, in any order: `{"id", "score", ...}`, whose other keys are kept as
details, or `{"id", "error"}` for a file that it cannot judge. Higher is better. It exits with 0; what it prints is shown
if it does not. One that neither prints nor answers for an hour (`patience`) is ended.

What it has answered is kept whatever happens then: files without a usable answer get an error. Only where there is no
usable answer at all, or where it is unclear which file an answer is for, there is nothing to keep.
"""

import contextlib
import json
import math
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sipo.errors import UsageError, UserError, printable, shown
from sipo.files import read_regular
from sipo.jsonl import dump_jsonl
from sipo.processes import environment_of_programs
from sipo.scorers.base import Medium, Metadata, recorded

BUNDLED = Path(__file__).with_name("workers")  # `@name` in a command is the script name.py in here
TAIL = 20  # lines of a failed command's output that are shown
PATIENCE = 3600.0
MOST_ANSWER = 2**20  # bytes of an answer, with its details
HEAD = ("id", "file", "prompt", "hash", "scorer")  # of requests and of lines of scores: no details


@dataclass(frozen=True)
class WorkerScorer:
    """A `FileScorer` that runs `command` (words as in a shell; no shell runs them), `batch_size` files a start.

    Starting a worker loads its model, so batches are large. `@videoreward` in the command stands for the script of that
    name in the package. patience: seconds without a line of output and without an answer, after which it is ended.
    Raises UsageError for a command that does not parse.
    """

    name: str
    command: str
    batch_size: int = 256
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        if not self.name or set(self.name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"):
            raise UsageError(f"worker: the name {self.name!r} should be letters, digits, dots, dashes")
        self.words()

    @property
    def settings(self) -> dict[str, Any]:
        return recorded(self)

    def words(self) -> list[str]:
        """The command as it is run. Raises UsageError."""
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise UsageError(f"worker {self.name}: the command {self.command!r} does not parse: {error}") from error
        if not words:
            raise UsageError(f"worker {self.name}: the command is empty")
        return [_bundled(word) if word.startswith("@") else word for word in words]

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        raise TypeError(f"the worker {self.name} reads files: score a folder with it")

    def score_files(self, files: list[Path], prompts: list[str]) -> list[dict]:
        """A mapping each, with a finite `score` or an `error`.

        Raises UserError where the command cannot be run, or gives no usable answer, or others than asked for.
        """
        with tempfile.TemporaryDirectory(prefix="sipo-worker-") as folder:
            requests, scores = Path(folder) / "requests.jsonl", Path(folder) / "scores.jsonl"
            rows = [
                {"id": i, "file": str(Path(file).resolve()), "prompt": prompt}
                for i, (file, prompt) in enumerate(zip(files, prompts, strict=True))
            ]
            requests.write_bytes(dump_jsonl(rows).encode("utf-8", "backslashreplace"))
            failure = self._run([*self.words(), "--requests", str(requests), "--scores", str(scores)], scores)
            try:
                content = read_regular(scores, MOST_ANSWER * len(rows)) if scores.exists() else b""
            except UserError as error:
                raise UserError(f"worker {self.name}: {error}") from error
            return self._answers(content, len(rows), failure)

    def _run(self, words: list[str], scores: Path) -> str | None:
        """Run the command to its end; why it failed, or None."""
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", start_new_session=True, env=environment_of_programs(),
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise UserError(f"worker {self.name}: {printable(words[0])} cannot be run: {error}") from error
        assert process.stdout is not None
        output = _Output(process.stdout)
        try:
            while process.poll() is None:
                output.answered(scores)
                if output.silence > self.patience:
                    return f"gave neither output nor an answer for {self.patience:,.0f} seconds{output.tail(1)}"
                time.sleep(0.05)
        finally:
            _end(process)
        output.close()
        return f"failed with {process.returncode}{output.tail(TAIL)}" if process.returncode else None

    def _answers(self, content: bytes, count: int, failure: str | None) -> list[dict]:
        """Of each request the score with its details, or an error. failure: of the command. Raises UserError."""
        found: dict[int, dict] = {}
        faults: dict[object, str] = {}  # by id, or by line where there is none
        for number, line in enumerate(content.split(b"\n"), start=1):
            if not line.strip():
                continue
            answer, fault = _answer(line)
            key = answer.get("id")
            if isinstance(key, bool) or not isinstance(key, int):
                key, fault = f"line {number}", fault or "without a number under id"
            if fault or isinstance(key, str):
                faults[key] = f"line {number} of its answers is {fault}: {_start(line)}"
            elif key in found or not 0 <= key < count:
                what = "two answers" if key in found else "an answer"
                raise UserError(
                    f"worker {self.name}: it gave {what} for the id {shown(key, 40)}; there were {count} requests, with ids "
                    f"from 0 to {count - 1}, and one answer is for each"
                )
            else:
                found[key] = {name: value for name, value in answer.items() if name not in HEAD}
        first = next(iter(faults.values()), "it gave no answer for this file")
        if count and not found:
            raise UserError(f"worker {self.name}: {shlex.join(self.words())} {failure or 'succeeded'}\n{first}")
        reason = f"the worker {failure}" if failure else first
        return [found.get(i) or {"error": printable(faults.get(i, reason))} for i in range(count)]


class _Output:
    """The last lines that a command has printed, read as it prints; and for how long it has been silent."""

    def __init__(self, stream: IO[str]):
        self.stream, self.lines = stream, deque[str](maxlen=TAIL)
        self.heard, self.size = time.monotonic(), 0
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed
            while line := self.stream.readline(2000):
                self.lines.append(line.rstrip())
                self.heard = time.monotonic()

    def answered(self, scores: Path) -> None:
        """An answer is a sign of life too."""
        with contextlib.suppress(OSError):
            if (size := scores.stat().st_size) != self.size:
                self.size, self.heard = size, time.monotonic()

    @property
    def silence(self) -> float:
        return time.monotonic() - self.heard

    def tail(self, count: int) -> str:
        """The end of a sentence: the last lines, or that there are none."""
        lines = [line for line in self.lines if line][-count:]
        return ":\n" + "\n".join(map(printable, lines)) if lines else ", and printed nothing"

    def close(self) -> None:
        """Read to the end; what the command has left running may hold the stream."""
        self.thread.join(2)


def _end(process: subprocess.Popen) -> None:
    """End the command and whatever it has started."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _answer(line: bytes) -> tuple[dict, str | None]:
    """A line of the answers, and why it cannot be used; {} where it is no JSON object."""
    answer: Any = {}
    try:
        answer = json.loads(line)
        if not isinstance(answer, dict):
            return {}, "no JSON object"
        if "error" in answer:
            return {"id": answer.get("id"), "error": _text(answer["error"])}, None
        if not _is_number(answer.get("score")):
            return answer, "without a finite number under score"
        dump_jsonl([answer])
    except RecursionError:
        return {}, "nested too deeply"
    except UnicodeDecodeError:
        return {}, "not UTF-8"
    except ValueError as error:  # of details, which the score files could not hold, or of the line
        return (
            ({}, f"not JSON ({error})") if isinstance(error, json.JSONDecodeError) else (answer, f"no JSON ({error})")
        )
    return answer, None


def _text(value: object) -> str:
    return printable(value if isinstance(value, str) else shown(value))[:2000]


def _start(line: bytes) -> str:
    return printable(line[:200].decode(errors="replace"))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    with contextlib.suppress(OverflowError):
        return math.isfinite(value)
    return False


def _bundled(word: str) -> str:
    path = BUNDLED / f"{word[1:]}.py"
    if not path.is_file():
        known = ", ".join(sorted(f"@{file.stem}" for file in BUNDLED.glob("*.py") if file.stem != "__init__"))
        raise UsageError(f"{word}: the package has no worker of that name; it has {known}")
    return str(path)
