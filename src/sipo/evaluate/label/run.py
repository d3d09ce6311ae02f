"""`sipo label`: AI feedback, pairs from the scores of the samples of one or more models for the same prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sipo.errors import UsageError
from sipo.evaluate.label.files import JSONL, PARQUET, require_ending, write_best, write_pairs
from sipo.evaluate.label.label import Candidate, Labels, Mode, label
from sipo.evaluate.scores.score import scores_with
from sipo.evaluate.scores.sources import find_media
from sipo.processes import ALONE, Processes
from sipo.run import RunDir
from sipo.samples.folder import read_settings
from sipo.scorers.choice import ScorerChoice


@dataclass(frozen=True)
class LabelRequest:
    """What `sipo label` is to do; mode, margin, only_right: see `label`.

    scorers: one. out: the file of pairs; sft: of the best samples, or None. seed: see `write_pairs`.
    """

    folders: Sequence[Path]
    scorers: ScorerChoice
    out: Path
    mode: Mode = "best-worst"
    margin: float = 0.0
    only_right: bool = False
    sft: Path | None = None
    seed: int = 0


def label_folders(request: LabelRequest, console: Console, processes: Processes = ALONE) -> str:
    """Score what has no score yet, by all processes; the first one makes pairs, writes the files and returns what the
    terminal shows, the others return "".

    Samples of one prompt are compared across all folders. Raises UsageError unless one scorer is named, and for a run:
    its samples and comparisons are of held-out prompts, and training on those would spoil every later comparison.
    """
    _check(request)
    scores, (scorer,) = scores_with(request.scorers, console, processes), request.scorers.names
    candidates = []
    for folder in [media.path for path in request.folders for media in find_media(path)]:
        settings = read_settings(folder)
        model = " ".join(str(settings[key]) for key in ("model", "weights") if settings.get(key)) or folder.name
        candidates += [Candidate(folder / score.sample.file, score, model) for score in scores(folder, scorer)]
    if not processes.is_main:
        return ""
    labels = label(candidates, request.mode, request.margin, request.only_right)
    lines = [_summary(labels, len(candidates))]
    if request.sft:
        lines.append(f"{len(labels.best):,} best samples: {write_best(labels.best, request.sft)}")
    pairs = labels.preferences.pairs
    lines.append(f"{len(pairs):,} pairs: {write_pairs(pairs, request.out, request.seed)}")
    return "\n".join(lines)


def _check(request: LabelRequest) -> None:
    if len(request.scorers.names) != 1:
        raise UsageError("--scorer: name one, whose scores make the pairs")
    require_ending("--out", request.out, PARQUET, JSONL)
    if request.sft:
        require_ending("--sft", request.sft, JSONL)
    for run in [folder for folder in request.folders if RunDir(folder).config.is_file()]:
        raise UsageError(
            f"{run} is a run, whose samples are of its held-out prompts. Make samples of other prompts, several a "
            f"prompt, and label those: sipo generate {run} --prompts FILE --images-per-prompt 8 --out FOLDER"
        )


def _summary(labels: Labels, num_samples: int) -> str:
    dropped = {
        "prompts with fewer than two scored samples": labels.num_alone,
        "comparisons that tied": labels.preferences.num_ties,
        "whose better sample is wrong": labels.preferences.num_wrong,
        "samples without a score": labels.num_unscored,
    }
    left = ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count)
    return f"{num_samples:,} samples of {labels.num_prompts:,} prompts" + (f"; left out: {left}" if left else "")
