"""What is wrong with videos and captions from the web: clips that flicker, jump or smear, and prompts that are false."""

from collections.abc import Callable

import numpy as np

from sipo.mini.flaws import Degradation, another, degrade_by
from sipo.mini.video.clips import DIRECTIONS, FRAMES, PACES, SHAPES, Clip
from sipo.mini.video.detector import Seen
from sipo.mini.video.rules import judge
from sipo.mini.video.wording import all_prompts, entry
from sipo.mini.world import COLORS, SIZE

_PROMPTS = all_prompts()
_VALUES: dict[str, tuple[str, ...]] = {
    "class": SHAPES,
    "color": tuple(COLORS),
    "motion": tuple(DIRECTIONS),
    "pace": tuple(PACES),
}


def degrade(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Let a clip (FRAMES, 64, 64, 3) uint8 flicker, jump or smear."""
    return degrade_by(DEGRADATIONS, pixels, rng)


def _flicker(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every frame lighter or darker, and of another tint."""
    light = rng.uniform(18, 45) * rng.choice([-1, 1], size=(FRAMES, 1, 1, 1))
    return pixels + light + rng.normal(0, 12, size=(FRAMES, 1, 1, 3))


def _jump(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two or three stretches of frames stand elsewhere, by 6 to 12 pixels; the picture's rim fills the gap."""
    moved = pixels.copy()
    starts = np.sort(rng.choice(np.arange(1, FRAMES), size=rng.integers(2, 4), replace=False))
    for start in starts:
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(6, 12)
        dx, dy = np.round(far * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        rows = np.clip(np.arange(SIZE) - dy, 0, SIZE - 1)
        columns = np.clip(np.arange(SIZE) - dx, 0, SIZE - 1)
        moved[start:] = pixels[start:][:, rows][:, :, columns]
    return moved


def _smear(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every frame keeps a share of the frame before it, and of those before that."""
    keep = rng.uniform(0.6, 0.8)
    smeared = [pixels[0]]
    for frame in pixels[1:]:
        smeared.append(keep * smeared[-1] + (1 - keep) * frame)
    return np.stack(smeared)


DEGRADATIONS: tuple[Degradation, ...] = (_flicker, _jump, _smear)


def truth(clip: Clip) -> list[list[Seen]]:
    """What a perfect detector sees in a flawless rendering of `clip`."""
    scenes = map(clip.scene, range(FRAMES))
    return [[Seen(thing.shape, thing.color, thing.box) for thing in scene.things] for scene in scenes]


def wrong_attribute(prompt: dict, clip: Clip, rng: np.random.Generator) -> dict:
    """The prompt of `clip` with one shape, colour, direction or pace changed, so that it is false of the clip."""
    return _false_of(clip, lambda: _changed(prompt, rng))


def wrong_clip(prompt: dict, clip: Clip, rng: np.random.Generator) -> dict:
    """Another prompt of the same category that is false of `clip`."""
    others = _PROMPTS[prompt["tag"]]
    return _false_of(clip, lambda: others[rng.integers(len(others))])


def _false_of(clip: Clip, draw: Callable[[], dict]) -> dict:
    found = truth(clip)
    while judge(prompt := draw(), found).correct:
        pass
    return prompt


def _changed(prompt: dict, rng: np.random.Generator) -> dict:
    """One attribute, drawn among those the prompt states, replaced by another value of the same kind."""
    clauses = prompt["include"]
    stated = [(k, name) for k, clause in enumerate(clauses) for name in _VALUES if name in clause]
    k, name = stated[rng.integers(len(stated))]
    taken = {clause.get(name) for clause in clauses} if name == "class" else {clauses[k][name]}
    value = another(_VALUES[name], taken, rng)
    return entry(*(clause | {name: value} if i == k else clause for i, clause in enumerate(clauses)))
