"""Votes that were made elsewhere, as ballots: CSV, and the JSON of Label Studio, Argilla and Rapidata."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sipo.annotate.ballots import WORDS, Ballot, ballots_csv, read_csv
from sipo.errors import UserError
from sipo.files import read_text, write_atomic

PROMPTS = ("prompt", "caption", "text", "instruction", "context")
SYSTEMS = (("system_a", "system_b"), ("model_a", "model_b"), ("left_model", "right_model"))
FILES = (("file_a", "file_b"), ("image_a", "image_b"), ("left", "right"), ("image1", "image2"), ("video_a", "video_b"))
OTHERS = {
    "neither": "bad",
    "both": "tie",
    "none": "tie",
    "same": "tie",
    "equal": "tie",
    "a is better": "a",
    "b is better": "b",
}


def import_files(files: Sequence[Path], out: Path) -> str:
    """Write the votes of all files as one CSV; returns what the terminal shows. Raises UserError, naming the entry."""
    ballots = [ballot for file in files for ballot in read_foreign(file)]
    write_atomic(out, ballots_csv(ballots))
    people = len({ballot.annotator for ballot in ballots})
    return f"{len(ballots):,} votes by {people:,} people: {out}. Next: sipo annotate report {out}"


def read_foreign(path: Path) -> list[Ballot]:
    """The votes of one file, its format found from its content. Raises UserError where it is none that is known."""
    if path.suffix.lower() == ".csv":
        return read_csv(path)
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}).") from error
    match content:
        case {"results": [*entries]}:
            reader = _rapidata
        case [{"annotations": _, "data": _}, *_] as entries:
            reader = _label_studio
        case [{"responses": _, "fields": _}, *_] as entries:
            reader = _argilla
        case _:
            raise UserError(
                f"{path} is none of the exports that are read: Label Studio (tasks with data and annotations), Argilla "
                "(records with fields and responses), Rapidata (an object with results)."
            )
    ballots, problems = [], []
    for number, entry in enumerate(entries):
        try:
            ballots += reader(entry, number)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            problems.append(f"entry {number}: {error if isinstance(error, ValueError) else f'malformed ({error!r})'}")
    if problems:
        raise UserError("\n  ".join([f"{path} cannot be read:", *problems[:40]]))
    if not ballots:
        raise UserError(f"{path} holds no vote.")
    return ballots


def _label_studio(task: Mapping, number: int) -> Iterator[Ballot]:
    """Pairwise results ({"selected": "left"}), or a choice of one of `WORDS`; the first of the two is on the left."""
    about = _about(task["data"], number)
    for given in task["annotations"]:
        who = given.get("completed_by")
        who = who.get("email") or who.get("id") if isinstance(who, Mapping) else who
        for result in [] if given.get("was_cancelled") else given["result"]:
            value = result["value"]
            answer = value.get("selected") or next(iter(value.get("choices") or []), None)
            when = {"seconds": given.get("lead_time"), "at": _moment(given.get("created_at"))}
            yield Ballot(
                **about, label=_label(answer, about["systems"]), annotator=f"label-studio-{who}", left="a", **when
            )


def _argilla(record: Mapping, number: int) -> Iterator[Ballot]:
    """A label question: its responses are {question: [{"value", "user_id"}]}; fields and metadata say what was compared."""
    about = _about({**record["fields"], **(record.get("metadata") or {})}, number)
    for question, answers in record["responses"].items():
        for answer in answers:
            value = answer["value"]
            label = _label(value[0]["value"] if isinstance(value, list) else value, about["systems"])
            yield Ballot(**about, label=label, annotator=f"argilla-{answer['user_id']}", dimension=question)


def _rapidata(result: Mapping, number: int) -> Iterator[Ballot]:
    """A comparison of two assets; its people have no names, so each vote is somebody's."""
    assets = [name for name in result["aggregatedResults"] if name.lower() not in ("both", "neither")]
    if len(assets) != 2:
        raise ValueError(f"expected two assets, found {', '.join(assets)}")
    votes = [each["votedFor"] for each in result.get("detailedResults") or []] or [
        name for name, count in result["aggregatedResults"].items() for _ in range(int(count))
    ]
    about: dict[str, Any] = {
        "prompt": result.get("context") or f"item {number}",
        "seed": number,
        "systems": ("A", "B"),
        "files": tuple(assets),
    }
    for place, vote in enumerate(votes):
        label = "ab"[assets.index(vote)] if vote in assets else _label(vote, about["systems"])
        yield Ballot(**about, label=label, annotator=f"rapidata-{number}-{place}")


def _about(data: Mapping, number: int) -> dict[str, Any]:
    """prompt, seed, systems, files, category of a comparison, under any of the usual names."""
    prompt = next((data[key] for key in PROMPTS if isinstance(data.get(key), str)), None)
    if not prompt:
        raise ValueError(f"no text under {', '.join(PROMPTS)}")
    files = _first(data, FILES) or ("", "")
    systems = _first(data, SYSTEMS) or ("A", "B")
    seed = data.get("seed", number)
    return {
        "prompt": prompt, "seed": seed if isinstance(seed, int) else number, "systems": systems,
        "files": files, "category": data.get("category"),
    }  # fmt: skip


def _first(data: Mapping, names: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first two names under which there are texts."""
    for a, b in names:
        if isinstance(data.get(a), str) and isinstance(data.get(b), str):
            return data[a], data[b]
    return None


def _label(answer: object, systems: Iterable[str]) -> str:
    a, b = systems
    text = str(answer).strip()
    found = {a: "a", b: "b"}.get(text) or WORDS.get(text.lower()) or OTHERS.get(text.lower())
    if found is None:
        raise ValueError(f"the answer is {answer!r}; expected left, right, tie, both_bad or a system's name")
    return found


def _moment(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
