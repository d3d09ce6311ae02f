"""From a prompt's metadata to a scene that satisfies it: which things, and where."""

import numpy as np

from sipo.mini.world import BACKGROUNDS, COLORS, Scene, Thing

_NEAR, _FAR = 17.0, 47.0  # the two coarse columns and rows, in pixels
_SLOTS = [(_NEAR, _NEAR), (_FAR, _NEAR), (_NEAR, _FAR), (_FAR, _FAR)]
_JITTER = 2.0


def sample_scene(metadata: dict, rng: np.random.Generator) -> Scene:
    """Draw a scene that `metadata` (GenEval's schema) describes: nothing is in it that the prompt does not ask for.

    What the prompt leaves open is drawn: the colour (one for all of a clause), sizes, places, the background.
    """
    kinds = [
        (clause["class"], color)
        for clause in metadata["include"]
        for color in [clause.get("color") or rng.choice(list(COLORS))]
        for _ in range(clause["count"])
    ]
    relation = next((clause["position"][0] for clause in metadata["include"] if "position" in clause), None)
    places = _places(len(kinds), relation, rng)
    low, high = (9.0, 12.0) if len(kinds) == 1 else (8.0, 9.5)
    things = [
        Thing(shape, str(color), x, y, float(rng.uniform(low, high)))
        for (shape, color), (x, y) in zip(kinds, places, strict=True)
    ]
    tint = np.array(BACKGROUNDS[rng.integers(len(BACKGROUNDS))]) + rng.integers(-6, 7)
    red, green, blue = (int(c) for c in tint)
    return Scene(tuple(things), (red, green, blue))


def _places(count: int, relation: str | None, rng: np.random.Generator) -> list[tuple[float, float]]:
    if count == 1:
        return [(float(rng.uniform(18, 46)), float(rng.uniform(18, 46)))]
    if count == 2:
        return _pair(relation, rng)
    slots = rng.permutation(len(_SLOTS))[:count]
    return [_jittered(x, y, rng) for x, y in (_SLOTS[slot] for slot in slots)]


def _pair(relation: str | None, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Places of the first and the second thing; `relation` is that of the second to the first."""
    level = float(rng.uniform(17, 47))
    row, column = [(_NEAR, level), (_FAR, level)], [(level, _NEAR), (level, _FAR)]
    diagonals = [_SLOTS[0], _SLOTS[3]], [_SLOTS[1], _SLOTS[2]]
    if relation is None:
        places = [row, column, *diagonals][rng.integers(4)]
        places = [places[k] for k in rng.permutation(2)]
    else:
        places = row if relation in ("left of", "right of") else column
        places = places[::-1] if relation in ("left of", "above") else places
    return [_jittered(x, y, rng) for x, y in places]


def _jittered(x: float, y: float, rng: np.random.Generator) -> tuple[float, float]:
    dx, dy = rng.uniform(-_JITTER, _JITTER, size=2)
    return float(x + dx), float(y + dy)
