"""What a check found, for people (a table), for files (JSON), and for training (the usable rows)."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sipo.data.bad_rows import KINDS
from sipo.data.pairs.rows import Ties
from sipo.errors import UserError

LEFT_OUT = ("tie", "unlabelled")  # no fault of the row; with ties "error", ties are faults too


@dataclass(frozen=True)
class Problem:
    """A row that is left out. `index`: in the source; `row`: "file:row" for people; `kind`: of `KINDS`."""

    index: int
    row: str
    kind: str
    detail: str


@dataclass(frozen=True)
class CheckReport:
    """Every row of the data is usable or is exactly one of `problems`, which are in the order of the rows.

    flat: members of usable rows that are one colour all over, "file:row (member)". They are kept: a black picture may be meant
    as the worse one.
    """

    schema: str
    num_rows: int
    ties: Ties
    problems: tuple[Problem, ...]
    fingerprint: str
    flat: tuple[str, ...] = ()

    @property
    def usable(self) -> list[int]:
        """The rows to train on."""
        left_out = {problem.index for problem in self.problems}
        return [index for index in range(self.num_rows) if index not in left_out]

    @property
    def num_usable(self) -> int:
        return self.num_rows - len(self.problems)

    @property
    def counts(self) -> dict[str, int]:
        """Rows of every kind of `KINDS`, zeros included."""
        found = Counter(problem.kind for problem in self.problems)
        return {kind: found[kind] for kind in KINDS}

    @property
    def bad_kinds(self) -> list[str]:
        accepted = LEFT_OUT if self.ties == "drop" else LEFT_OUT[1:]
        return [kind for kind, count in self.counts.items() if count and kind not in accepted]

    @property
    def num_bad(self) -> int:
        """Rows with a fault: all that are not usable, except those without a label and, with ties "drop", ties."""
        return sum(self.counts[kind] for kind in self.bad_kinds)

    def rows(self, kind: str) -> list[Problem]:
        return [problem for problem in self.problems if problem.kind == kind]

    def require(self, on_bad_rows: str = "stop") -> list[int]:
        """The usable rows. Raises UserError where there are none, or where some are bad and may not be skipped."""
        found = "\n".join(
            f"  {self.counts[kind]:,} {KINDS[kind]}: {', '.join(problem.row for problem in self.rows(kind)[:5])}"
            + (" ..." if self.counts[kind] > 5 else "")
            + f" (the first: {self.rows(kind)[0].detail})"
            for kind in self.bad_kinds
        )
        if self.num_bad and on_bad_rows != "skip":
            raise UserError(
                f"{self.num_bad:,} of {self.num_rows:,} rows are bad:\n{found}\n`sipo data check` lists them all. "
                "Mend or remove them, or set data.on_bad_rows: skip to train on the others"
            )
        if self.num_usable == 0:
            left_out = ", ".join(f"{count:,} {KINDS[kind]}" for kind, count in self.counts.items() if count)
            raise UserError(f"none of the {self.num_rows:,} rows is usable: {left_out}")
        return self.usable

    def to_dict(self) -> dict[str, Any]:
        """For JSON: counts first, then every row that is left out."""
        return {
            "schema": self.schema,
            "num_rows": self.num_rows,
            "num_usable": self.num_usable,
            "num_bad": self.num_bad,
            "ties": self.ties,
            "counts": self.counts,
            "fingerprint": self.fingerprint,
            "flat": list(self.flat),
            "problems": [asdict(problem) for problem in self.problems],
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "CheckReport":
        problems = tuple(Problem(**problem) for problem in saved["problems"])
        return cls(
            saved["schema"], saved["num_rows"], saved["ties"], problems, saved["fingerprint"], tuple(saved["flat"])
        )

    def notice(self) -> str:
        """A sentence on what is usable and hardly ever meant; "" where nothing is."""
        shown = ", ".join(self.flat[:5]) + (" ..." if len(self.flat) > 5 else "")
        return f"{len(self.flat):,} members are one colour all over, such as black: {shown}" if self.flat else ""

    def render(self, console: Console, examples: int | None = 5) -> None:
        """A table of the kinds, each with its count and its first rows (`examples`; None: all), then what was found."""
        table = Table(title=f"{self.num_rows:,} rows ({self.schema})", title_justify="left")
        table.add_column("rows", justify="right")
        table.add_column("what")
        table.add_column("where")
        table.add_row(f"{self.num_usable:,}", "usable", "")
        for kind, count in self.counts.items():
            style = "dim" if count == 0 else "red" if kind in self.bad_kinds else "yellow"
            shown = [problem.row for problem in self.rows(kind)[:examples]]
            where = ", ".join(shown) + (" ..." if count > len(shown) else "")
            table.add_row(f"{count:,}", KINDS[kind], Text(where), style=style)
        console.print(table)
        for kind in self.bad_kinds:
            for problem in self.rows(kind)[:examples]:
                console.print(Text.assemble((problem.row, "bold"), f" {kind}: {problem.detail}"))
        if self.flat:
            console.print(Text(self.notice(), "yellow"))
