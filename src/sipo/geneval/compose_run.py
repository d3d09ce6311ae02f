"""`sipo prompts compose`: prompts of GenEval's world or of the miniature's, drawn at random into a file."""

from collections.abc import Sequence
from pathlib import Path

from sipo.errors import UsageError
from sipo.files import write_atomic
from sipo.geneval.compose import GENEVAL, TAGS, World, compose
from sipo.jsonl import dump_jsonl
from sipo.samples.prompts import read_prompts

WORLDS = ("geneval", "miniature")


def compose_prompts(
    out: Path, num: int, seed: int, world: str, tags: Sequence[str], avoid: Sequence[str]
) -> dict[str, int]:
    """Write `num` prompts to `out` (JSONL) and return how many there are of each category.

    avoid: prompt files whose prompts must not come. In the world "miniature" its held-out prompts never do.
    """
    if out.suffix != ".jsonl":
        raise UsageError(f"{out} should end in .jsonl")
    avoided = [item.prompt for file in avoid for item in read_prompts(file)]
    if world == "miniature":
        avoided += [item.prompt for item in read_prompts("miniature")]
    found = compose(num, seed, find_world(world), tags or TAGS, avoided)
    write_atomic(out, dump_jsonl(found))
    return {tag: sum(prompt["tag"] == tag for prompt in found) for tag in TAGS}


def find_world(name: str) -> World:
    """What prompts are composed of, by name. Raises UsageError for an unknown one."""
    if name not in WORLDS:
        raise UsageError(f"--world: {name!r} is none of {', '.join(WORLDS)}")
    if name == "geneval":
        return GENEVAL
    from sipo.mini.wording import NUMBERS, RELATIONS
    from sipo.mini.world import COLORS, PLURALS

    counts = tuple(number for number in NUMBERS if number > 1)
    return World(tuple(PLURALS), tuple(COLORS), counts, RELATIONS, colored_counts=True, plurals=PLURALS)
