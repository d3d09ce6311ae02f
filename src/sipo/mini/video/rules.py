"""Judges what was seen in a clip against its prompt's metadata: number, constancy, shape, colour, direction, pace."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sipo.geneval.rules import Judgement
from sipo.mini.video.clips import DIRECTIONS
from sipo.mini.video.detector import Seen, follow

LEAST_SPEED = 0.5
"""Pixels a frame below which a thing stands still."""

FAST = 2.0
"""Pixels a frame from which a thing moves quickly."""

STRAIGHT = 2.0
"""How many times as far a thing must move along its direction as across it."""

LAPSES = 2
"""Frames of a clip in which a thing may be seen as another shape or colour than in most: soft edges look now like this, now like
that, and what changes does so for longer."""


def judge(metadata: dict, found: Sequence[Sequence[Seen]]) -> Judgement:
    """`found`: the things of each frame.

    Every frame must show as many things as the prompt names. Each keeps its shape and its colour, but for LAPSES, whether the
    prompt names them or not, and each clause is met by a thing of its shape. What a thing is, most of its frames say.
    """
    clauses = metadata["include"]
    for frame, things in enumerate(found, start=1):
        if len(things) != len(clauses):
            return Judgement(False, (f"expected {len(clauses)} in every frame, found {len(things)} in frame {frame}",))
    tracks = follow(found)
    assert tracks is not None
    things = [[found[frame][place] for frame, place in enumerate(track)] for track in tracks]
    reasons = [fault for thing in things for fault in _changes(thing)]
    if not reasons:
        by_shape = {mostly(thing, "shape"): thing for thing in things}
        reasons = [fault for clause in clauses for fault in _faults(clause, by_shape)]
    return Judgement(not reasons, tuple(reasons))


def velocity(thing: Sequence[Seen]) -> np.ndarray:
    """(2,) mean velocity in pixels a frame, from the first frame to the last."""
    return (thing[-1].center - thing[0].center) / (len(thing) - 1)


def direction(thing: Sequence[Seen]) -> str | None:
    """Where a thing moves, or None for one that stands still or moves aslant."""
    moved = velocity(thing)
    along = {name: float(moved @ unit) for name, unit in DIRECTIONS.items()}
    name = max(along, key=along.__getitem__)
    across = np.sqrt(max(moved @ moved - along[name] ** 2, 0))
    return name if along[name] >= max(LEAST_SPEED, STRAIGHT * across) else None


def pace(thing: Sequence[Seen]) -> str | None:
    """`slowly` or `quickly`, or None for a thing that stands still."""
    speed = np.linalg.norm(velocity(thing))
    return None if speed < LEAST_SPEED else "quickly" if speed >= FAST else "slowly"


def mostly(thing: Sequence[Seen], what: str) -> str:
    """Its "shape" or "color" in most frames, and of equally many the first."""
    return Counter(getattr(each, what) for each in thing).most_common(1)[0][0]


def _changes(thing: Sequence[Seen]) -> list[str]:
    """What does not stay as it is in most frames."""
    faults = []
    for what in ("shape", "color"):
        usual = mostly(thing, what)
        others = [
            (frame, value) for frame, each in enumerate(thing, start=1) if (value := getattr(each, what)) != usual
        ]
        if len(others) > LAPSES:
            name = {"shape": "shape", "color": "colour"}[what]
            frames, values = (", ".join(map(str, dict.fromkeys(each))) for each in zip(*others, strict=True))
            faults.append(f"the {mostly(thing, 'shape')} does not keep its {name}: frames {frames} show {values}")
    return faults


def _faults(clause: dict, by_shape: dict[str, list[Seen]]) -> list[str]:
    """What of a clause the thing of its shape does not meet."""
    shape = clause["class"]
    if shape not in by_shape:
        return [f"expected {shape}, found {' and '.join(by_shape)}"]
    thing = by_shape[shape]
    shown = {"color": mostly(thing, "color"), "motion": direction(thing), "pace": pace(thing)}
    return [
        f"expected {shape} {clause[key]}, found {value or 'no clear motion'}"
        for key, value in shown.items()
        if key in clause and clause[key] != value
    ]
