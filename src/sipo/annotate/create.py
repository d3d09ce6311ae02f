"""`sipo annotate create`: check everything, re-encode what is shown, write the study; nothing is written before all is sound."""

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console

from sipo.annotate.media import Shape, Target, common_target, encode, kind_of, padded, shape_of
from sipo.annotate.sources import Question, match, open_systems, refuse
from sipo.annotate.store import open_store
from sipo.annotate.study import DIMENSIONS, MEDIA, STUDY, Item, Mode, Plan, Study, read_study
from sipo.data.bad_rows import BadRow
from sipo.errors import UsageError, UserError
from sipo.files import read_text, sync_directory, write_atomic
from sipo.progress import progress_bar
from sipo.yaml12 import MOST_BYTES


@dataclass(frozen=True)
class CreateRequest:
    """What `sipo annotate create` is to do.

    prompts: a prompt file for folders without samples.jsonl. num_items: prompts at most, drawn by the seed. against_first:
    compare the first system with each other one, not all with all. checks: items with a spoilt result. num_examples:
    prompts taken out of the study to illustrate the guideline. trim: cut videos to the shortest of their prompt.
    """

    paths: Sequence[Path]
    out: Path
    plan: Plan
    mode: Mode = "pairwise"
    title: str = ""
    prompts: str | None = None
    num_items: int | None = None
    dimensions: Sequence[str] = DIMENSIONS
    both_bad: bool = False
    against_first: bool = False
    checks: int = 0
    num_examples: int = 0
    guideline: Path | None = None
    max_side: int = 1536
    trim: bool = False


