"""`sipo annotate`: blind human evaluation, and preference pairs out of votes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sipo.cli.common import console, say

annotate = typer.Typer(no_args_is_help=True, help="Human evaluation: blind side-by-side votes, reports, pairs.")
StudyFolder = Annotated[Path, typer.Argument(help="A folder that `sipo annotate create` made.", show_default=False)]
Database = Annotated[
    str | None,
    typer.Option(
        help="postgresql://... for a team; or in the variable SIPO_ANNOTATE_DATABASE. Default: SQLite in the study."
    ),
]
Rule = Annotated[
    Literal["tie", "plurality"], typer.Option(help="2-1-1 of 4 votes: a tie (the paper's), or the most frequent label.")
]


def _need_extra() -> None:
    from importlib.util import find_spec

    from sipo.errors import UserError

    missing = [name for name in ("fastapi", "uvicorn", "sqlalchemy") if find_spec(name) is None]
    if missing:
        raise UserError(f"`sipo annotate` needs {', '.join(missing)}: pip install 'sipo[annotate]'.")


@annotate.command("solo")
def solo(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Samples, several a prompt; prompts are matched across folders.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="The .jsonl manifest that `sipo train` reads.")],
    prompts: Annotated[str | None, typer.Option(help="The prompts of folders without samples.jsonl.")] = None,
    pairs: Annotated[
        Literal["judged", "best-worst", "all"], typer.Option(help="Which pairs of a prompt are written.")
    ] = "judged",
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Looks at each sample; default: log2 of the samples of a prompt.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the order and the sides.")] = 0,
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Build your own pairs: one person, keyboard only, K samples a prompt. Run the same command again to go on.

    A Swiss tournament: a ranking of 8 takes 12 looks. Every answer is kept at once; OUT is written anew after each prompt.
    """
    _need_extra()
    from sipo.annotate.solo import SoloRequest, run_solo

    say(run_solo(SoloRequest(folders, out, prompts, pairs, rounds, seed, port, browser), say))


@annotate.command("power")
def power(
    win_rate: Annotated[list[float] | None, typer.Option(help="Of single votes; may be repeated.")] = None,
    ties: Annotated[float, typer.Option(min=0, max=0.9, help="Share of ties among the votes.")] = 0.15,
    likeness: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Correlation of two people's votes on one item.")
    ] = 0.3,
    chance: Annotated[float, typer.Option(min=0.5, max=0.99, help="With which the interval clears one half.")] = 0.8,
    rule: Rule = "tie",
) -> None:
    """Before a study: how many items and annotators a win rate needs for its interval to clear one half."""
    from sipo.annotate.power import power_table

    say(power_table(win_rate or [0.52, 0.55, 0.6, 0.65, 0.7], ties, likeness, chance, rule))


@annotate.command("create")
def create(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more folders of samples, runs with a comparison, or one .jsonl manifest of pairs.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The study's folder, new.")],
    mode: Annotated[
        Literal["pairwise", "ranking"], typer.Option(help="A against B, or all systems ranked on dimensions.")
    ] = "pairwise",
    groups: Annotated[int, typer.Option(min=1, help="Groups; each judges all items.")] = 3,
    group_size: Annotated[int, typer.Option(min=1, help="Annotators in a group.")] = 4,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Votes for each item in a group; default: everybody's.")
    ] = None,
    num_items: Annotated[int | None, typer.Option(min=1, help="Prompts at most, drawn by the seed.")] = None,
    duplicates: Annotated[int, typer.Option(min=0, help="Items that each annotator sees a second time.")] = 0,
    checks: Annotated[int, typer.Option(min=0, help="Items with a result that is spoilt on purpose.")] = 0,
    examples: Annotated[
        int, typer.Option(min=0, help="Prompts taken out of the study to illustrate the guideline.")
    ] = 0,
    dimension: Annotated[list[str] | None, typer.Option(help="Of a ranking; may be repeated.")] = None,
    both_bad: Annotated[
        bool, typer.Option("--both-bad", help="Offer this answer; it counts as a tie and makes no pair.")
    ] = False,
    against_first: Annotated[
        bool, typer.Option("--against-first", help="The first system with each other one, not all pairs.")
    ] = False,
    prompts: Annotated[str | None, typer.Option(help="The prompts of folders without samples.jsonl.")] = None,
    guideline: Annotated[Path | None, typer.Option(help="A text file; default: the paper's instruction.")] = None,
    title: Annotated[str, typer.Option(help="What annotators see; must not name a system.")] = "",
    max_side: Annotated[int, typer.Option(min=16, help="Pixels; larger media are reduced.")] = 1536,
    trim: Annotated[bool, typer.Option("--trim", help="Cut videos to the shortest of their prompt.")] = False,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
) -> None:
    """Check, re-encode and plan a study; nothing is written before everything is sound."""
    _need_extra()
    from sipo.annotate.create import CreateRequest
    from sipo.annotate.create import create as make
    from sipo.annotate.study import DIMENSIONS, Plan

    plan = Plan(groups, group_size, repeats or group_size, duplicates, seed)
    request = CreateRequest(
        paths, out, plan, mode, title, prompts, num_items, dimension or DIMENSIONS, both_bad, against_first, checks,
        examples, guideline, max_side, trim,
    )  # fmt: skip
    study = make(request, console())
    people = plan.annotators()
    say(
        f"{out}: {len(study.items) - checks} items of {len(study.systems)} systems, {len(people)} annotators, "
        f"{sum(len(study.slots(*person)) for person in people):,} showings. Next: sipo annotate serve {out}"
    )


