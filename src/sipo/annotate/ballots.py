"""Votes as plain records, wherever they were given: the one form that reports, exports and the CSV share."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from sqlalchemy import select

from sipo.annotate.store import Store
from sipo.annotate.study import Study
from sipo.annotate.tables import GIVEN_VOTES, PEOPLE, SLOTS
from sipo.errors import UserError
from sipo.files import read_text
from sipo.tables import csv_table, csv_text

OVERALL = "preference"  # the dimension of pairwise votes


@dataclass(frozen=True)
class Ballot:
    """One person's label of two systems' results for one prompt, on one dimension.

    systems, files: of "a" and "b". label: "a", "b", "tie" or "bad" (both are). left: which of the two was on the left,
    "a" or "b"; "" where unknown. kind: main, duplicate or check. counts: False for the votes of discarded annotators.
    vote: the id of the answer; a ranking's pairs share one. at: seconds since 1970. source: the picture that both files
    were made of; "" where they were made of the prompt alone.
    """

    prompt: str
    seed: int
    systems: tuple[str, str]
    label: str
    annotator: str
    group: str = "1"
    category: str | None = None
    dimension: str = OVERALL
    files: tuple[str, str] = ("", "")
    left: str = ""
    kind: str = "main"
    seconds: float | None = None
    at: float = 0.0
    vote: str = ""
    counts: bool = True
    source: str = ""

    @property
    def contest(self) -> tuple[str, str, str]:
        return (self.dimension, *self.systems)

    @property
    def key(self) -> tuple[str, int]:
        return self.prompt, self.seed

    @property
    def opinion(self) -> str:
        """The label as `sipo.annotate.votes` takes it: both bad is a tie."""
        return "tie" if self.label == "bad" else self.label


@dataclass(frozen=True)
class Ranking:
    """One person's whole order of the systems on one dimension, the best first."""

    prompt: str
    seed: int
    dimension: str
    order: tuple[str, ...]
    annotator: str
    group: str


def read_ballots(store: Store) -> tuple[list[Ballot], list[Ranking]]:
    """Every vote of a study in the order in which they came: as labels of pairs, and whole rankings where it has them."""
    study = store.study
    columns = (
        GIVEN_VOTES,
        SLOTS.c.item,
        SLOTS.c.kind,
        SLOTS.c.sides,
        SLOTS.c.person,
        PEOPLE.c.team,
        PEOPLE.c.discarded,
    )
    joined = GIVEN_VOTES.join(SLOTS, SLOTS.c.id == GIVEN_VOTES.c.slot).join(PEOPLE, PEOPLE.c.name == SLOTS.c.person)
    ballots, rankings = [], []
    for row in store.rows(select(*columns).select_from(joined).order_by(GIVEN_VOTES.c.at, GIVEN_VOTES.c.slot)):
        answer, sides = json.loads(row.answer), json.loads(row.sides)
        item = study.items[row.item]
        orders = {OVERALL: answer} if study.mode == "pairwise" else answer
        for dimension, given in orders.items():
            for a, b in combinations(range(len(item.media)), 2):
                if item.worst not in (
                    None,
                    b,
                ):  # of a check item the last result is spoilt, and the others do not matter
                    continue
                ballots.append(_ballot(study, row, item, dimension, (a, b), sides, given))
            if study.mode == "ranking" and row.kind == "main" and not row.discarded:
                order = tuple(study.systems[item.systems[sides[place]]] for place in given)
                rankings.append(Ranking(item.prompt, item.seed, dimension, order, row.person, str(row.team)))
    return ballots, rankings


def _ballot(study: Study, row, item, dimension: str, pair: tuple[int, int], sides: Sequence[int], given) -> Ballot:
    a, b = pair
    places = [sides.index(a), sides.index(b)]  # from the left, of "a" and of "b"
    if study.mode == "pairwise":
        label = given if given in ("tie", "bad") else "a" if (given == "left") == (places[0] == 0) else "b"
    else:
        label = "a" if given.index(places[0]) < given.index(places[1]) else "b"
    return Ballot(
        item.prompt, item.seed, (study.systems[item.systems[a]], study.systems[item.systems[b]]), label, row.person,
        str(row.team), item.category, dimension, (item.sources[a], item.sources[b]), "a" if places[0] < places[1] else "b",
        row.kind, row.seconds, row.at, row.id, not row.discarded, item.source[0] if item.source else "",
    )  # fmt: skip


COLUMNS = (
    "prompt", "seed", "category", "dimension", "system_a", "system_b", "label", "left", "annotator", "group", "kind",
    "seconds", "at", "counts", "file_a", "file_b", "vote", "source",
)  # fmt: skip
REQUIRED = ("prompt", "system_a", "system_b", "label", "annotator")
WORDS = {
    "a": "a",
    "b": "b",
    "tie": "tie",
    "bad": "bad",
    "both_bad": "bad",
    "left": "a",
    "right": "b",
    "0": "a",
    "1": "b",
}


def ballots_csv(ballots: Iterable[Ballot]) -> str:
    """A line a vote; `read_csv` reads it back."""
    return csv_table(COLUMNS, ([_cell(ballot, name) for name in COLUMNS] for ballot in ballots))


def _cell(ballot: Ballot, name: str) -> object:
    match name:
        case "system_a" | "system_b":
            return ballot.systems[name == "system_b"]
        case "file_a" | "file_b":
            return ballot.files[name == "file_b"]
        case "counts":
            return int(ballot.counts)
        case "at":
            return f"{ballot.at:.6f}"
    return getattr(ballot, name)


def read_csv(path: Path) -> list[Ballot]:
    """Votes from a CSV with the columns `REQUIRED`, and any of `COLUMNS`. Labels: see `WORDS`, or a system's name.

    Raises UserError that names every line that cannot be read.
    """
    reader = csv.DictReader(io.StringIO(read_text(path, newline=""), newline=""))
    missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ()) or 'none'}."
        )
    ballots, problems = [], []
    try:
        for row in reader:
            try:
                ballots.append(
                    _of_row({csv_text(key): csv_text(value or "").strip() for key, value in row.items() if key})
                )
            except ValueError as error:
                problems.append(f"line {reader.line_num}: {error}")
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")
    if problems:
        raise UserError(
            "\n  ".join(
                [
                    f"{path} cannot be read:",
                    *problems[:40],
                    *([f"... and {len(problems) - 40} more"] if len(problems) > 40 else []),
                ]
            )
        )
    if not ballots:
        raise UserError(f"{path} holds no vote.")
    return ballots


def _of_row(row: dict[str, str]) -> Ballot:
    if blank := [name for name in REQUIRED if not row.get(name)]:
        raise ValueError(f"nothing under {', '.join(blank)}")
    systems = row["system_a"], row["system_b"]
    named = {systems[0]: "a", systems[1]: "b"}.get(row["label"], WORDS.get(row["label"].lower()))
    if named is None:
        raise ValueError(f"the label is {row['label']!r}; expected {', '.join(WORDS)} or a system's name")
    number = {key: float(row[key]) for key in ("seconds", "at") if row.get(key)}
    return Ballot(
        row["prompt"], int(row.get("seed") or 0), systems, named, row["annotator"], row.get("group") or "1",
        row.get("category") or None, row.get("dimension") or OVERALL, (row.get("file_a", ""), row.get("file_b", "")),
        row.get("left", ""), row.get("kind") or "main", number.get("seconds"), number.get("at", 0.0), row.get("vote", ""),
        row.get("counts", "1") != "0", row.get("source", ""),
    )  # fmt: skip
