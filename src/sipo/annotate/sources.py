"""What a study compares: the results of several systems for the same prompts, matched, with every problem reported."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sipo.data.bad_rows import BadRow
from sipo.data.pairs.open import open_pairs
from sipo.errors import UsageError, UserError
from sipo.evaluate.compare.matches import CATEGORIES
from sipo.evaluate.scores.sources import find_media
from sipo.run import RunDir
from sipo.samples.folder import SAMPLES, Sample

SHOWN = 40  # problems of one kind that a message lists; the rest are counted


@dataclass(frozen=True)
class System:
    """A name, the folder of its media, and its samples."""

    name: str
    folder: Path
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Question:
    """The systems' files for one prompt and seed, in the systems' order. source: the picture that all were made of."""

    prompt: str
    seed: int
    category: str | None
    files: tuple[Path, ...]
    source: Path | None = None


def open_systems(paths: Sequence[Path], prompts: str | None = None) -> list[System]:
    """Systems from folders, runs and pair manifests.

    A folder of samples is a system (`prompts`: a file for folders without samples.jsonl). A run stands for the sides of its
    one evaluation, the policy and its base. A pair manifest alone is two systems, "chosen" and "rejected".
    Raises UsageError for fewer than two, UserError for what cannot be read.
    """
    if len(paths) == 1 and paths[0].is_file():
        return _of_manifest(paths[0])
    found = []
    for path in paths:
        if RunDir(path).config.is_file():
            found += [(f"{path.resolve().name}-{side.name}", side) for side in _sides(RunDir(path))]
        else:
            found.append((path.resolve().name, path))
    names = _distinct([name for name, _ in found])
    if len(found) < 2:
        raise UsageError(
            "A study compares at least two systems: name two folders of samples, a run, or a file of pairs."
        )
    return [
        System(name, folder, tuple(find_media(folder, prompts)[0].samples))
        for name, (_, folder) in zip(names, found, strict=True)
    ]


def match(systems: Sequence[System]) -> list[Question]:
    """The prompts and seeds, with a file of every system. Raises UserError that names all missing counterparts, missing
    files, sources that differ, and samples that occur twice; nothing is dropped in silence.
    """
    problems, tables = [], []
    for system in systems:
        counts = Counter((sample.prompt, sample.seed) for sample in system.samples)
        problems += [
            f"{system.name}: {n} samples of seed {seed} for {prompt[:60]!r}; samples are matched by prompt and seed"
            for (prompt, seed), n in counts.items() if n > 1
        ]  # fmt: skip
        tables.append({(sample.prompt, sample.seed): sample for sample in system.samples})
    keys = list(dict.fromkeys(key for table in tables for key in table))
    for system, table in zip(systems, tables, strict=True):
        problems += [f"{system.name}: nothing for seed {s}, {p[:60]!r}" for p, s in keys if (p, s) not in table]
        missing = [sample.file for sample in system.samples if not os.path.exists(system.folder / sample.file)]
        problems += [f"{system.name}: {system.folder / file} does not exist" for file in missing]
    sources = {key: {_source(table[key]) for table in tables if key in table} - {None} for key in keys}
    problems += [
        f"seed {seed}, {prompt[:60]!r}: made of {' and of '.join(sorted(map(str, several)))}; expected one source"
        for (prompt, seed), several in sources.items() if len(several) > 1
    ]  # fmt: skip
    refuse("The systems do not have the same samples", problems)
    found = []
    for prompt, seed in keys:
        samples = [table[prompt, seed] for table in tables]
        files = tuple((s.folder / sample.file).resolve() for s, sample in zip(systems, samples, strict=True))
        found.append(Question(prompt, seed, _category(samples), files, next(iter(sources[prompt, seed]), None)))
    return found


def _source(sample: Sample) -> Path | None:
    return Path(sample.source).resolve() if sample.source else None


def refuse(what: str, problems: Sequence[str]) -> None:
    """Raises UserError with all problems, one a line; beyond `SHOWN` their number. Nothing without problems."""
    if problems:
        more = [f"... and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else []
        raise UserError("\n  ".join([f"{what} ({len(problems):,} problems):", *problems[:SHOWN], *more]))


def _sides(run: RunDir) -> list[Path]:
    evaluations = sorted({file.parent.parent for file in run.evaluation.rglob(SAMPLES)})
    if len(evaluations) != 1:
        found = ", ".join(str(path) for path in evaluations) or "none"
        raise UserError(
            f"{run.path}: a run stands for the sides of its one comparison, and it has {found}. Make one with "
            f"`sipo compare {run.path}`, or name the folders of samples themselves."
        )
    return sorted((file.parent for file in evaluations[0].rglob(SAMPLES)), key=lambda path: path.name != "policy")


def _of_manifest(path: Path) -> list[System]:
    if path.suffix not in (".jsonl", ".ndjson"):
        raise UserError(f"{path}: a study is made of folders, runs or a .jsonl manifest of pairs.")
    source, sides, problems = open_pairs(path), ([], []), []
    for index in range(len(source)):
        try:
            pair = source[index]
        except BadRow as error:
            problems.append(f"{source.id(index)}: {error}")
            continue
        if not (isinstance(pair.chosen, Path) and isinstance(pair.rejected, Path)):
            problems.append(f"{pair.id}: a rejected member is missing")
            continue
        for side, file in zip(sides, (pair.chosen, pair.rejected), strict=True):
            side.append(Sample(str(file), pair.prompt, index, source=str(pair.source) if pair.source else None))
    refuse(f"{path} has rows that cannot be shown", problems)
    return [System(name, path.parent, tuple(side)) for name, side in zip(("chosen", "rejected"), sides, strict=True)]


def _category(samples: Sequence[Sample]) -> str | None:
    found = (str(s.metadata[key]) for s in samples if s.metadata for key in CATEGORIES if s.metadata.get(key))
    return next(found, None)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that occur twice get a number."""
    counts, seen = Counter(names), Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if counts[name] == 1 else f"{name}-{seen[name]}")
    return found
