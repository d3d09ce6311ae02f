"""Running what a study lacks: a process a run, several at once, stopped and continued at will."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.text import Text

from sipo.config import Config
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.jsonl import read_json
from sipo.rounds.config import OnlineConfig, require_same
from sipo.rounds.report import record_of
from sipo.run import RunDir
from sipo.studies.grid import Cell, Study
from sipo.yaml12 import write_yaml

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # as Ctrl-C
DONE = "study.json"  # in a run directory: written last, when the run is trained and scored


@dataclass
class Job:
    cell: Cell
    process: subprocess.Popen
    log: Path
    started: float


def is_done(study: Study, cell: Cell) -> bool:
    """Trained with these settings, for all rounds that these are, and scored by this scorer.

    Raises UsageError where the directory holds another run.
    """
    run = RunDir(cell.path)
    if not (run.path / DONE).is_file():
        return False
    if isinstance(cell.config, OnlineConfig):
        require_same(cell.config)
        if record_of(cell.path, cell.config.rounds.num_rounds) is None:  # it was finished with fewer rounds
            return False
    else:
        run.require_same_config(cell.config, has_checkpoint=True)
    return read_json(run.path / DONE).get("scorer") == study.measure.scorer


def missing(cells: Sequence[Cell], done: Collection[Cell]) -> list[Cell]:
    """The cells to run. Of several that differ in nothing but where they lie in the grid, the first runs for all."""

    def settings(cell: Cell) -> str:
        return json.dumps({**cell.config.to_dict(), "run": None}, sort_keys=True)

    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(settings(cell), cell)
    finished = {settings(cell) for cell in done}
    return [cell for key, cell in first.items() if key not in finished]


def run_missing(
    study: Study,
    cells: Sequence[Cell],
    done: Collection[Cell],
    jobs: int,
    console: Console,
    finished: Callable[[], object],
) -> None:
    """Train and score every cell that is `missing`, `jobs` at once. Raises UserError when one fails, after the others end.

    `finished` is called after every run. Ctrl-C, SIGTERM or SIGHUP end the processes, which save; the same command continues them.
    """
    waiting = missing(cells, done)
    total = len(waiting)
    if waiting:
        console.print(f"{len(done)} of {len(cells)} runs are done; {total} to run, {jobs} at once, logs beside them")
    with _interruptible():
        _encode_caches(waiting, console)
        failed = _run(study, cells, waiting, jobs, console, finished)
    if failed:
        raise UserError(
            f"{len(failed)} of {total} runs failed; the first: {failed[0].log}:\n{_last_lines(failed[0].log)}"
        )


def _run(
    study: Study,
    cells: Sequence[Cell],
    waiting: list[Cell],
    jobs: int,
    console: Console,
    finished: Callable[[], object],
) -> list[Job]:
    """Run all `waiting` ones of the study's cells; returns those that failed."""
    running, failed, seconds, total = [], [], [], len(waiting)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running.append(_start(study, cell, base_samples(cell, cells)))
                console.print(f"running {cell.path.name}, {running[-1].log}", highlight=False, markup=False)
            time.sleep(0.2)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                if job.process.returncode:
                    failed.append(job)
                    console.print(Text.assemble(("failed", "red"), f": {job.cell.path.name}, see {job.log}"))
                    continue
                seconds.append(time.time() - job.started)
                _mark_done(study, job)
                finished()
                left = len(waiting) + len(running)
                expected = f", about {_clock(left * median(seconds) / jobs)} left" if left else ""
                console.print(
                    f"{total - left}/{total} {job.cell.path.name} in {_clock(seconds[-1])}{expected}", highlight=False
                )
    finally:
        for job in running:
            job.process.terminate()
        for job in running:
            job.process.wait()
    return failed


@contextmanager
def _interruptible() -> Iterator[None]:
    """In this context SIGTERM and SIGHUP act as Ctrl-C does, so that no process that was started is left behind."""
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _encode_caches(cells: Sequence[Cell], console: Console) -> None:
    """Fill the caches that the cells share, one after the other, before several runs would fill one at once."""
    shared = [cell for cell in cells if isinstance(cell.config, Config)]  # every round has a cache of its own
    first_of = {cell.training.data.cache: cell for cell in reversed(shared) if cell.training.data.cache is not None}
    for cache, cell in first_of.items():
        config, log = _write_config(cell)
        console.print(f"encoding into {cache}, where it is not encoded yet", highlight=False, markup=False)
        process = _launch([sys.executable, "-m", "sipo", "data", "encode", str(config)], log)
        try:
            code = process.wait()
        finally:
            process.terminate()  # does nothing once it has ended
        if code:
            raise UserError(f"the pairs could not be encoded into {cache}: {log}:\n{_last_lines(log)}")


def base_samples(cell: Cell, cells: Sequence[Cell]) -> Path | None:
    """The samples, with their scores, that a finished run of the same base drew before its first step."""

    def drawn_by(config: Config) -> tuple:
        return config.model, config.data, config.policy, config.sample

    for other in cells:
        run = RunDir(other.path)
        if (
            drawn_by(other.training) == drawn_by(cell.training)
            and (run.path / DONE).is_file()
            and 0 in run.sample_steps()
        ):
            return run.samples_at(0)
    return None


def _start(study: Study, cell: Cell, base_samples: Path | None) -> Job:
    config, log = _write_config(cell)
    command = [sys.executable, "-m", "sipo.studies.one", str(config), study.measure.scorer]
    command += [str(base_samples)] if base_samples else []
    return Job(cell, _launch(command, log), log, time.time())


def _write_config(cell: Cell) -> tuple[Path, Path]:
    """Beside the run directory: its config, and where its output goes."""
    folder = cell.path
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = folder.with_name(f"{folder.name}.yaml")
    write_atomic(config, write_yaml(cell.config.to_dict()))
    return config, folder.with_name(f"{folder.name}.log")


def _launch(command: Sequence[str], log: Path) -> subprocess.Popen:
    with log.open("a", encoding="utf-8") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # In a session of its own: Ctrl-C reaches the study alone, whose one SIGTERM lets a training save and stop.
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def _mark_done(study: Study, job: Job) -> None:
    record = {"labels": dict(job.cell.labels), "seed": job.cell.seed, "scorer": study.measure.scorer,
              "seconds": time.time() - job.started}  # fmt: skip
    write_atomic(job.cell.path / DONE, json.dumps(record, indent=1))


def _last_lines(log: Path, count: int = 5) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe(study: Study, cells: Sequence[Cell], done: Collection[Cell], seconds: Sequence[float], jobs: int) -> str:
    """What `--dry-run` prints: the runs, which of them are done, in how many seconds, and how long the others will take."""
    to_run = missing(cells, done)
    states = ["to run" if cell in to_run else "done" if cell in done else "shared" for cell in cells]
    lines = [f"{state:7} {cell.path.name}" for state, cell in zip(states, cells, strict=True)]
    left = len(to_run)
    if not left:
        time_left = "nothing to run"
    elif seconds:
        time_left = (
            f"about {_clock(left * median(seconds) / jobs)} with --jobs {jobs}, at {_clock(median(seconds))} a run"
        )
    else:
        time_left = "its time is not known before one run has finished"
    size = f"{len(cells)} runs of {' or '.join(sorted({cell.length for cell in cells}))}"
    return "\n".join([f"{study.name}: {study.title}", *lines, f"{size}, {left} to run: {time_left}"])
