"""`sipo compare`: samples of runs and folders, generated and scored where needed, the first compared with each other one."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sipo import registry
from sipo.backbones.opening import open_for_sampling, run_architecture
from sipo.errors import UsageError
from sipo.evaluate.compare.contest import Contest, contest
from sipo.evaluate.compare.files import JSON, contest_record, write_contest
from sipo.evaluate.compare.judged import Model, judge_pairs
from sipo.evaluate.compare.matches import Side
from sipo.evaluate.pages.comparison_text import means_table
from sipo.evaluate.pages.words import cautions, interval, p_text, percent
from sipo.evaluate.report.report import report, summary
from sipo.evaluate.scores.files import UNNAMED, Score, read_score_file, recorded_settings, scorer_of, scores_path
from sipo.evaluate.scores.score import scores_with
from sipo.processes import ALONE, Processes
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES, PromptItem, read_settings
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts
from sipo.scorers.choice import ScorerChoice
from sipo.scorers.judge.judges import load_pair_judge
from sipo.scorers.suited import require_suited


@dataclass(frozen=True)
class PromptChoice:
    """The prompts of a comparison; the same for all models, seed by seed."""

    path: str
    num_prompts: int | None
    images_per_prompt: int
    seed: int

    def items(self) -> list[PromptItem]:
        return read_prompts(self.path, self.num_prompts, self.seed, self.images_per_prompt)

    @property
    def name(self) -> str:
        """The name of the folder in which a run keeps its evaluation on these prompts."""
        return f"{Path(self.path).stem}-{self.num_prompts or 'all'}x{self.images_per_prompt}-seed{self.seed}"


@dataclass(frozen=True)
class CompareRequest:
    """What `sipo compare` is to do.

    models: run directories, folders of generated media, files of scores. A run alone is compared with its base model,
    and without `out` the comparison goes into the run and its report; `with_base` adds the base of the first model to
    the others. prompts: for runs. category, tie_margin: see `compare_scores`.
    """

    models: Sequence[Path]
    prompts: PromptChoice
    scorers: ScorerChoice
    out: Path | None = None
    with_base: bool = False
    category: str | None = None
    tie_margin: float = 0.0

    @property
    def folder(self) -> Path:
        """The folder of the comparison. Raises UserError for a single model that is no run."""
        if self.out:
            return self.out
        if len(self.models) == 1:
            return RunDir(self.models[0]).require().evaluation / self.prompts.name
        names = [model_name(model) for model in self.models]
        return Path("-vs-".join(names) if len(names) < 4 else f"{names[0]}-vs-{len(names) - 1}-others")


@dataclass(frozen=True)
class Entry:
    """A side of the comparison: its place is a folder of media or a file of scores; a `run` draws into it first, with
    `base_only` by the model that it started from.
    """

    name: str
    place: Path
    run: Path | None = None
    base_only: bool = False


def compare_models(request: CompareRequest, console: Console, processes: Processes = ALONE) -> str:
    """Generate what is missing and score it, by all processes; the first one compares the first model with each of the
    others, writes the pages and returns what the terminal shows; the other processes return "".
    """
    folder, judges = request.folder, [load_pair_judge(file) for file in request.scorers.pair_judges]
    entries = _entries(request, folder)
    default = registry.default_scorer(request.prompts.path)
    scorers = _scorer_names(request.scorers, [entry.place for entry in entries], default)
    _require_scorers(entries, scorers, request.scorers, processes)
    for entry in entries:
        _draw(entry, request, console, processes)
    scores = scores_with(request.scorers, console, processes)
    sides = [_side(entry.name, entry.place, scorers, scores) for entry in entries]
    first, *others = [Model(entry.name, entry.place) for entry in entries]
    judged = [
        judge_pairs(judge, first, other, folder, request.category, request.scorers.batch_size, console, processes)
        for other in others for judge in judges
    ]  # fmt: skip
    if not processes.is_main:
        return ""
    found = contest(sides, scorers, request.category, request.tie_margin, judged)
    page = write_contest(found, folder)
    if len(request.models) == 1 and not request.out:
        run = RunDir(request.models[0])
        report(run)
        return f"{summary(run)}\ncomparison: {page}"
    return f"{_summary(found, folder)}\ncomparison: {page}"


def model_name(model: Path) -> str:
    """A model's name: that of its folder, also for a file scores.NAME.jsonl in it; else that of the file."""
    model = Path(model)
    in_folder = model.is_file() and scorer_of(model) != UNNAMED
    return (model.parent if in_folder else model).resolve().name.removesuffix(".jsonl")


