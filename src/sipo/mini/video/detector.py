"""Finds the shapes in every frame by the still world's rules, and follows each of them through the clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.optimize import linear_sum_assignment

from sipo.mini.detector import MIN_AREA, Blob, find_blobs, name_color, to_array
from sipo.mini.score import fitted_box

THRESHOLD = 0.6
"""Least overlap with an ideal silhouette at which a blob counts as an object: video files blur the edges of colours."""


@dataclass(frozen=True)
class Seen:
    """A thing in one frame: its shape, its colour, and the box (x0, y0, x1, y1) of its outline in pixels."""

    shape: str
    color: str
    box: tuple[float, float, float, float]

    @property
    def center(self) -> np.ndarray:
        return np.array([self.box[0] + self.box[2], self.box[1] + self.box[3]]) / 2


def find_objects(frames: Sequence[Image.Image]) -> list[list[Blob]]:
    """The objects of every frame."""
    blobs = (find_blobs(to_array(frame)) for frame in frames)
    return [[blob for blob in each if blob.fit >= THRESHOLD and blob.area >= MIN_AREA] for each in blobs]


def see(blobs: Sequence[Blob]) -> list[Seen]:
    return [Seen(blob.shape, name_color(blob.rgb), fitted_box(blob)) for blob in blobs]


def follow(found: Sequence[Sequence[Seen]]) -> np.ndarray | None:
    """(things, frames): the places of each thing in the lists of the frames, or None where these differ in length.

    From each frame to the next, the assignment of things with the least sum of squared distances.
    """
    if len({len(things) for things in found}) != 1:
        return None
    tracks = [np.arange(len(found[0]))]
    for before, after in pairwise(found):
        a, b = (np.array([each.center for each in things]).reshape(-1, 2) for things in (before, after))
        distance = np.square(a[tracks[-1], None] - b).sum(-1)
        tracks.append(linear_sum_assignment(distance)[1])
    return np.stack(tracks, axis=1)