def create(request: CreateRequest, console: Console | None = None) -> Study:
    """Write the study's folder. Raises UserError or UsageError with all that is wrong, and then nothing was written."""
    _require_free(request.out)
    systems = open_systems(request.paths, request.prompts)
    questions = match(systems)
    _check_numbers(request, len(systems), len(questions))
    _check_title(request.title, [system.name for system in systems])
    guideline = _guideline(request.guideline)
    rng = np.random.default_rng([request.plan.seed, 0])
    chosen = [questions[n] for n in rng.permutation(len(questions))]
    examples, chosen = chosen[: request.num_examples], chosen[request.num_examples :][: request.num_items]
    shapes = _measure([*examples, *chosen], request.trim, console)
    partial = request.out.with_name(f".{request.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / MEDIA).mkdir(parents=True)
    try:
        writer = _Writer(partial / MEDIA, shapes, request.max_side)
        with progress_bar(console, "encoding", len(examples) + len(chosen)) as advance:
            shown = [writer.encode(question, advance) for question in [*examples, *chosen]]
            checks = [writer.spoil(chosen[n], request.mode) for n in range(request.checks)]
        pairs = _contests(len(systems), request)
        study = Study(
            title=request.title,
            mode=request.mode,
            kind="video" if any(each.length for shape in shapes.values() for each in shape) else "image",
            systems=tuple(system.name for system in systems),
            folders=tuple(str(system.folder.resolve()) for system in systems),
            items=tuple(_part(item, pair) for item in shown[len(examples) :] for pair in pairs) + tuple(checks),
            plan=request.plan,
            hashes=writer.hashes,
            dimensions=tuple(request.dimensions) if request.mode == "ranking" else (),
            both_bad=request.both_bad and request.mode == "pairwise",
            guideline=guideline,
            examples=tuple(_part(item, pairs[0]) for item in shown[: len(examples)]),
        )
        write_atomic(partial / STUDY, study.to_json())
        partial.rename(request.out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_directory(request.out.parent)
    return study


def _require_free(out: Path) -> None:
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return
    if not (out / STUDY).is_file():
        raise UserError(f"{out} exists already and is no study: choose another folder.")
    if (out / "votes.db").is_file():
        with open_store(out, read_study(out)) as store:
            if count := store.count_votes():
                raise UserError(
                    f"{out} is a study with {count:,} votes, which a changed study would not fit: choose another folder."
                )
    raise UserError(f"{out} holds a study already; remove it, or choose another folder.")


def _check_numbers(request: CreateRequest, num_systems: int, num_questions: int) -> None:
    plan, left = request.plan, num_questions - request.num_examples
    problems = []
    if min(plan.groups, plan.group_size) < 1 or not 1 <= plan.repeats <= plan.group_size:
        problems.append(f"--repeats: {plan.repeats} votes for each item in a group of {plan.group_size}")
    if left < 1:
        problems.append(f"--examples: {request.num_examples} of {num_questions} prompts leaves none to judge")
    elif request.checks > min(left, request.num_items or left):
        problems.append(f"--checks: {request.checks} of {left} prompts")
    shown = min(left, request.num_items or left) * plan.repeats // plan.group_size
    if plan.duplicates > shown * 3 // 4:
        problems.append(
            f"--duplicates: {plan.duplicates} of the {shown} prompts that each annotator sees; three quarters at most"
        )
    if request.mode == "ranking" and not request.dimensions:
        problems.append("--dimension: a ranking needs at least one")
    if request.mode == "ranking" and num_systems > 9:
        problems.append(f"--mode ranking: {num_systems} systems; at most 9 can be ranked by keys")
    if problems:
        raise UsageError("\n".join(problems))


def _check_title(title: str, names: Sequence[str]) -> None:
    told = [name for name in names if re.search(rf"\b{re.escape(name)}\b", title, re.IGNORECASE)]
    if told:
        raise UsageError(f"--title: {title!r} names {', '.join(told)}, and annotators see the title of a blind study.")


def _guideline(path: Path | None) -> str:
    if path is None:
        return ""
    return read_text(path, MOST_BYTES)


def _measure(questions: Sequence[Question], trim: bool, console: Console | None) -> dict[Question, list[Shape]]:
    """The shapes of each question's files. Raises UserError with every file or source that cannot be shown."""
    found, problems, kinds = {}, [], set()
    with progress_bar(console, "reading", sum(len(question.files) for question in questions)) as advance:
        for question in questions:
            shapes = []
            for file in question.files:
                try:
                    kinds.add(kind_of(file))
                    shapes.append(shape_of(file))
                except BadRow as error:
                    problems.append(_named(file, error))
                advance(1)
            if question.source:
                try:
                    if kind_of(question.source) == "video":
                        problems.append(f"the source {question.source} is a video; expected a picture")
                    shape_of(question.source)
                except BadRow as error:
                    problems.append(f"the source {_named(question.source, error)}")
            found[question] = shapes
            lengths = [shape.length for shape in shapes if shape.length]
            if not trim and any(lengths[0].differs(other) for other in lengths[1:]):
                each = ", ".join(map(str, lengths))
                problems.append(f"{question.prompt[:60]!r}: videos of {each}; --trim cuts them to the shortest")
    if len(kinds) > 1:
        problems.append("some files are images and some are videos; a study shows one kind")
    refuse("These media cannot be shown", problems)
    return found


def _named(file: Path, error: BadRow) -> str:
    return str(error) if str(file) in str(error) else f"{file}: {error}"


def _contests(num_systems: int, request: CreateRequest) -> list[tuple[int, ...]]:
    if request.mode == "ranking":
        return [tuple(range(num_systems))]
    pairs = list(combinations(range(num_systems), 2))
    return [pair for pair in pairs if pair[0] == 0] if request.against_first else pairs


def _part(item: Item, places: tuple[int, ...]) -> Item:
    """The item with the results of some systems alone."""
    media, sources = (tuple(values[n] for n in places) for values in (item.media, item.sources))
    return replace(item, systems=places, media=media, sources=sources)


class _Writer:
    """Encodes questions into files with numbers for names, and remembers the hashes."""

    def __init__(self, folder: Path, shapes: dict[Question, list[Shape]], max_side: int) -> None:
        rates = [shape.fps for each in shapes.values() for shape in each if shape.length and shape.length.timed]
        videos = any(shape.length for each in shapes.values() for shape in each)
        self.fps = (float(min(max(rates), 30)) if rates else 8.0) if videos else None
        self.folder, self.shapes, self.max_side = folder, shapes, max_side
        self.hashes: dict[str, str] = {}
        self.shown_sources: dict[Path, str] = {}

    def encode(self, question: Question, advance) -> Item:
        target = self._target(question)
        contents = [encode(file, target) for file in question.files]
        advance(1)
        return self._item(question, tuple(range(len(contents))), question.files, contents)

    def spoil(self, question: Question, mode: Mode) -> Item:
        """A check item: of a pair the first system's result twice, of a ranking all results; the last one spoilt."""
        target = self._target(question)
        files = question.files if mode == "ranking" else (question.files[0],) * 2
        places = tuple(range(len(files))) if mode == "ranking" else (0, 0)
        contents = [encode(file, target, n == len(files) - 1) for n, file in enumerate(files)]
        return replace(self._item(question, places, files, contents), worst=len(files) - 1)

    def _target(self, question: Question) -> Target:
        return common_target(self.shapes[question], self.fps, self.max_side)

    def _item(self, question: Question, systems, files: Sequence[Path], contents: Sequence[bytes]) -> Item:
        names = tuple(self._write(content, "png" if self.fps is None else "mp4") for content in padded(contents))
        sources = tuple(str(file) for file in files)
        source = (str(question.source), self._source(question.source)) if question.source else None
        return Item(question.prompt, question.seed, question.category, systems, names, sources, source=source)

    def _source(self, file: Path) -> str:
        """Its name in `folder`, a PNG of its own shape, written once however many items show it."""
        if file not in self.shown_sources:
            target = common_target([shape_of(file)], max_side=self.max_side)
            self.shown_sources[file] = self._write(encode(file, target), "png")
        return self.shown_sources[file]

    def _write(self, content: bytes, ending: str) -> str:
        name = f"{len(self.hashes):06d}.{ending}"
        write_atomic(self.folder / name, content)
        self.hashes[name] = hashlib.sha256(content).hexdigest()
        return name
