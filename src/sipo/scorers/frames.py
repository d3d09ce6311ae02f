"""Pictures' scorers on videos: the mean over a few frames."""

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sipo.errors import UsageError
from sipo.scorers.base import ConfiguredScorer, Medium, Metadata, Scorer, reads_sources


@dataclass(frozen=True)
class FrameMean:
    """The mean of `scorer` over `num_frames` evenly spaced frames of a video; a picture's score is its own.

    It does not see motion. The name stays the scorer's, so a folder of videos has a `scores.pickscore.jsonl` too.
    """

    scorer: Scorer
    num_frames: int = 8

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise UsageError(f"frames: {self.num_frames} must be at least 1")

    @property
    def name(self) -> str:
        return self.scorer.name

    @property
    def settings(self) -> dict[str, Any]:
        inner = self.scorer.settings if isinstance(self.scorer, ConfiguredScorer) else {}
        return {**inner, "num_frames": self.num_frames}

    @property
    def reads_sources(self) -> bool:
        return reads_sources(self.scorer)

    def __call__(
        self, media: list[Medium], prompts: list[str], metadata: Metadata = None, **sources: list[Image.Image]
    ) -> list[float]:
        chosen = [self._frames(medium) for medium in media]
        known = metadata or [None] * len(media)
        rows = [(frame, i) for i, frames in enumerate(chosen) for frame in frames]
        scores = self.scorer(
            [frame for frame, _ in rows],
            [prompts[i] for _, i in rows],
            [known[i] for _, i in rows] if metadata else None,
            **{key: [pictures[i] for _, i in rows] for key, pictures in sources.items()},
        )
        found: list[list[float]] = [[] for _ in media]
        for (_, i), value in zip(rows, scores, strict=True):
            found[i].append(value)
        return [math.fsum(values) / len(values) for values in found]

    def _frames(self, medium: Medium) -> list[Image.Image]:
        if isinstance(medium, Image.Image):
            return [medium]
        return [medium[place] for place in evenly_spaced(len(medium), self.num_frames)]


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """`wanted` indices below `count`, the first and the last included; all if there are fewer; the middle one for one."""
    if count < 1:
        raise ValueError("a video without frames")
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count // 2]
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)]
