"""The miniature's preference score: is the picture right, and how clean is it.

    score = correctness + cleanliness                      in [0, 2]
    correctness = 1 if GenEval's rules accept the detections for the prompt, else 0
    cleanliness = exp(-rms / 16)

`rms` is the root mean square difference, in 8-bit levels, between the picture and its own ideal: the detected objects
redrawn as exact shapes of the same place and size, each in one flat colour, on one flat background. Noise, blur, dents, stray blobs and objects
too deformed to be detected (they are not redrawn) all add to it. So a right picture always beats a wrong one, and of
two right or two wrong ones the cleaner wins.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from sipo.errors import UserError, shown
from sipo.geneval.rules import judge
from sipo.mini.detector import Blob, background_color, detections_of, find_blobs, to_array
from sipo.mini.wording import parse
from sipo.mini.world import silhouette
from sipo.samples.metadata import clauses_fault
from sipo.scorers.base import Medium, Metadata, one_picture

RMS_SCALE = 16.0


@dataclass(frozen=True)
class MiniatureScorer:
    """Correctness by GenEval's rules plus cleanliness, 0 to 2; pictures of the miniature's world."""

    name: str = "miniature"

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return [entry["score"] for entry in self.details(media, prompts, metadata)]

    def details(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[dict]:
        """Per picture: `score`, `correct` (bool), `cleanliness`, `reasons` (what the judge found wrong).

        Where metadata is None or names no objects, the prompt is parsed instead. Raises `UserError` for a prompt that
        is neither described by metadata nor in the world's wording.
        """
        known = metadata or [None] * len(prompts)
        images = map(one_picture, media)
        return [_details(*entry) for entry in zip(images, prompts, known, strict=True)]


def _details(image: Image.Image, prompt: str, metadata: dict | None) -> dict:
    wanted = metadata if metadata and "include" in metadata else parse(prompt)
    if wanted and wanted is metadata and (fault := clauses_fault(wanted)):
        raise UserError(f"the metadata of {shown(prompt)} cannot be judged: {fault}")
    if wanted is None:
        raise UserError(
            f"The miniature's score cannot judge the prompt {prompt!r}: it knows prompts such as "
            '"a photo of a red circle and a blue star", or metadata in GenEval\'s schema.'
        )
    pixels = to_array(image)
    blobs = find_blobs(pixels)
    judgement = judge(wanted, detections_of(blobs))
    clean = cleanliness(pixels, blobs)
    return {
        "score": float(judgement.correct) + clean,
        "correct": judgement.correct,
        "cleanliness": clean,
        "reasons": list(judgement.reasons),
    }


def cleanliness(pixels: np.ndarray, blobs: list[Blob]) -> float:
    """exp(-rms / 16) for (64, 64, 3) pixels in [0, 255]: 1 is exactly flat and exactly shaped."""
    ideal = np.broadcast_to(background_color(pixels), pixels.shape).copy()
    for blob in blobs:
        if blob.is_object:
            share = silhouette(blob.shape, fitted_box(blob))[..., None]
            ideal = ideal * (1 - share) + blob.rgb * share
    return float(np.exp(-np.sqrt(np.mean((pixels - ideal) ** 2)) / RMS_SCALE))


def fitted_box(blob: Blob) -> tuple[float, float, float, float]:
    """The box, to a fraction of a pixel, in which the ideal shape has the blob's own centre and spread on each axis."""
    box = []
    for axis, (center, spread) in enumerate(_moments(blob.shape)):
        mean, deviation = _moments_of(blob.coverage.sum(axis=axis))
        length = deviation / spread
        box.append((mean - center * length, mean + (1 - center) * length))
    (x0, x1), (y0, y1) = box
    return x0, y0, x1, y1


@cache
def _moments(shape: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """(mean, standard deviation) of the ideal shape in a unit box, along x and along y."""
    ideal = silhouette(shape, (0, 0, 256, 256), 256, 256)
    (x, dx), (y, dy) = (_moments_of(ideal.sum(axis=axis)) for axis in (0, 1))
    return (x / 256, dx / 256), (y / 256, dy / 256)


def _moments_of(profile: np.ndarray) -> tuple[float, float]:
    places = np.arange(len(profile)) + 0.5  # pixel centres
    mean = float((profile * places).sum() / profile.sum())
    return mean, float(np.sqrt((profile * (places - mean) ** 2).sum() / profile.sum()))