@annotate.command("serve")
def serve(
    study: StudyFolder,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 to be reached from other machines; put HTTPS in front.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 8765,
    url: Annotated[
        str | None, typer.Option(help="What the personal links begin with; default: http://HOST:PORT.")
    ] = None,
    database: Database = None,
    texts: Annotated[
        Path | None, typer.Option(help="A translation of the page: a copy of annotate/page/texts.json.")
    ] = None,
) -> None:
    """Serve the study's page. Personal links are written to links.csv in the study the first time."""
    _need_extra()
    from sipo.annotate.serve import ServeRequest
    from sipo.annotate.serve import serve as run

    run(ServeRequest(study, host, port, url, database, texts), say)


@annotate.command("links")
def links(
    study: StudyFolder,
    url: Annotated[str, typer.Option(help="What the links begin with.")] = "http://127.0.0.1:8765",
    database: Database = None,
) -> None:
    """Write new personal links for everybody; earlier ones stop working, votes stay."""
    _need_extra()
    from sipo.annotate.people import issue_links
    from sipo.annotate.serve import database_url

    say(issue_links(study, url, database_url(database)))


@annotate.command("discard")
def discard(
    study: StudyFolder,
    annotator: Annotated[str, typer.Argument(help="Such as g2-3.", show_default=False)],
    replace: Annotated[
        bool, typer.Option("--replace", help="A new annotator of the group takes what nobody else can.")
    ] = False,
    url: Annotated[str, typer.Option(help="What the new annotator's link begins with.")] = "http://127.0.0.1:8765",
    database: Database = None,
) -> None:
    """Leave an annotator's votes out, and hand the items on within the group. The votes stay on record."""
    _need_extra()
    from sipo.annotate.people import discard_and_say
    from sipo.annotate.serve import database_url

    say(discard_and_say(study, annotator, replace, url, database_url(database)))


@annotate.command("report")
def report(
    source: Annotated[Path, typer.Argument(help="A study, or a CSV of votes.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder; default: report in the study, or beside the CSV.")] = None,
    rule: Rule = "tie",
    database: Database = None,
) -> None:
    """Win rates, ranks, strengths, agreement, annotators: report.html, figure.png, report.json, votes.csv."""
    _need_extra()
    from sipo.annotate.report import report as write
    from sipo.annotate.serve import database_url

    say(write(source, out, rule, database_url(database)))


@annotate.command("export")
def export(
    source: Annotated[Path, typer.Argument(help="A study, or a CSV of votes with files.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .jsonl manifest that `sipo train` reads.")],
    ties: Annotated[
        Literal["drop", "half"], typer.Option(help="Leave tied items out, or write them with strength 0.5.")
    ] = "drop",
    dimension: Annotated[str | None, typer.Option(help="Of a ranking; default: the last one.")] = None,
    rule: Rule = "tie",
    database: Database = None,
) -> None:
    """Votes as preference pairs: label by majority, strength by the share of votes."""
    _need_extra()
    from sipo.annotate.export import export as write
    from sipo.annotate.serve import database_url

    say(write(source, out, rule, ties, dimension, database_url(database)))


@annotate.command("import")
def import_votes(
    files: Annotated[
        list[Path], typer.Argument(help="CSV, or JSON of Label Studio, Argilla or Rapidata.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The CSV that `report` and `export` read.")],
) -> None:
    """Read votes that were made elsewhere."""
    _need_extra()
    from sipo.annotate.foreign import import_files

    say(import_files(files, out))
