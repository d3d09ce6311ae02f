"""The video miniature's preference score: is the clip right, and how clean is it.

    score = correctness + cleanliness                      in [0, 2]
    correctness = 1 if `sipo.mini.video.rules.judge` accepts the clip for the prompt, else 0
    cleanliness = exp(-rms / 16)

`rms` is the root mean square difference, in 8-bit levels and over all frames, between the clip and its own ideal: each
thing that is followed through the clip redrawn in one shape, one size and one flat colour, moving at one velocity, on
one flat background. What flickers, jumps or smears adds to it, and so does whatever the still miniature counts. Where the
number of things is not the same in all frames, none is followed: the ideal is then the frames' own things, each
redrawn where it stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sipo.errors import UserError, shown
from sipo.geneval.rules import Box
from sipo.mini.detector import Blob, background_color, to_array
from sipo.mini.score import RMS_SCALE
from sipo.mini.video.clips import FRAMES
from sipo.mini.video.detector import Seen, find_objects, follow, see
from sipo.mini.video.rules import judge, mostly
from sipo.mini.video.wording import parse
from sipo.mini.world import silhouette
from sipo.samples.metadata import clauses_fault
from sipo.scorers.base import Medium, Metadata


@dataclass(frozen=True)
class VideoMiniatureScorer:
    """Correctness by rules of shape, colour and motion plus cleanliness, 0 to 2; clips of the moving world."""

    name: str = "miniature-video"
    num_frames: int = FRAMES

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return [entry["score"] for entry in self.details(media, prompts, metadata)]

    def details(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[dict]:
        """Per clip: `score`, `correct` (bool), `cleanliness`, `reasons` (what the judge found wrong).

        Where metadata is None or names no things, the prompt is parsed instead. Raises `UserError` for a prompt that
        is neither described by metadata nor in the world's wording, and for a picture.
        """
        known = metadata or [None] * len(prompts)
        return [_details(*entry) for entry in zip(media, prompts, known, strict=True)]


def _details(frames: Medium, prompt: str, metadata: dict | None) -> dict:
    wanted = metadata if metadata and "include" in metadata else parse(prompt)
    if wanted and wanted is metadata and (fault := clauses_fault(wanted)):
        raise UserError(f"the metadata of {shown(prompt)} cannot be judged: {fault}")
    if wanted is None:
        raise UserError(
            f"The video miniature's score cannot judge the prompt {prompt!r}: it knows prompts such as "
            '"a video of a red circle moving slowly left", or metadata of its own schema.'
        )
    if isinstance(frames, Image.Image):
        raise UserError("The video miniature's score judges videos, not pictures.")
    blobs = find_objects(frames)
    found = [see(each) for each in blobs]
    judgement = judge(wanted, found)
    clean = cleanliness(frames, blobs, found)
    return {
        "score": float(judgement.correct) + clean,
        "correct": judgement.correct,
        "cleanliness": clean,
        "reasons": list(judgement.reasons),
    }


def cleanliness(frames: Sequence[Image.Image], blobs: list[list[Blob]], found: list[list[Seen]]) -> float:
    """exp(-rms / 16) over all frames; `found` is what is seen in the objects `blobs` of each frame."""
    pixels = np.stack([to_array(frame) for frame in frames])
    ground = np.median([background_color(frame) for frame in pixels], axis=0)
    ideal = np.broadcast_to(ground, pixels.shape).copy()
    for frame, shape, box, rgb in _ideal_things(blobs, found):
        share = silhouette(shape, box)[..., None]
        ideal[frame] = ideal[frame] * (1 - share) + rgb * share
    return float(np.exp(-np.sqrt(np.mean((pixels - ideal) ** 2)) / RMS_SCALE))


def _ideal_things(blobs: list[list[Blob]], found: list[list[Seen]]) -> Iterator[tuple[int, str, Box, np.ndarray]]:
    """Frame, shape, box and colour of everything that is redrawn."""
    tracks = follow(found)
    if tracks is None:
        for frame, things in enumerate(found):
            yield from (
                (frame, each.shape, each.box, blob.rgb) for each, blob in zip(things, blobs[frame], strict=True)
            )
        return
    for track in tracks:
        things = [found[frame][place] for frame, place in enumerate(track)]
        shape = mostly(things, "shape")
        half = np.median([np.subtract(each.box[2:], each.box[:2]) for each in things], axis=0) / 2
        rgb = np.median([blobs[frame][place].rgb for frame, place in enumerate(track)], axis=0)
        when = np.arange(len(things))
        at, per_frame = np.polynomial.polynomial.polyfit(when, [each.center for each in things], 1)
        for frame in when:
            x, y = at + frame * per_frame
            yield int(frame), shape, (x - half[0], y - half[1], x + half[0], y + half[1]), rgb
