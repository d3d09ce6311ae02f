"""Run online rounds in processes of their own, one or two, so that they can be killed in every phase."""

import os
import signal
import sys
from pathlib import Path

from support.runs import QUIET, context, on_two_ports

from sipo.rounds.config import parse_online
from sipo.rounds.loop import run_rounds

PHASES = {  # of a round -> the file at whose writing it is killed
    "sampling": "round-002/samples/1-of-1/.00003.png",
    "scoring": "round-002/samples/1-of-1/scores.brightness.jsonl",
    "pairing": "round-002/.pairs.jsonl",
    "before training": "round-002/run/.config.yaml",
    "training": "round-002/run/checkpoints/.000004.tmp",
    "writing the weights": "round-002/run/.weights.tmp",
    "held-out sampling": "round-002/held-out/1-of-1/.00001.png",
    "held-out scoring": "round-002/held-out/1-of-1/scores.brightness.jsonl",
    "recording": "round-002/.round.json",
}


def play(raw: dict) -> Path:
    return run_rounds(parse_online(raw), QUIET)


def play_in_process(raw: dict, kill_at: str | None = None) -> int:
    """The exit code of the rounds in a process of their own, killed when it first opens a file of that beginning."""
    process = context.Process(target=one_of, args=(raw, 0, 1, 0, kill_at))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the rounds hang"
    return process.exitcode


def play_in_two(raw: dict) -> list[int]:
    processes = [context.Process(target=one_of, args=(raw, *place, None)) for place in on_two_ports()]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert all(process.exitcode is not None for process in processes), "the rounds hang"
    return [process.exitcode for process in processes]


def one_of(raw: dict, rank: int, world: int, port: int, kill_at: str | None) -> None:
    from support.runs import as_rank

    as_rank(rank, world, port)
    if kill_at:
        beginning = str(Path(raw["run"]) / kill_at)

        def watch(event: str, arguments: tuple) -> None:
            if event in ("open", "os.mkdir") and str(arguments[0]).startswith(beginning):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
    play(raw)
