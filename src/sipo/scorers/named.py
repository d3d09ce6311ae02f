"""Scorers by name, for the commands: the miniature's own, those of `sipo.scorers`, and those of other environments."""

from collections.abc import Mapping, Sequence

from sipo.errors import UsageError
from sipo.scorers.base import FileScorer, Scorer


def load_scorer(
    name: str,
    weights: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    num_frames: int = 8,
) -> Scorer:
    """A scorer by name: "miniature", or one of `sipo.scorers.registry`, which takes the mean over a video's frames.

    The name may bring its weights: "pickscore=FOLDER".
    None leaves a setting at the scorer's own default; the miniature has none. Raises UsageError for an unknown name or
    setting. Weights are read when they are first needed.
    """
    name, _, inline = name.partition("=")
    weights = weights or inline or None
    given = {"weights": weights, "device": device, "dtype": dtype, "batch_size": batch_size}
    settings = {key: value for key, value in given.items() if value is not None}
    if name == "miniature":
        from sipo.mini.score import MiniatureScorer

        if weights is not None:
            raise UsageError("the scorer miniature judges by rule and takes no weights")
        return MiniatureScorer()
    from sipo.scorers.frames import FrameMean
    from sipo.scorers.registry import SCORERS

    if name not in SCORERS:
        raise UsageError(f"scorer {name!r} is none of miniature, {', '.join(SCORERS)}")
    return FrameMean(SCORERS[name](**settings), num_frames)


def load_scorers(
    names: Sequence[str],
    weights: Mapping[str, str],
    workers: Mapping[str, str],
    device: str | None,
    dtype: str | None,
    batch_size: int,
    num_frames: int,
) -> list[Scorer | FileScorer]:
    """The scorers of `names`, then those of `workers` (name -> command). Raises UsageError, also where none is named."""
    from sipo.scorers.worker import WorkerScorer

    if not names and not workers:
        raise UsageError("--scorer: name at least one, such as --scorer pickscore")
    if unknown := sorted(weights.keys() - set(names)):
        raise UsageError(f"--weights: {', '.join(unknown)} is not among the scorers asked for")
    if twice := sorted(workers.keys() & set(names)):
        raise UsageError(f"--worker: {', '.join(twice)} is a --scorer too; choose another name")
    named = [load_scorer(n, weights.get(n), device, dtype, batch_size, num_frames) for n in dict.fromkeys(names)]
    return [*named, *(WorkerScorer(name, command) for name, command in workers.items())]
