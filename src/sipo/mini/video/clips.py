"""The still world in motion: its shapes move across the same backgrounds, each at its own constant velocity."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from sipo.mini.world import BACKGROUNDS, COLORS, SIZE, Scene, Thing, render

FRAMES = 9
"""Frames of a clip: one, and a multiple of the 2 that share a latent; CogVideoX's own VAE takes 4 n + 1."""

SHAPES = ("circle", "square", "triangle", "cross")
"""All of the still world but the star, whose points the autoencoder rounds off."""

DIRECTIONS: Mapping[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

PACES: Mapping[str, tuple[float, float]] = {"slowly": (1.0, 1.5), "quickly": (2.5, 3.0)}
"""Speeds, in pixels a frame. In a clip's eight steps a thing then moves by 8 to 12 pixels, or by 20 to 24."""

DRIFT = 0.15
"""Largest velocity across the direction, in pixels a frame."""

_MARGIN = 1.5
_REACH = 1.25  # of the corners that lie farthest out, in radii


@dataclass(frozen=True)
class Mover:
    """A thing, at its place in the first frame, and its velocity in pixels a frame."""

    thing: Thing
    dx: float
    dy: float

    def at(self, frame: int) -> Thing:
        return replace(self.thing, x=self.thing.x + frame * self.dx, y=self.thing.y + frame * self.dy)


@dataclass(frozen=True)
class Clip:
    movers: tuple[Mover, ...]
    background: tuple[int, int, int]

    def scene(self, frame: int) -> Scene:
        return Scene(tuple(mover.at(frame) for mover in self.movers), self.background)


def render_clip(clip: Clip, rng: np.random.Generator) -> np.ndarray:
    """(FRAMES, 64, 64, 3) uint8; a thing keeps the shade that `rng` draws for it."""
    shades = int(rng.integers(2**32))
    return np.stack([np.asarray(render(clip.scene(k), np.random.default_rng(shades))) for k in range(FRAMES)])


def to_frames(pixels: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in pixels]


def sample_clip(metadata: dict, rng: np.random.Generator) -> Clip:
    """Draw a clip that `metadata` describes: nothing is in it that the prompt does not ask for.

    What the prompt leaves open is drawn: colours, directions, paces, sizes, places, the background.
    """
    clauses = metadata["include"]
    low, high = (12.5, 14.0) if len(clauses) == 1 else (9.5, 10.5)
    while True:  # two things may be drawn on paths that cross
        movers = tuple(_mover(clause, float(rng.uniform(low, high)), rng) for clause in clauses)
        if all(_apart(a, b) for a, b in itertools.combinations(movers, 2)):
            break
    tint = np.array(BACKGROUNDS[rng.integers(len(BACKGROUNDS))]) + rng.integers(-6, 7)
    red, green, blue = (int(c) for c in tint)
    return Clip(movers, (red, green, blue))


def _mover(clause: dict, radius: float, rng: np.random.Generator) -> Mover:
    color = clause.get("color") or rng.choice(list(COLORS))
    along = np.array(DIRECTIONS[clause.get("motion") or rng.choice(list(DIRECTIONS))])
    speed = rng.uniform(*PACES[clause.get("pace") or rng.choice(list(PACES))])
    velocity = speed * along + rng.uniform(-DRIFT, DRIFT) * along[::-1]
    room = _REACH * radius + _MARGIN
    path = (FRAMES - 1) * velocity
    x, y = rng.uniform(room - np.minimum(path, 0), SIZE - room - np.maximum(path, 0))
    dx, dy = velocity
    return Mover(Thing(clause["class"], str(color), float(x), float(y), radius), float(dx), float(dy))


def _apart(a: Mover, b: Mover) -> bool:
    """Whether two things stay clear of each other in all frames."""
    places = [(a.at(k), b.at(k)) for k in range(FRAMES)]
    nearest = min(np.hypot(p.x - q.x, p.y - q.y) for p, q in places)
    return nearest > _REACH * (a.thing.radius + b.thing.radius) + 1
