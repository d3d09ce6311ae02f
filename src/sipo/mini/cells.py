"""A 4 x 4 grid over the picture: what stands in each cell, and which token of a caption answers for it."""

import numpy as np

from sipo.mini.world import COLORS, SHAPES, SIZE, Scene

GRID = 4
KINDS = [(shape, color) for shape in SHAPES for color in COLORS]
NOTHING = len(KINDS)
AFTER = 12
"""Tokens from here on see the whole caption: the longest has 11 words after the start mark. They are end marks.

The token AFTER + k answers for cell k, row by row.
"""


def what_stands_where(scene: Scene) -> np.ndarray:
    """For each cell (16,), row by row: the number of the kind of thing that covers its centre, or NOTHING."""
    y, x = (np.mgrid[:GRID, :GRID] + 0.5) * SIZE / GRID
    cells = np.full((GRID, GRID), NOTHING)
    for thing in scene.things:
        distance = np.hypot(x - thing.x, y - thing.y)
        near = distance <= max(thing.radius, distance.min())  # small things may cover no centre
        cells[near] = KINDS.index((thing.shape, thing.color))
    return cells.ravel()
