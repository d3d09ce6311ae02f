"""Samples of one policy and their scores, shared out over the processes in parts of whole batches.

FOLDER/1-of-2, FOLDER/2-of-2   a media folder each, as `sipo generate` and `sipo score` write them

The number of parts is that of the processes which began; any number of processes finishes them. A batch is the same
however many parts there are, and so are its samples.
"""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sipo.errors import UserError
from sipo.evaluate.scores.files import Score, read_scores
from sipo.evaluate.scores.score import score
from sipo.processes import Processes
from sipo.samples.folder import SAMPLES, PromptItem
from sipo.samples.generate import Sampler, TracingSampler, generate
from sipo.samples.sources import SourceSampler
from sipo.scorers.choice import ScorerChoice

Drawn = tuple[
    Sampler | TracingSampler | SourceSampler, dict[str, Any]
]  # a policy's sampler, and the settings that tell its samples from others


def sample(
    items: Sequence[PromptItem], folder: Path, open_policy: Callable[[], Drawn], batch_size: int, processes: Processes,
    console: Console,
) -> None:  # fmt: skip
    """Make what `folder` lacks of the samples of `items`. The policy is opened where some are missing."""
    parts = _parts(folder, processes)
    mine = parts[processes.rank :: processes.world]
    wanted = {
        part: items_of(items, number, len(parts), batch_size) for number, part in enumerate(parts) if part in mine
    }
    if any(_num_samples(part) < len(chosen) for part, chosen in wanted.items()):
        sampler, settings = open_policy()
        for part, chosen in wanted.items():
            if chosen:
                generate(sampler, chosen, part, settings, batch_size, console)
        del sampler
        _free()
    processes.barrier()


def score_all(folder: Path, choice: ScorerChoice, processes: Processes, console: Console) -> list[tuple[Path, Score]]:
    """Score what has no score yet; every sample's folder and score, in the order of the samples.

    Raises UserError, in every process, where a sample has no score.
    """
    (scorer,), parts = choice.load_all(), _parts(folder, processes)
    for part in parts[processes.rank :: processes.world]:
        if (part / SAMPLES).is_file():
            score(part, scorer, choice.batch_size, console)
    name = scorer.name
    del scorer
    _free()
    processes.barrier()
    scores = [(part, each) for part in parts if (part / SAMPLES).is_file() for each in read_scores(part, name)]
    if failed := [(part / each.sample.file, each.error) for part, each in scores if each.error]:
        raise UserError(f"{len(failed)} samples have no score by {name}; the first: {failed[0][0]}: {failed[0][1]}")
    return scores


def items_of(items: Sequence[PromptItem], part: int, parts: int, batch_size: int) -> Sequence[PromptItem]:
    """The items of one part: whole batches, as equally many as can be."""
    batches = -(-len(items) // batch_size)
    return items[batch_size * (batches * part // parts) : batch_size * (batches * (part + 1) // parts)]


def _parts(folder: Path, processes: Processes) -> list[Path]:
    """The folder's parts, which the first process to come makes."""
    if processes.is_main:
        begun = [path.name for path in folder.glob("*-of-*")]
        count = int(begun[0].partition("-of-")[2]) if begun else processes.world
        for number in range(count):
            (folder / f"{number + 1}-of-{count}").mkdir(parents=True, exist_ok=True)
    processes.barrier()
    return sorted(folder.glob("*-of-*"), key=lambda path: int(path.name.partition("-of-")[0]))


def _num_samples(part: Path) -> int:
    return (part / SAMPLES).read_bytes().count(b"\n") if (part / SAMPLES).is_file() else 0


def _free() -> None:
    """Give the memory of a network back, which the next phase needs."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
