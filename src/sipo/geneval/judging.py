"""Detect, name colours, judge, by all processes: from GenEval's pictures to the records that the official evaluator writes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from rich.console import Console

from sipo.data.media.kinds import MAX_PICTURE_BYTES
from sipo.errors import UserError
from sipo.files import digest, hash_file, open_regular, room_in
from sipo.geneval.detectors import ColorNamer, Detector
from sipo.geneval.layout import Picture, class_names, read_gallery
from sipo.geneval.rules import Detection, Thresholds, judge
from sipo.processes import ALONE, Processes, batches
from sipo.processes.journal import Journal
from sipo.scorers.base import recorded
from sipo.threads import read_ahead

JUDGING = "judging.jsonl"  # what is judged so far; gone when all is


@dataclass(frozen=True)
class Judged:
    """A record a picture, with the fields of the official `results.jsonl`; and what could not be judged, by name."""

    records: list[dict]
    unreadable: list[str]
    missing: list[str]

    @property
    def problems(self) -> list[str]:
        """One sentence for each kind of problem."""
        kinds = {"could not be read and were not judged": self.unreadable, "are missing": self.missing}
        return [f"{len(names)} {what}: {'; '.join(names)}" for what, names in kinds.items() if names]


def judge_folder(
    folder: Path,
    detector: Detector,
    name_colors: ColorNamer | None,
    thresholds: Thresholds,
    batch_size: int = 8,
    console: Console | None = None,
    processes: Processes = ALONE,
) -> Judged:
    """Judge every picture of `folder` (GenEval's layout).

    The detector looks for every class that the folder's prompts name. `name_colors` None: its detections have colours
    already. A picture that cannot be read is reported and skipped; if none can be read, a `UserError`.

    All `processes` call it, and get the same. Each judges whole batches, those of one process. What a killed call has
    judged is taken over if everything is as it was.
    """
    gallery = read_gallery(folder)
    pictures = {str(picture.path.relative_to(folder)): picture for picture in gallery.pictures}
    names = class_names(gallery.pictures)
    by = [_settings(detector), _settings(name_colors), asdict(thresholds), names]
    journal = Journal(folder / JUDGING, processes)
    done = journal.begin(
        lambda line: line["file"] in pictures and line.get("made_by") == _made_by(by, pictures[line["file"]])
    )
    missing = [file for file in pictures if file not in done]
    with (
        room_in(folder, kept=lambda: f"{len(journal.lines())} of {len(pictures)} judgements are kept"),
        processes.progress(console, f"Judging {folder.name}", len(pictures), len(done)) as advance,
    ):
        read = partial(_read_all, pictures, by)
        for batch, opened in read_ahead(processes.share(batches(missing, batch_size)), read):
            readable = [(line, picture, image) for line, picture, image in opened if image is not None]
            found = detector([image for _, _, image in readable], names) if readable else []
            for (line, picture, image), detections in zip(readable, found, strict=True):
                kept = thresholds.keep(detections, picture.metadata["tag"])
                if name_colors is not None:
                    kept = with_colors(image, kept, picture.metadata, name_colors)
                line["record"] = _record(picture, kept)
            journal.add(line for line, _, _ in opened)
            advance(len(batch))
    lines = journal.finish(pictures)
    if processes.is_main:
        journal.path.unlink(missing_ok=True)
    records = [{"filename": str(pictures[f].path), **line["record"]} for f, line in lines.items() if "record" in line]
    unreadable = [f"{file} ({line['unreadable']})" for file, line in lines.items() if "unreadable" in line]
    if not records:
        raise UserError(f"{folder}: none of its {len(pictures)} pictures can be read, {unreadable[0]} first.")
    return Judged(records, unreadable, gallery.missing)


def _settings(part: object) -> Any:
    """What the judgements of a detector or namer of colours depend on; of another package's, its name."""
    name = getattr(part, "name", None)
    return [name, recorded(part) if is_dataclass(part) else None]


def _made_by(by: list, picture: Picture) -> str:
    """A hash of all that a judgement depends on."""
    try:
        content = hash_file(picture.path)
    except (OSError, UserError):
        content = None
    return digest([by, picture.metadata, content])


def _read_all(
    pictures: dict[str, Picture], by: list, batch: Sequence[str]
) -> list[tuple[dict[str, Any], Picture, Image.Image | None]]:
    """Of each the line, still without its record, and the picture, opened; None and the reason where it cannot be read."""
    found: list[tuple[dict[str, Any], Picture, Image.Image | None]] = []
    for file in batch:
        line, image = {"file": file, "made_by": _made_by(by, pictures[file])}, None
        try:
            image = _read(pictures[file].path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, UserError) as error:  # PIL raises all
            line["unreadable"] = type(error).__name__
        found.append((line, pictures[file], image))
    return found


def with_colors(
    image: Image.Image, kept: dict[str, list[Detection]], metadata: dict, name_colors: ColorNamer
) -> dict[str, list[Detection]]:
    """`kept` with the colours that the prompt names: of the first `count` of a class, which the judge looks at."""
    colored = dict(kept)
    for clause in metadata["include"]:
        name, count = clause["class"], clause["count"]
        if "color" in clause and len(kept.get(name, [])) >= count:
            first = kept[name][:count]
            tints = name_colors(image, first, name)
            tinted = [replace(detection, color=tint) for detection, tint in zip(first, tints, strict=True)]
            colored[name] = tinted + colored[name][count:]
    return colored


def _read(path: Path) -> Image.Image:
    with open_regular(path, MAX_PICTURE_BYTES) as file, Image.open(file) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _record(picture: Picture, kept: dict[str, list[Detection]]) -> dict:
    """The official fields but `filename`; `details`: by class the boxes that counted, as x0, y0, x1, y1, score."""
    judgement = judge(picture.metadata, kept)
    boxes = {name: [[*d.box, d.score] for d in found] for name, found in kept.items()}
    return {
        "tag": picture.metadata["tag"],
        "prompt": picture.metadata["prompt"],
        "correct": judgement.correct,
        "reason": "\n".join(judgement.reasons),
        "metadata": json.dumps(picture.metadata, ensure_ascii=False),
        "details": json.dumps(boxes, ensure_ascii=False),
    }
