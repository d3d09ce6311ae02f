"""VBench's prompts, the names of the videos it looks for, and the results that the official package writes.

Source: Vchitect/VBench, prompts/README.md and vbench/__init__.py. A video is `{prompt}-{i}.mp4`; 5 videos a prompt, 25 for
the prompts of temporal_flickering, of which its static filter keeps 5. All videos are in one folder with nothing else in
it: the package takes the ending of any one file there for that of all.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sipo.errors import UserError, printable, shown
from sipo.files import read_text, visible
from sipo.samples.folder import SAMPLES, PromptItem, read_samples
from sipo.vbench.totals import DIMENSIONS, out_of_range

VIDEO_FOLDER = "videos"  # inside the folder of a model
VIDEOS = 5
FLICKERING, FLICKERING_VIDEOS = "temporal_flickering", 25
RESULTS = "_eval_results.json"

SUITES = {
    "background_consistency": "scene",
    "motion_smoothness": "subject_consistency",
    "dynamic_degree": "subject_consistency",
    "aesthetic_quality": "overall_consistency",
    "imaging_quality": "overall_consistency",
}
"""Dimensions that are judged on another's prompts; every other has a prompt file of its own."""


@dataclass(frozen=True)
class VideoPrompt:
    """A prompt and all dimensions that are judged on it; `text` is what to generate from (rewritten or the prompt)."""

    prompt: str
    dimensions: tuple[str, ...]
    text: str

    @property
    def num_videos(self) -> int:
        return FLICKERING_VIDEOS if FLICKERING in self.dimensions else VIDEOS

    def names(self) -> list[str]:
        return [f"{self.prompt}-{i}.mp4" for i in range(self.num_videos)]


def read_suite(
    path: Path, dimensions: Sequence[str] = tuple(DIMENSIONS), rewritten: Path | None = None
) -> list[VideoPrompt]:
    """The prompts that `dimensions` are judged on, each once, in order, from VBench_full_info.json or the folder prompts_per_dimension.

    `rewritten`: a text file with a line for each entry of VBench_full_info.json (946; some prompts come twice), as
    VBench's augmented_prompts are. Raises `UserError` for anything else, and for unknown dimensions.
    """
    unknown = [name for name in dimensions if name not in DIMENSIONS]
    if unknown:
        raise UserError(f"VBench has no dimension {', '.join(unknown)}; it has {', '.join(DIMENSIONS)}.")
    path = Path(path)
    if path.is_dir() and rewritten:
        raise UserError("Rewritten prompts are matched with VBench_full_info.json, line by line: pass that file.")
    entries = _read_folder(path) if path.is_dir() else _read_info(path)
    texts = _read_lines(rewritten) if rewritten else [prompt for prompt, _ in entries]
    if len(texts) != len(entries):
        raise UserError(f"{rewritten} holds {len(texts)} lines, {path} {len(entries)} prompts: one is needed for each.")
    merged: dict[str, VideoPrompt] = {}
    for (prompt, asked), text in zip(entries, texts, strict=True):
        if set(asked) & set(dimensions):
            first = merged.get(prompt, VideoPrompt(prompt, (), text))
            merged[prompt] = VideoPrompt(prompt, tuple(dict.fromkeys(first.dimensions + asked)), first.text)
    for prompt in merged:
        if "/" in prompt or len(prompt.encode()) > 240:
            raise UserError(f"{path}: {prompt[:60]!r} cannot name a file.")
    return list(merged.values())


def plan_videos(suite: Sequence[VideoPrompt], seed: int = 0) -> tuple[list[PromptItem], list[str]]:
    """What to make, and the official name of each. Video i of the list gets the seed `seed + i`."""
    named = [(entry, name) for entry in suite for name in entry.names()]
    items = [
        PromptItem(entry.text, seed + i, {"prompt": entry.prompt, "dimensions": list(entry.dimensions)})
        for i, (entry, _) in enumerate(named)
    ]
    return items, [name for _, name in named]


def name_videos(folder: Path, names: Sequence[str], videos: Path) -> None:
    """Give each video of the media folder its official name in `videos`: a hard link, or a copy where none can be made."""
    videos.mkdir(parents=True, exist_ok=True)
    for sample, name in zip(read_samples(folder), names, strict=True):
        target = videos / name
        if target.exists():
            continue
        try:
            os.link(folder / sample.file, target)
        except OSError:
            shutil.copyfile(folder / sample.file, target)


def made_for(folder: Path) -> list[str]:
    """The dimensions whose videos a folder of `sipo vbench generate` holds; all sixteen for videos made elsewhere.

    Raises `UserError` if videos are still missing.
    """
    if not (folder / SAMPLES).exists():
        return list(DIMENSIONS)
    samples = read_samples(folder)
    number = len(visible(folder, (folder / VIDEO_FOLDER).glob("*.mp4")))
    if number < len(samples):
        raise UserError(f"{folder / VIDEO_FOLDER} holds {number} videos of {len(samples)}: generate the rest first.")
    found = {name for sample in samples for name in (sample.metadata or {}).get("dimensions", [])}
    return [name for name in DIMENSIONS if name in found]


def read_results(folder: Path) -> dict[str, float]:
    """Raw scores by dimension from every `*_eval_results.json` under `folder` (their first value; the rest is per video).

    Raises `UserError` without the folder, where a file is not one, where a score is NaN or outside its dimension's range,
    or where two disagree about a dimension.
    """
    if not Path(folder).is_dir():
        raise UserError(f"There is no folder {folder}.")
    scores: dict[str, float] = {}
    for path in visible(folder, Path(folder).rglob(f"*{RESULTS}")):
        try:
            content = json.loads(read_text(path))
            found = {name: _number(value[0]) for name, value in content.items()}
        except (AttributeError, TypeError, ValueError, LookupError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{path}: expected dimensions with a list each, the score first ({printable(error)})."
            ) from error
        if wrong := out_of_range(found):
            told = "; ".join(f"{found[name]:g} for {name}, expected {expected}" for name, expected in wrong.items())
            raise UserError(f"{path}: {told}. Remove the file, and judge these dimensions again.")
        for name, value in found.items():
            if scores.setdefault(name, value) != value:
                raise UserError(f"{path} has {value} for {name}, another file {scores[name]}: remove the outdated one.")
    return scores


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{shown(value, 60)} is no number")
    return float(value)


def _read_info(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    if not path.is_file():
        raise UserError(f"There is no {path}: pass VBench_full_info.json, or the folder prompts_per_dimension.")
    try:
        return [(entry["prompt_en"].strip(), tuple(entry["dimension"])) for entry in json.loads(read_text(path))]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: expected a list of objects with prompt_en and dimension ({error}).") from error


def _read_folder(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    sharing = {name: SUITES.get(name, name) for name in DIMENSIONS}
    files = [path for path in visible(folder, folder.glob("*.txt")) if path.stem in sharing.values()]
    if not files:
        raise UserError(f"{folder} holds no prompt file of VBench, such as {FLICKERING}.txt.")
    return [
        (line, tuple(name for name, suite in sharing.items() if suite == path.stem))
        for path in files
        for line in _read_lines(path)
    ]


def _read_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in read_text(path).split("\n") if line.strip()]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}).") from error
