"""`sipo compare`: runs, folders and files of scores, generated and scored where needed, then held against the first."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.console import Console

from sipo import registry
from sipo.backbones.opening import Opened, open_for_sampling
from sipo.errors import UsageError
from sipo.evaluate.compare.contest import Contest, contest
from sipo.evaluate.compare.files import JSON, contest_record, write_contest
from sipo.evaluate.compare.sides import UNNAMED, Side, read_score_file, recorded_judges, scorer_of
from sipo.evaluate.pages.comparison_text import table_rows
from sipo.evaluate.pages.words import cautions, interval, p_text, percent
from sipo.evaluate.report.report import report, summary
from sipo.evaluate.scores.judges import scored
from sipo.evaluate.scores.score import scores_path
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES, PromptItem, read_settings
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts
from sipo.scorers.choice import ScorerChoice


@dataclass(frozen=True)
class PromptChoice:
    """Which prompts a comparison uses; the same for all models, seed by seed."""

    path: str
    num_prompts: int | None
    images_per_prompt: int
    seed: int

    def items(self) -> list[PromptItem]:
        return read_prompts(self.path, self.num_prompts, self.seed, self.images_per_prompt)

    @property
    def name(self) -> str:
        """Of the folder in which a run keeps its evaluation on these prompts."""
        return f"{Path(self.path).stem}-{self.num_prompts or 'all'}x{self.images_per_prompt}-seed{self.seed}"


def compare_models(
    models: Sequence[Path],
    prompts: PromptChoice,
    judges: ScorerChoice,
    out: Path | None,
    console: Console,
    with_base: bool = False,
    category: str | None = None,
    tie_margin: float = 0.0,
) -> str:
    """Generate what is missing, score it, compare the first with each other one, write the pages; says what was found.

    `models`: run directories, folders of generated media, files of scores. A run alone is compared with its base model,
    and the comparison goes into the run and its report; `with_base` adds that base to the others. Raises UsageError
    where there is nothing to compare with.
    """
    run = RunDir(models[0]) if len(models) == 1 and not out else None
    folder = _folder(models, prompts, out)
    places = _places(models, folder, prompts, judges.batch_size, console, with_base)
    scorers = _scorer_names(judges, [place for _, place in places])
    load = cache(judges.load)
    sides = [_side(name, place, scorers, load, judges, console) for name, place in places]
    found = contest(sides, scorers, category, tie_margin)
    page = write_contest(found, folder)
    if run:
        report(run)
        return f"{summary(run)}\ncomparison: {page}"
    return f"{_said(found, folder)}\ncomparison: {page}"


def _folder(models: Sequence[Path], prompts: PromptChoice, out: Path | None) -> Path:
    if out:
        return out
    if len(models) == 1:
        return RunDir(models[0]).require().evaluation / prompts.name
    names = [model_name(model) for model in models]
    return Path("-vs-".join(names) if len(names) < 4 else f"{names[0]}-vs-{len(names) - 1}-others")


def model_name(model: Path) -> str:
    """What a model is called: its folder's name, also of a file scores.NAME.jsonl in it; else the file's."""
    model = Path(model)
    in_folder = model.is_file() and scorer_of(model) != UNNAMED
    return (model.parent if in_folder else model).resolve().name.removesuffix(".jsonl")


def _places(
    models: Sequence[Path], folder: Path, prompts: PromptChoice, batch_size: int, console: Console, with_base: bool
) -> list[tuple[str, Path]]:
    """Name, and media folder or file of scores, of every side; a run's pictures are generated into `folder`."""
    if len(models) == 1 or with_base:
        RunDir(models[0]).require()
    if len(models) == 1:
        return [
            (name, _pictures(models[0], name == "base", folder / name, prompts, batch_size, console))
            for name in ("policy", "base")
        ]
    places = []
    *names, base = _distinct([*map(model_name, models), "base"])
    for number, (model, name) in enumerate(zip(models, names, strict=True)):
        if RunDir(model).config.is_file():
            model = _pictures(model, False, folder / f"{_letter(number)}-{name}", prompts, batch_size, console)
        places.append((name, Path(model)))
    if with_base:
        places.append((base, _pictures(models[0], True, folder / "base", prompts, batch_size, console)))
    return places


def _scorer_names(judges: ScorerChoice, places: Sequence[Path]) -> list[str]:
    """Those asked for; else those of the files of scores, else the default. UsageError where a file is of none."""
    files = [place for place in places if place.is_file()]
    names = list(dict.fromkeys(judges.names or map(scorer_of, files))) or [registry.DEFAULT]
    for file in files:
        if len(names) > 1 or scorer_of(file) not in (names[0], UNNAMED):
            raise UsageError(
                f"{file} holds scores by {scorer_of(file)!r} alone, and {', '.join(names)} are to be compared: name the "
                "folder of its media, or files of one scorer."
            )
    return names


def _side(
    name: str, place: Path, scorers: Sequence[str], load: Callable, judges: ScorerChoice, console: Console
) -> Side:  # fmt: skip
    if place.is_file():
        return Side(name, place.parent, {scorers[0]: read_score_file(place)}, {scorers[0]: recorded_judges(place)})
    scores = {scorer: scored(place, scorer, load, judges, console) for scorer in scorers}
    return Side(name, place, scores, {s: recorded_judges(scores_path(place, s)) for s in scorers})


def _pictures(
    run: Path, base_only: bool, folder: Path, prompts: PromptChoice, batch_size: int, console: Console
) -> Path:
    """The run's pictures of the prompts in `folder`, kept if they are there, made anew if the weights have changed."""
    items = prompts.items()
    opened: Opened = open_for_sampling(str(run), base_only)
    is_stale = (folder / SAMPLES).is_file() and read_settings(folder) != opened.settings
    if is_stale and ((folder.parent / JSON).is_file() or folder.is_relative_to(RunDir(run).evaluation)):
        shutil.rmtree(folder)  # ours: it lies beside a comparison, or inside the run
    return generate(opened.sampler, items, folder, opened.settings, batch_size, console)


def _said(found: Contest, folder: Path) -> str:
    """A line a comparison and its cautions; with several models or scorers the table of means first."""
    record = contest_record(found, folder)
    lines = []
    if record["more"]:
        grid = [row for part in table_rows(record["table"]) for row in (part if isinstance(part, list) else [part])]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in grid]
    for each in [record, *record["more"]]:
        (a, b), rate, adjusted = each["names"], each["overall"]["win_rate"], each["adjusted"]
        lines.append(
            f"{a} wins {percent(rate['value'])} against {b} by {each['scorer']} ({interval(rate)}; "
            f"p mean {p_text(adjusted['p_mean'])}, p sign {p_text(adjusted['p_sign'])})"
        )
    noted = dict.fromkeys(text for each in [record, *record["more"]] for text in cautions(each))
    return "\n".join([*lines, *(f"note: {text}" for text in noted)])


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, a number after those that came before."""
    found: list[str] = []
    for name in names:
        tries = (name if number == 1 else f"{name}-{number}" for number in range(1, len(names) + 1))
        found.append(next(text for text in tries if text not in found))
    return found


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number] if number < 26 else str(number)
