"""Which scorers judge in a command, and the scores of a folder by one of them: those that are there, or new ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from sipo.errors import UsageError, UserError
from sipo.evaluate.compare.sides import is_complete
from sipo.evaluate.scores.score import Score, read_scores, score
from sipo.evaluate.scores.sources import find_media
from sipo.samples.folder import SAMPLES
from sipo.scorers.base import FileScorer, Scorer
from sipo.scorers.named import load_scorer


@dataclass(frozen=True)
class Judges:
    """Which scorers judge, and what they are made with; scores that are there already count as they are.

    weights: of a scorer, by its name; such a scorer is always asked, and its older scores kept only if they fit.
    """

    names: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    dtype: str | None = None
    batch_size: int = 16

    def scorer(self, name: str) -> Scorer | FileScorer:
        return load_scorer(name, self.weights.get(name), self.device, self.dtype)


def name_judges(
    scorers: Sequence[str], weights: Mapping[str, str], device: str | None, dtype: str | None, batch_size: int
) -> Judges:
    """`scorers` by name, each once; one that brings its weights ("pickscore=FOLDER") adds them to `weights`.

    Raises UsageError for weights named twice, or of a scorer that is not among those named (where any is).
    """
    found, given = [], dict(weights)
    for entry in scorers:
        name, equals, path = entry.partition("=")
        if equals and (name in given or not path):
            raise UsageError(f"--scorer: {entry!r} should be NAME or NAME=WEIGHTS, the weights of each once")
        if equals:
            given[name] = path
        found.append(name)
    if unknown := sorted(given.keys() - set(found)):
        raise UsageError(f"--weights: {', '.join(unknown)} is not among the scorers asked for")
    return Judges(tuple(dict.fromkeys(found)), given, device, dtype, batch_size)


def scored(
    place: Path, scorer: str, load: Callable[[str], Scorer | FileScorer], judges: Judges, console: Console
) -> list[Score]:
    """The scores of a folder: those that are there, if they are whole and no weights are given; else made by `load`."""
    is_media = (place / SAMPLES).is_file()
    if is_media and scorer not in judges.weights and is_complete(place, scorer):
        return read_scores(place, scorer)
    found = find_media(place)
    if len(found) != 1:
        raise UserError(f"{place} holds several folders of media: name one of them.")
    return score(place, load(scorer), judges.batch_size, console, found[0].samples)
