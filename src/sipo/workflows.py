"""What takes several packages: the commands of the command line call these, and nothing imports them."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from sipo.backbones.opening import Opened, open_for_sampling
from sipo.errors import UsageError
from sipo.evaluate.compare import compare
from sipo.evaluate.comparison_files import write_comparison
from sipo.evaluate.report import report, summary
from sipo.evaluate.score import Scorer, score
from sipo.evaluate.words import interval, percent
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES, PromptItem, read_settings
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts

SCORERS = ("miniature",)


def load_scorer(name: str) -> Scorer:
    """A scorer by name. Raises UsageError for an unknown one."""
    if name != "miniature":
        raise UsageError(f"scorer {name!r} is none of {', '.join(SCORERS)}")
    from sipo.mini.score import MiniatureScorer

    return MiniatureScorer()


@dataclass(frozen=True)
class PromptChoice:
    """Which prompts a comparison uses; the same for both sides, seed by seed."""

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
    a: Path,
    b: Path | None,
    prompts: PromptChoice,
    scorer_name: str,
    out: Path | None,
    batch_size: int,
    console: Console,
) -> str:
    """Generate what is missing, score it, compare, write the pages; returns what the terminal shows.

    `a`, `b`: run directories, or folders of pictures. `b` None: the base model of the run `a`, and the comparison goes
    into the run and its report.
    """
    scorer = load_scorer(scorer_name)
    if b is None:
        run = RunDir(a).require()
        folder, names = out or run.evaluation / prompts.name, ("policy", "base")
        first = _pictures(a, False, folder / "policy", prompts, batch_size, console)
        second = _pictures(a, True, folder / "base", prompts, batch_size, console)
    else:
        folder, names = out or Path(f"{a.name}-vs-{b.name}"), (a.name, b.name)
        first = _side(a, folder / f"a-{a.name}", prompts, batch_size, console)
        second = _side(b, folder / f"b-{b.name}", prompts, batch_size, console)
    for pictures in (first, second):
        score(pictures, scorer, batch_size, console)
    comparison = compare(first, second, scorer.name, names)
    page = write_comparison(comparison, folder)
    if b is None:
        report(run)
        return f"{summary(run)}\ncomparison: {page}"
    rate = comparison.overall.win_rate
    return f"{names[0]} wins {percent(rate.value)} against {names[1]} ({interval(asdict(rate))})\ncomparison: {page}"


def _side(path: Path, folder: Path, prompts: PromptChoice, batch_size: int, console: Console) -> Path:
    """A folder of pictures as it is; a run's are generated."""
    return path if (path / SAMPLES).is_file() else _pictures(path, False, folder, prompts, batch_size, console)


def _pictures(
    run: Path, base_only: bool, folder: Path, prompts: PromptChoice, batch_size: int, console: Console
) -> Path:
    """The run's pictures of the prompts in `folder`, kept if they are there, made anew if the weights have changed."""
    items = prompts.items()
    opened: Opened = open_for_sampling(str(run), base_only)
    if folder.is_dir() and read_settings(folder) != opened.settings:
        shutil.rmtree(folder)
    return generate(opened.sampler, items, folder, opened.settings, batch_size, console)
