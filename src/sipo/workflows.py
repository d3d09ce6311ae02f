"""What takes several packages: the commands of the command line call these, and nothing imports them."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from sipo.backbones.opening import Opened, open_for_sampling
from sipo.errors import UsageError
from sipo.evaluate.compare import compare
from sipo.evaluate.comparison_files import write_comparison
from sipo.evaluate.report import report, summary
from sipo.evaluate.score import score
from sipo.evaluate.words import interval, percent
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES, PromptItem, read_settings
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts
from sipo.scorers.base import FileScorer, Scorer


def load_scorer(
    name: str,
    weights: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    num_frames: int = 8,
) -> Scorer:
    """A scorer by name: "miniature", or one of `sipo.scorers.registry`, which takes the mean over a video's frames.

    None leaves a setting at the scorer's own default; the miniature has none. Raises UsageError for an unknown name or
    setting. Weights are read when they are first needed.
    """
    given = {"weights": weights, "device": device, "dtype": dtype, "batch_size": batch_size}
    settings = {key: value for key, value in given.items() if value is not None}
    if name == "miniature":
        from sipo.mini.score import MiniatureScorer

        if weights is not None:
            raise UsageError("the scorer miniature judges by rule and takes no weights")
        return MiniatureScorer()
    from sipo.scorers.frames import FrameMean
    from sipo.scorers.registry import SCORERS

    if name not in SCORERS:
        raise UsageError(f"scorer {name!r} is none of miniature, {', '.join(SCORERS)}")
    return FrameMean(SCORERS[name](**settings), num_frames)


def load_scorers(
    names: Sequence[str],
    weights: Mapping[str, str],
    workers: Mapping[str, str],
    device: str | None,
    dtype: str | None,
    batch_size: int,
    num_frames: int,
) -> list[Scorer | FileScorer]:
    """The scorers of `names`, then those of `workers` (name -> command). Raises UsageError, also where none is named."""
    from sipo.scorers.worker import WorkerScorer

    if not names and not workers:
        raise UsageError("--scorer: name at least one, such as --scorer pickscore")
    if unknown := sorted(weights.keys() - set(names)):
        raise UsageError(f"--weights: {', '.join(unknown)} is not among the scorers asked for")
    if twice := sorted(workers.keys() & set(names)):
        raise UsageError(f"--worker: {', '.join(twice)} is a --scorer too; choose another name")
    named = [load_scorer(n, weights.get(n), device, dtype, batch_size, num_frames) for n in dict.fromkeys(names)]
    return [*named, *(WorkerScorer(name, command) for name, command in workers.items())]


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
