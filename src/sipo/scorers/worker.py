"""A reward model that lives in an environment of its own: an external command that reads and writes JSON Lines.

    COMMAND ... --requests REQUESTS.jsonl --scores SCORES.jsonl

A line of the requests is `{"id", "file", "prompt"}`: id counts from 0, file is an absolute path of a picture or video.
The command answers every request with one line, in any order: `{"id", "score", ...}`, whose other keys are kept as
details, or `{"id", "error"}` for a file that it cannot judge. Higher is better. It exits with 0; what it prints is shown
if it does not.
"""

import json
import math
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sipo.errors import UsageError, UserError
from sipo.jsonl import dump_jsonl, read_jsonl
from sipo.scorers.base import Medium, Metadata, recorded

BUNDLED = Path(__file__).with_name("workers")  # `@name` in a command is the script name.py in here
TAIL = 20  # lines of a failed command's output that are shown


@dataclass(frozen=True)
class WorkerScorer:
    """A `FileScorer` that runs `command` (words as in a shell; no shell runs them), `batch_size` files a start.

    Starting a worker loads its model, so batches are large. `@videoreward` in the command stands for the script of that
    name in the package. Raises UsageError for a command that does not parse.
    """

    name: str
    command: str
    batch_size: int = 256

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
        """A mapping each, with a finite `score` or an `error`. UserError if the command fails or skips one."""
        with tempfile.TemporaryDirectory(prefix="sipo-worker-") as folder:
            requests, scores = Path(folder) / "requests.jsonl", Path(folder) / "scores.jsonl"
            rows = [
                {"id": i, "file": str(Path(file).resolve()), "prompt": prompt}
                for i, (file, prompt) in enumerate(zip(files, prompts, strict=True))
            ]
            requests.write_text(dump_jsonl(rows), encoding="utf-8")
            self._run([*self.words(), "--requests", str(requests), "--scores", str(scores)])
            if not scores.is_file():
                raise UserError(f"worker {self.name}: {self.command!r} succeeded but wrote no scores")
            return self._answers(read_jsonl(scores), len(rows))

    def _run(self, words: list[str]) -> None:
        try:
            done = subprocess.run(
                words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
            )
        except OSError as error:
            raise UserError(f"worker {self.name}: {words[0]} cannot be run: {error}") from error
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-TAIL:])
            raise UserError(f"worker {self.name}: {shlex.join(words)} failed with {done.returncode}:\n{tail}")

    def _answers(self, lines: list[dict], count: int) -> list[dict]:
        answers = {line.get("id"): line for line in lines}
        if len(lines) != count or set(answers) != set(range(count)):
            raise UserError(
                f"worker {self.name}: {count} requests, with ids from 0 to {count - 1}, and {len(lines)} lines of answers; "
                "expected one of each id"
            )
        found = [{key: value for key, value in answers[i].items() if key != "id"} for i in range(count)]
        for i, answer in enumerate(found):
            if "error" in answer:
                answer["error"] = str(answer["error"])
            elif isinstance(answer.get("score"), bool) or not _is_number(answer.get("score")):
                said = json.dumps(answers[i], default=str)[:200]
                raise UserError(f"worker {self.name}: expected a finite number under score, or an error, found {said}")
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _bundled(word: str) -> str:
    path = BUNDLED / f"{word[1:]}.py"
    if not path.is_file():
        known = ", ".join(sorted(f"@{file.stem}" for file in BUNDLED.glob("*.py") if file.stem != "__init__"))
        raise UsageError(f"{word}: the package has no worker of that name; it has {known}")
    return str(path)
