"""`sipo annotate report`: the study as one page, a figure in the form of the paper's Figure 7, JSON, and a CSV of every vote."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from sipo.annotate.ballots import Ballot, Ranking, ballots_csv, read_ballots, read_csv
from sipo.annotate.results import (
    all_strengths,
    by_contest,
    comparison,
    extremes,
    item_model,
    people,
    rank_shares,
    scorer_accuracy,
    single_votes,
)
from sipo.annotate.store import open_store
from sipo.annotate.study import read_study
from sipo.annotate.votes import Rule
from sipo.errors import UserError
from sipo.evaluate.compare.contest import Contest
from sipo.evaluate.compare.files import contest_record
from sipo.evaluate.pages.gallery import BUDGET, data_uri, sections
from sipo.evaluate.pages.page import render
from sipo.evaluate.pages.words import comparison_paragraph, interval, percent
from sipo.evaluate.report.plots import STYLE
from sipo.evaluate.scores.files import read_scores, scorer_of
from sipo.files import write_atomic

PAGE, FIGURE, JSON, VOTES = "report.html", "figure.png", "report.json", "votes.csv"
SHADES = ("#2b7bba", "#8fbbdc", "#c9ced4", "#efb48f", "#d9642c", "#a8431a", "#7a2d0e", "#57200a", "#3b1506")


def report(source: Path, out: Path | None = None, rule: Rule = "tie", database: str | None = None) -> str:
    """Write the report of a study's folder, or of a CSV of votes; returns what the terminal shows.

    Raises UserError where there is no counted vote yet.
    """
    source = Path(source)
    votes = read_votes(source, database)
    out = out or (source / "report" if source.is_dir() else source.with_suffix(".report"))
    record = results_record(votes, rule, out)
    write_atomic(out / VOTES, ballots_csv(votes.ballots))
    write_atomic(out / JSON, json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    figure = draw(record)
    write_atomic(out / FIGURE, figure)
    write_atomic(out / PAGE, _page(record, out))
    return "\n".join([*_lines(record), f"report: {out / PAGE}"])


@dataclass(frozen=True)
class Votes:
    """Votes and what is known of their study. folders: of the systems' media. due: answers each annotator was asked for."""

    title: str
    ballots: Sequence[Ballot]
    rankings: Sequence[Ranking] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)
    due: Mapping[str, int] | None = None
    closed: bool = False


def read_votes(source: Path, database: str | None = None) -> Votes:
    """The votes of a study's folder, or of a CSV."""
    if not source.is_dir():
        return Votes(source.stem, read_csv(source))
    study = read_study(source)
    with open_store(source, study, database) as store:
        ballots, rankings = read_ballots(store)
        due = {person.name: store.counts(person.name)[1] for person in store.people() if not person.discarded}
        closed = store.state() == "closed"
    folders = dict(zip(study.systems, map(Path, study.folders), strict=True))
    return Votes(study.title or source.resolve().name, ballots, rankings, folders, due, closed)


def results_record(votes: Votes, rule: Rule, out: Path) -> dict[str, Any]:
    """Everything that the page shows, JSON values only."""
    contests = by_contest(votes.ballots)
    if not contests:
        raise UserError(
            "There is no vote to report yet (duplicates, check items and discarded annotators do not count)."
        )
    comparisons = [comparison(contest, items, rule, votes.folders) for contest, items in contests.items()]
    able, hard = item_model(votes.ballots)
    return {
        "title": votes.title,
        "rule": rule,
        "num_votes": sum(len(each) for items in contests.values() for each in items.values()),
        "num_prompts": len({key for items in contests.values() for key in items}),
        "contest": contest_record(Contest(tuple(comparisons)), out),
        "votes": [single_votes(items, rule) for items in contests.values()],
        "strengths": all_strengths(contests, rule),
        "ranks": rank_shares(votes.rankings),
        "people": people(votes.ballots, able, votes.due, votes.closed),
        "items": hard,
        "scorers": scorer_accuracy(contests, _scores(votes.folders), rule),
        "extremes": extremes(contests),
    }


