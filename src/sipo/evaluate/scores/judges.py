"""The scores of a folder by one of the chosen scorers: existing ones, or new ones."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from sipo.errors import UserError
from sipo.evaluate.compare.sides import is_complete
from sipo.evaluate.scores.score import Score, read_scores, score
from sipo.evaluate.scores.sources import find_media
from sipo.samples.folder import SAMPLES
from sipo.scorers.base import FileScorer, Scorer
from sipo.scorers.choice import ScorerChoice


def scored(
    place: Path, scorer: str, load: Callable[[str], Scorer | FileScorer], judges: ScorerChoice, console: Console
) -> list[Score]:
    """The scores of a folder: those that are there, if they are whole and no weights are given; else made by `load`."""
    is_media = (place / SAMPLES).is_file()
    if is_media and scorer not in judges.weights and is_complete(place, scorer):
        return read_scores(place, scorer)
    found = find_media(place)
    if len(found) != 1:
        raise UserError(f"{place} holds several folders of media: name one of them.")
    return score(place, load(scorer), judges.batch_size, console, found[0].samples)
