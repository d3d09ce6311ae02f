"""The miniature's world: flat coloured shapes on a plain background, 64 x 64 pixels, and how they are drawn."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
"""Side of every picture in pixels."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 45),
    "orange": (245, 140, 30),
    "yellow": (250, 225, 60),
    "green": (40, 160, 75),
    "blue": (40, 85, 215),
    "purple": (140, 55, 170),
    "black": (22, 22, 26),
    "white": (252, 252, 252),
}
"""Eight of GenEval's ten colours, as sRGB."""

BACKGROUNDS: tuple[tuple[int, int, int], ...] = (
    (128, 130, 134),  # slate
    (176, 178, 182),  # silver
    (196, 184, 162),  # sand
    (160, 182, 204),  # mist
    (162, 184, 164),  # sage
    (204, 176, 176),  # rose
    (176, 168, 198),  # lilac
    (108, 122, 138),  # storm
)
"""Pale and dark tints, all far from every object colour."""

_SUPERSAMPLE = 4


@dataclass(frozen=True)
class Thing:
    """One object. `x`, `y` is its centre and `radius` its nominal radius, in pixels."""

    shape: str
    color: str
    x: float
    y: float
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the outline."""
        xs, ys = zip(*SHAPES[self.shape], strict=True)
        x, y, r = self.x, self.y, self.radius
        return x + r * min(xs), y + r * min(ys), x + r * max(xs), y + r * max(ys)


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    background: tuple[int, int, int]


def _regular(corners: int, radius: float, turn: float) -> list[tuple[float, float]]:
    angles = [turn + 2 * math.pi * k / corners for k in range(corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> list[tuple[float, float]]:
    outer, inner = _regular(5, 1.25, -math.pi / 2), _regular(5, 0.55, -math.pi / 2 + math.pi / 5)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _cross(arm: float = 1.0, half: float = 0.36) -> list[tuple[float, float]]:
    corner = [(half, half), (half, arm), (-half, arm), (-half, half), (-arm, half), (-arm, -half)]
    return corner + [(-x, -y) for x, y in corner]


SHAPES: dict[str, list[tuple[float, float]]] = {
    "circle": _regular(48, 1.0, 0.0),
    "square": _regular(4, 0.9 * math.sqrt(2), math.pi / 4),
    "triangle": [(0.0, -1.05), (1.12, 0.9), (-1.12, 0.9)],
    "star": _star(),
    "cross": _cross(),
}
"""Outline of each shape for radius 1, y pointing down, as in pictures."""

PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "star": "stars", "cross": "crosses"}


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw `scene` with antialiased edges, and with a slight shade drawn per object from `rng` (up to 10 of 255)."""
    canvas = Image.new("RGB", (SIZE * _SUPERSAMPLE, SIZE * _SUPERSAMPLE), scene.background)
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        shade = rng.integers(-10, 11)
        fill = tuple(int(np.clip(c + shade, 0, 255)) for c in COLORS[thing.color])
        outline = [
            ((thing.x + thing.radius * u) * _SUPERSAMPLE, (thing.y + thing.radius * v) * _SUPERSAMPLE)
            for u, v in SHAPES[thing.shape]
        ]
        draw.polygon(outline, fill=fill)
    return canvas.reduce(_SUPERSAMPLE)


def silhouette(shape: str, box: tuple[float, float, float, float], width: int = SIZE, height: int = SIZE) -> np.ndarray:
    """The ideal filled `shape` that spans `box` (x0, y0, x1, y1 in pixels): (height, width) coverage in [0, 1]."""
    outline = np.array(SHAPES[shape])  # (corners, 2)
    low, high = outline.min(axis=0), outline.max(axis=0)
    corner, reach = np.array(box[:2]), np.array(box[2:]) - np.array(box[:2])
    points = (corner + (outline - low) / (high - low) * reach) * _SUPERSAMPLE
    canvas = Image.new("L", (width * _SUPERSAMPLE, height * _SUPERSAMPLE), 0)
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], fill=255)
    return np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float32) / 255