def _scores(folders: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """scorer -> file -> score, of every scores.NAME.jsonl beside the systems' media; files without a score are left out."""
    found: dict[str, dict[str, float]] = {}
    for folder in folders.values():
        for file in sorted(folder.glob("scores.*.jsonl")):
            name = scorer_of(file)
            for score in read_scores(folder, name):
                if score.error is None:
                    found.setdefault(name, {})[str((folder / score.sample.file).resolve())] = score.value
    return found


def _lines(record: Mapping) -> list[str]:
    lines = []
    for each, votes in zip(record["contest"]["comparisons"], record["votes"], strict=True):
        (a, b), rate = each["names"], each["overall"]["win_rate"]
        low, high = votes["sequential"]
        lines.append(
            f"{a} wins {percent(rate['value'])} against {b} by {each['scorer']} ({interval(rate)}; at any time {percent(low)} to "
            f"{percent(high)}); {votes['num_votes']:,} votes, alpha {_or_dash(votes['agreement']['krippendorff_alpha'])}"
        )
    flagged = [f"{p['name']}: {'; '.join(f['evidence'] for f in p['flags'])}" for p in record["people"] if p["flags"]]
    return [*lines, *(f"flag: {text}" for text in flagged)]


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def draw(record: Mapping) -> bytes:
    """PNG in the form of Figure 7: of each dimension a bar a system, split by rank; of pairs a bar a comparison: won, tied, lost."""
    if record["ranks"]:
        panels = {name: list(systems.items()) for name, systems in record["ranks"].items()}
        names = [f"rank {n + 1}" for n in range(len(next(iter(next(iter(record["ranks"].values())).values()))))]
    else:
        panels: dict[str, list] = {}
        for each in record["contest"]["comparisons"]:
            shares = [each["overall"][key] / each["overall"]["num_pairs"] for key in ("wins", "ties", "losses")]
            panels.setdefault(each["scorer"], []).append((" against ".join(each["names"]), shares))
        names = ["won", "tied", "lost"]
    colours = SHADES[: len(names)] if record["ranks"] else (SHADES[0], SHADES[2], SHADES[4])
    with rc_context(STYLE):
        rows = sum(len(bars) for bars in panels.values())
        figure = Figure(figsize=(7, 0.8 + 0.42 * rows + 0.35 * len(panels)), layout="constrained")
        heights = [len(bars) for bars in panels.values()]
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for place, (title, bars) in zip(axes, panels.items(), strict=True):
            _bars(place, title, bars, names, colours)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(names))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _bars(
    place, title: str, bars: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], colours: Sequence[str]
) -> None:
    labels, left = [label for label, _ in bars], [0.0] * len(bars)
    for name, colour, shares in zip(names, colours, zip(*(shares for _, shares in bars), strict=True), strict=True):
        drawn = place.barh(labels, shares, left=left, color=colour, label=name, height=0.7)
        texts = [f"{100 * share:.0f}%" if share >= 0.05 else "" for share in shares]
        place.bar_label(
            drawn, texts, label_type="center", fontsize=8, color="white" if colour in SHADES[::4] else "black"
        )
        left = [before + share for before, share in zip(left, shares, strict=True)]
    place.set_title(title)
    place.invert_yaxis()
    place.set_xlim(0, 1)
    place.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    place.grid(False)


def _page(record: Mapping, out: Path) -> str:
    comparisons = record["contest"]["comparisons"]
    budget = BUDGET // len(comparisons)
    galleries = [sections(each, out, 6, 6, rest=False, budget=budget) for each in comparisons]
    shown = {
        kind: [(row, [data_uri(Path(file)) if file else None for file in row["files"]]) for row in rows]
        for kind, rows in record["extremes"].items()
    }
    return render(
        "annotation.html",
        title=record["title"],
        record=record,
        figure=_png_uri(out / FIGURE),
        comparisons=list(zip(comparisons, record["votes"], galleries, strict=True)),
        paragraph=comparison_paragraph(comparisons[0]),
        extremes=shown,
    )


def _png_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
