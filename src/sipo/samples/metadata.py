"""GenEval's metadata (djghosh13/geneval: prompts/evaluation_metadata.jsonl), read in one place.

An entry is {"tag", "include", "exclude" where something is counted, "prompt"}; its clauses are what `sipo.geneval.rules`
judges by.
"""

from pathlib import Path

from sipo.errors import UserError, shown
from sipo.samples.prompts import read_prompts

CATEGORIES = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""The values of `tag`, in the order of GenEval's tables."""

RELATIONS = ("left of", "right of", "above", "below")


def read_metadata(path: str | Path, judged: bool = True) -> list[dict]:
    """The prompts of an `evaluation_metadata.jsonl` in order: `prompt`, `tag`, `include` and, where given, `exclude`.

    A miniature's name stands for its held-out prompts. judged: False takes entries too that name no objects (`include`),
    whose prompt is all that a scorer reads. Raises `UserError` with the line's number if the judge cannot use it.
    """
    entries = [(item.metadata or {}) | {"prompt": item.prompt} for item in read_prompts(path)]
    for number, entry in enumerate(entries, start=1):
        if (judged or "include" in entry) and (fault := _tag_fault(entry) or clauses_fault(entry)):
            raise UserError(f"{path}, prompt {number}: {fault}.")
    return entries


def clauses_fault(entry: dict) -> str | None:
    """Why a judge cannot use the objects that an entry names, or None."""
    include, exclude = entry.get("include"), entry.get("exclude", [])
    if not isinstance(include, list) or not include:
        return "`include` names no object"
    if not isinstance(exclude, list):
        return "`exclude` is not a list"
    faults = [_clause_fault(clause, number) for number, clause in enumerate(include)]
    faults += [_clause_fault(clause, 0) for clause in exclude]
    return next((fault for fault in faults if fault), None)


def _tag_fault(entry: dict) -> str | None:
    tag = entry.get("tag")
    return None if tag in CATEGORIES else f"`tag` is {shown(tag)}, none of {', '.join(CATEGORIES)}"


def _clause_fault(clause: object, number: int) -> str | None:
    if not isinstance(clause, dict) or not isinstance(clause.get("class"), str):
        return f"clause {number} names no `class`"
    if type(clause.get("count")) is not int or clause["count"] < 1:
        return f"clause {number} has no whole number above 0 under `count`"
    if "position" not in clause:
        return None
    match clause["position"]:
        case [str(relation), int(target)] if relation in RELATIONS and target in range(number):
            return None
        case [str(relation), int(target)] if relation in RELATIONS:
            return f"clause {number} stands in relation to clause {target}, which does not come before it"
    return f"clause {number}: `position` is {shown(clause['position'])}, not one of {', '.join(RELATIONS)} and a number"
