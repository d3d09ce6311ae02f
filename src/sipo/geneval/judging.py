"""Detect, name colours, judge: from GenEval's pictures to the records that the official evaluator writes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console

from sipo.errors import UserError
from sipo.geneval.detectors import ColorNamer, Detector
from sipo.geneval.layout import Picture, class_names, read_gallery
from sipo.geneval.rules import Detection, Thresholds, judge
from sipo.progress import track_batches


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
) -> Judged:
    """Judge every picture of `folder` (GenEval's layout).

    The detector looks for every class that the folder's prompts name. `name_colors` None: its detections have colours
    already. A picture that cannot be read is reported and skipped; if none can be read, a `UserError`.
    """
    gallery = read_gallery(folder)
    pictures, names = gallery.pictures, class_names(gallery.pictures)
    records: list[dict] = []
    unreadable: list[str] = []
    for batch in track_batches(pictures, batch_size, console, f"Judging {folder.name}", total=len(pictures)):
        readable, images = [], []
        for picture in batch:
            try:
                images.append(_read(picture.path))
                readable.append(picture)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all that PIL raises
                unreadable.append(f"{picture.path.relative_to(folder)} ({type(error).__name__})")
        for picture, image, found in zip(readable, images, detector(images, names) if images else [], strict=True):
            kept = thresholds.keep(found, picture.metadata["tag"])
            if name_colors is not None:
                kept = with_colors(image, kept, picture.metadata, name_colors)
            records.append(_record(picture, kept))
    if not records:
        raise UserError(f"{folder}: none of its {len(pictures)} pictures can be read, {unreadable[0]} first.")
    return Judged(records, unreadable, gallery.missing)


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
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _record(picture: Picture, kept: dict[str, list[Detection]]) -> dict:
    """The official fields; `details`: by class the boxes that counted, as x0, y0, x1, y1, score."""
    judgement = judge(picture.metadata, kept)
    boxes = {name: [[*d.box, d.score] for d in found] for name, found in kept.items()}
    return {
        "filename": str(picture.path),
        "tag": picture.metadata["tag"],
        "prompt": picture.metadata["prompt"],
        "correct": judgement.correct,
        "reason": "\n".join(judgement.reasons),
        "metadata": json.dumps(picture.metadata, ensure_ascii=False),
        "details": json.dumps(boxes, ensure_ascii=False),
    }
