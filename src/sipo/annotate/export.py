"""`sipo annotate export`: votes as the manifest of pairs that `sipo train` reads."""

from pathlib import Path
from typing import Literal

from sipo.annotate.ballots import Ballot
from sipo.annotate.report import read_votes
from sipo.annotate.results import by_contest, final_label
from sipo.annotate.votes import Rule, win_rate
from sipo.errors import UsageError, UserError
from sipo.evaluate.label.files import place, seeds_of, source_of
from sipo.files import write_atomic
from sipo.jsonl import dump_jsonl

Ties = Literal["drop", "half"]


def export(
    source: Path,
    out: Path,
    rule: Rule = "tie",
    ties: Ties = "drop",
    dimension: str | None = None,
    database: str | None = None,
) -> str:
    """Write {"prompt", "chosen", "rejected", "strength"} a line, and "source" of edits; returns what the terminal shows.

    The chosen one is the final label's; strength is its share of the single votes, ties counted half, at least 1/2. ties:
    "drop" leaves tied items out, "half" writes them with strength 1/2, the first system as chosen. Items that most people
    found bad on both sides are left out. Raises UserError where there is no pair, or votes have no files.
    """
    if out.suffix != ".jsonl":
        raise UsageError(f"--out: {out} should end in .jsonl")
    contests = by_contest(read_votes(Path(source), database).ballots)
    dimensions = list(dict.fromkeys(contest[0] for contest in contests))
    if dimension is not None and dimension not in dimensions:
        raise UsageError(f"--dimension: {dimension!r} is none of {', '.join(dimensions)}")
    chosen = dimension or (dimensions[-1] if dimensions else "")
    items = [ballots for contest, each in contests.items() if contest[0] == chosen for ballots in each.values()]
    lines, num_ties, num_bad = [], 0, 0
    for ballots in items:
        if 2 * sum(ballot.label == "bad" for ballot in ballots) > len(ballots):
            num_bad += 1
            continue
        line = _line(ballots, rule, ties, out.parent)
        num_ties += line is None
        lines += [line] if line else []
    if not lines:
        raise UserError(
            f"There is no pair to write to {out}: {num_ties} of {len(items)} items tied, {num_bad} were bad on both sides."
        )
    write_atomic(out, dump_jsonl(lines))
    left = ", ".join(f"{n} {what}" for n, what in ((num_ties, "ties"), (num_bad, "bad on both sides")) if n)
    return f"{len(lines)} pairs: {out}" + (f"; left out: {left}" if left else "")


def _line(ballots: list[Ballot], rule: Rule, ties: Ties, folder: Path) -> dict | None:
    label, files, source = final_label(ballots, rule), ballots[0].files, ballots[0].source
    if not all(files):
        raise UserError(
            f"The votes on {ballots[0].prompt[:60]!r} name no files: pairs need the columns file_a and file_b."
        )
    if label == "tie" and ties == "drop":
        return None
    share = win_rate([ballot.opinion for ballot in ballots])
    winner, loser = (files[1], files[0]) if label == "b" else files
    strength = 0.5 if label == "tie" else max(share if label == "a" else 1 - share, 0.5)
    return {
        "prompt": ballots[0].prompt, "chosen": place(Path(winner), folder), "rejected": place(Path(loser), folder),
        "strength": strength, **source_of(Path(source) if source else None, folder),
        **seeds_of(Path(winner), Path(loser)),
    }  # fmt: skip
