"""What is wrong with pictures and captions from the web: degraded pictures, and prompts that are false of the scene."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from scipy import ndimage

from sipo.geneval.rules import Detection, judge
from sipo.geneval.vocabulary import both, counted, placed, single
from sipo.mini.wording import WORLD, all_prompts
from sipo.mini.world import SIZE, Scene
from sipo.samples.metadata import RELATIONS

_PROMPTS = all_prompts()

GRAIN = 4
"""Side in pixels of a grain of noise: one latent cell, the finest that the autoencoder can draw."""


Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Of float64 levels (..., 64, 64, 3), in [0, 255] before it."""


def degrade(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blotch, blur or add noise to a picture (64, 64, 3) uint8."""
    return degrade_by(DEGRADATIONS, pixels, rng)


def degrade_by(kinds: Sequence[Degradation], pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 by one of the kinds of degradation, or by two of them in one case of four."""
    number = 2 if rng.random() < 0.25 else 1
    degraded = pixels.astype(np.float64)
    for kind in rng.permutation(len(kinds))[:number]:
        degraded = kinds[kind](degraded, rng)
    return np.clip(np.round(degraded), 0, 255).astype(np.uint8)


def _blotch(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Three to six soft, tilted ellipses of any colour."""
    y, x = np.mgrid[:SIZE, :SIZE]
    for _ in range(rng.integers(3, 7)):
        cx, cy = rng.uniform(6, SIZE - 6, size=2)
        wide, high = rng.uniform(3, 9, size=2)
        angle = rng.uniform(0, np.pi)
        along = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / wide
        across = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / high
        cover = rng.uniform(0.6, 1.0) / (1 + np.exp(6 * (np.hypot(along, across) - 1)))
        pixels = pixels + cover[..., None] * (rng.uniform(0, 255, size=3) - pixels)
    return pixels


def _blur(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    deviation = rng.uniform(1.8, 3.6)
    return ndimage.gaussian_filter(pixels, (deviation, deviation, 0), mode="nearest")


def _add_noise(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    coarse = rng.normal(0, rng.uniform(15, 35), size=(SIZE // GRAIN, SIZE // GRAIN, 3))
    return pixels + ndimage.gaussian_filter(coarse.repeat(GRAIN, 0).repeat(GRAIN, 1), (1, 1, 0))


DEGRADATIONS: tuple[Degradation, ...] = (_blotch, _blur, _add_noise)


def wrong_attribute(prompt: dict, scene: Scene, rng: np.random.Generator) -> dict:
    """The prompt of `scene` with one shape, colour, count or relation changed, so that it is false of the scene."""
    return _false_of(scene, lambda: _changed(prompt, rng))


def wrong_scene(prompt: dict, scene: Scene, rng: np.random.Generator) -> dict:
    """Another prompt of the same category that is false of `scene`."""
    others = _PROMPTS[prompt["tag"]]
    return _false_of(scene, lambda: others[rng.integers(len(others))])


def _false_of(scene: Scene, draw: Callable[[], dict]) -> dict:
    found = truth(scene)
    while judge(prompt := draw(), found).correct:
        pass
    return prompt


def truth(scene: Scene) -> dict[str, list[Detection]]:
    """What a perfect detector finds in `scene`."""
    found: dict[str, list[Detection]] = {}
    for thing in scene.things:
        found.setdefault(thing.shape, []).append(Detection(thing.box, 1.0, thing.color))
    return found


def _changed(prompt: dict, rng: np.random.Generator) -> dict:
    """One attribute, drawn among those the prompt states, replaced by another value of the same kind."""
    clauses = [{name: clause[name] for name in clause if name != "position"} for clause in prompt["include"]]
    relation = next((clause["position"][0] for clause in prompt["include"] if "position" in clause), None)
    stated = [(k, name) for k, clause in enumerate(clauses) for name in ("class", "color") if name in clause]
    stated += [(0, "count")] if prompt["tag"] == "counting" else []
    stated += [(-1, "relation")] if relation else []
    k, name = stated[rng.integers(len(stated))]
    if name == "relation":
        relation = another(RELATIONS, {relation}, rng)
    else:
        values = {"class": WORLD.objects, "color": WORLD.colors, "count": WORLD.counts}[name]
        clauses[k] = clauses[k] | {name: another(values, {clause.get(name) for clause in clauses}, rng)}
    if relation:
        return placed(clauses[1], relation, clauses[0])
    if prompt["tag"] == "counting":
        return counted(clauses[0], WORLD)
    return both(*clauses) if len(clauses) == 2 else single(clauses[0])


def another(values: Sequence, taken: Collection, rng: np.random.Generator):
    """One of the values that are not taken."""
    rest = [value for value in values if value not in taken]
    return rest[rng.integers(len(rest))]