def _entries(request: CompareRequest, folder: Path) -> list[Entry]:
    """Every side in turn; the samples of runs are drawn into `folder`."""
    models = request.models
    if len(models) == 1 or request.with_base:
        RunDir(models[0]).require()
    if len(models) == 1:
        return [Entry(name, folder / name, models[0], name == "base") for name in ("policy", "base")]
    *names, base = _distinct([*map(model_name, models), "base"])
    entries = []
    for number, (model, name) in enumerate(zip(models, names, strict=True)):
        if RunDir(model).config.is_file():
            entries.append(Entry(name, folder / f"{_letter(number)}-{name}", model))
        else:
            entries.append(Entry(name, Path(model)))
    if request.with_base:
        entries.append(Entry(base, folder / "base", models[0], base_only=True))
    return entries


def _require_scorers(
    entries: Sequence[Entry], names: Sequence[str], chosen: ScorerChoice, processes: Processes
) -> None:
    """Before a run draws: raises UsageError for scorers that do not exist or cannot judge its samples, unless their scores
    are there.
    """
    for run in dict.fromkeys(entry.run for entry in entries if entry.run):
        places = [entry.place for entry in entries if entry.run == run]
        missing = [name for name in names if not all(scores_path(place, name).is_file() for place in places)]
        if missing:
            with processes.main_first():  # the others find what the first one downloaded
                architecture, size = run_architecture(RunDir(run))
            require_suited("--scorer", [chosen.load(name) for name in missing], architecture, size)


def _scorer_names(chosen: ScorerChoice, places: Sequence[Path], default: str) -> list[str]:
    """Those named; else those of the files of scores; else `default`, unless judges of pairs were named.

    Raises UsageError for a file of another one, and for a file and such a judge, which looks at media.
    """
    files = [place for place in places if place.is_file()]
    if files and chosen.pair_judges:
        raise UsageError(
            f"{files[0]} holds scores, and {chosen.pair_judges[0]} judges media: name the folder of its media"
        )
    unnamed = [] if chosen.pair_judges else [default]
    names = list(dict.fromkeys(chosen.names or map(scorer_of, files))) or unnamed
    for file in files:
        if len(names) > 1 or scorer_of(file) not in (names[0], UNNAMED):
            raise UsageError(
                f"{file} holds scores by {scorer_of(file)!r} alone, and {', '.join(names)} are to be compared: name the "
                "folder of its media, or files of one scorer."
            )
    return names


def _side(name: str, place: Path, scorers: Sequence[str], scores: Callable[[Path, str], list[Score]]) -> Side:
    if place.is_file():
        return Side(name, place.parent, {scorers[0]: read_score_file(place)}, {scorers[0]: recorded_settings(place)})
    found = {scorer: scores(place, scorer) for scorer in scorers}
    return Side(name, place, found, {scorer: recorded_settings(scores_path(place, scorer)) for scorer in scorers})


def _draw(entry: Entry, request: CompareRequest, console: Console, processes: Processes) -> None:
    """The run's samples of the prompts into its place: existing ones are kept, unless the weights have changed."""
    if entry.run is None:
        return
    folder, items = entry.place, request.prompts.items()
    opened = open_for_sampling(str(entry.run), entry.base_only)
    with processes.main_first():
        is_stale = (folder / SAMPLES).is_file() and read_settings(folder) != opened.settings
        if is_stale and ((folder.parent / JSON).is_file() or folder.is_relative_to(RunDir(entry.run).evaluation)):
            shutil.rmtree(folder)  # ours: it is beside a comparison, or inside the run
    size = opened.backbone.size
    batch = size.at_once if size.is_video else request.scorers.batch_size
    generate(opened.sampler, items, folder, opened.settings, batch, console, processes=processes)


def _summary(found: Contest, folder: Path) -> str:
    """A line a comparison and its cautions; with several models or scorers the table of means first."""
    record = contest_record(found, folder)
    comparisons, lines = record["comparisons"], []
    if len(comparisons) > 1 and record["table"]:
        head, rows = means_table(record["table"])
        grid = [head, *((name, *(cell.text for cell in cells)) for name, cells in rows)]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in grid]
    for each in comparisons:
        (a, b), rate, adjusted = each["names"], each["overall"]["win_rate"], each["adjusted"]
        lines.append(
            f"{a} wins {percent(rate['value'])} against {b} by {each['scorer']} ({interval(rate)}; "
            f"p mean {p_text(adjusted['p_mean'])}, p sign {p_text(adjusted['p_sign'])})"
        )
    noted = dict.fromkeys(text for each in comparisons for text in cautions(each))
    return "\n".join([*lines, *(f"note: {text}" for text in noted)])


def _distinct(names: Sequence[str]) -> list[str]:
    """The names; one that occurred before gets a number."""
    found: list[str] = []
    for name in names:
        tries = (name if number == 1 else f"{name}-{number}" for number in range(1, len(names) + 1))
        found.append(next(text for text in tries if text not in found))
    return found


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number] if number < 26 else str(number)
