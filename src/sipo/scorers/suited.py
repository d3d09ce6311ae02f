"""Whether scorers can judge what a model makes, told before it makes anything."""

from collections.abc import Sequence

from sipo.backbones.architecture import Architecture
from sipo.errors import UsageError
from sipo.scorers.base import FileScorer, Scorer, VideoScorer, reads_sources
from sipo.size import Size


def require_suited(key: str, scorers: Sequence[Scorer | FileScorer], architecture: Architecture, size: Size) -> None:
    """Raises UsageError for scorers, chosen at `key`, that read sources where the model makes its samples of prompts alone, and
    for those of pictures alone where it makes videos.
    """
    family = architecture.family.name
    for scorer in scorers:
        if reads_sources(scorer) and not architecture.takes_source:
            raise UsageError(
                f"{key}: {scorer.name} judges a sample by the picture that it was made of; a {family} reads none"
            )
        if size.is_video and not isinstance(scorer, VideoScorer | FileScorer):
            raise UsageError(f"{key}: {scorer.name} takes pictures; a {family} makes videos")
