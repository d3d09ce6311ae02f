"""Detect, name colours, judge: from GenEval's pictures to the records that the official evaluator writes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console

from sipo.errors import UserError
from sipo.evaluate.geneval import Detection, Thresholds, judge
from sipo.evaluate.geneval_layout import Picture, class_names, read_pictures
from sipo.samples.progress import track_batches
from sipo.scorers.detectors.protocol import ColorNamer, Detector


def judge_folder(
    folder: Path,
    detector: Detector,
    name_colors: ColorNamer | None,
    thresholds: Thresholds,
    batch_size: int = 8,
    console: Console | None = None,
) -> list[dict]:
    """One record a picture of `folder` (GenEval's layout), with the fields of the official `results.jsonl`.

    The detector is asked for every class that the folder's prompts name. `name_colors` None: its detections have
    their colours already. Raises `UserError` for a picture that cannot be read.
    """
    pictures = read_pictures(folder)
    names = class_names(pictures)
    records = []
    for batch in track_batches(pictures, batch_size, console, f"Judging {folder.name}", total=len(pictures)):
        images = [_read(picture.path) for picture in batch]
        for picture, image, found in zip(batch, images, detector(images, names), strict=True):
            kept = thresholds.keep(found, picture.metadata["tag"])
            if name_colors is not None:
                kept = with_colors(image, kept, picture.metadata, name_colors)
            records.append(_record(picture, kept))
    return records


def with_colors(
    image: Image.Image, kept: dict[str, list[Detection]], metadata: dict, name_colors: ColorNamer
) -> dict[str, list[Detection]]:
    """`kept` with the colours that the prompt asks about: of the first `count` of a class, as the judge looks at them."""
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
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all that PIL raises
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}): make it anew.") from error


def _record(picture: Picture, kept: dict[str, Sequence[Detection]]) -> dict:
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
