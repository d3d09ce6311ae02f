"""`sipo label`: AI feedback, pairs from the scores of what models drew for the same prompts."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rich.console import Console

from sipo.errors import UsageError
from sipo.evaluate.label.files import JSONL, PARQUET, require_ending, write_best, write_pairs
from sipo.evaluate.label.label import Candidate, Labels, Mode, label
from sipo.evaluate.scores.judges import scored
from sipo.evaluate.scores.sources import find_media
from sipo.run import RunDir
from sipo.samples.folder import read_settings
from sipo.scorers.choice import ScorerChoice


def label_folders(
    folders: Sequence[Path],
    judges: ScorerChoice,
    mode: Mode,
    margin: float,
    only_right: bool,
    out: Path,
    sft: Path | None,
    seed: int,
    console: Console,
) -> str:
    """Score what has no score yet, pair it, write the files; returns what the terminal shows.

    Samples of one prompt are compared across all folders. Raises UsageError unless `judges` names one scorer, and for a
    run: its samples and comparisons are of held-out prompts, and training on those would spoil every later comparison.
    """
    if len(judges.names) != 1:
        raise UsageError("--scorer: name one, whose scores make the pairs")
    require_ending("--out", out, PARQUET, JSONL)
    if sft:
        require_ending("--sft", sft, JSONL)
    for run in [folder for folder in folders if RunDir(folder).config.is_file()]:
        raise UsageError(
            f"{run} is a run, whose samples are of its held-out prompts. Make samples of other prompts, several a "
            f"prompt, and label those: sipo generate {run} --prompts FILE --images-per-prompt 8 --out FOLDER"
        )
    load, (scorer,) = cache(judges.load), judges.names
    candidates = []
    for folder in [media.path for path in folders for media in find_media(path)]:
        settings = read_settings(folder)
        model = " ".join(str(settings[key]) for key in ("model", "weights") if settings.get(key)) or folder.name
        found = scored(folder, scorer, load, judges, console)
        candidates += [Candidate(folder / score.sample.file, score, model) for score in found]
    labels = label(candidates, mode, margin, only_right)
    lines = [_said(labels, len(candidates))]
    if sft:
        lines.append(f"{len(labels.best):,} best samples: {write_best(labels.best, sft)}")
    lines.append(f"{len(labels.pairs):,} pairs: {write_pairs(labels.pairs, out, seed)}")
    return "\n".join(lines)


def _said(labels: Labels, num_samples: int) -> str:
    dropped = {
        "prompts with fewer than two scored samples": labels.num_alone,
        "comparisons that tied": labels.num_ties,
        "whose better sample is wrong": labels.num_wrong,
        "samples without a score": labels.num_unscored,
    }
    left = ", ".join(f"{count:,} {what}" for what, count in dropped.items() if count)
    return f"{num_samples:,} samples of {labels.num_prompts:,} prompts" + (f"; left out: {left}" if left else "")
