"""GenEval from a model to a table: make the pictures in the official layout, judge them, set models side by side."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from sipo.errors import UsageError, UserError
from sipo.geneval.detectors.protocol import ColorNamer, Detector, Found
from sipo.geneval.judging import judge_folder
from sipo.geneval.layout import (
    plan_pictures,
    read_gallery,
    read_metadata,
    read_rewritten,
    refuse_foreign,
    write_metadata,
)
from sipo.geneval.results import as_csv, as_jsonl, as_markdown, read_official, read_summary, write_results
from sipo.geneval.rules import Thresholds
from sipo.samples.folder import read_settings
from sipo.samples.generate import generate

OFFICIAL_ELSEWHERE = (
    "note: the official thresholds (0.3; 0.9 for counting) were chosen for Mask2Former; other detectors' scores mean "
    "something else. Choose --threshold and --counting-threshold for this one, and keep them for all models you compare."
)
DETECTORS = ("mask2former", "owlv2", "grounding-dino", "yolo-world", "miniature")
FORMATS = {"markdown": as_markdown, "csv": as_csv, "jsonl": as_jsonl}


@dataclass(frozen=True)
class MiniatureDetector:
    """The miniature's own detector, by rule: it knows its world's shapes whatever it is asked for, and their colours."""

    name: str = "miniature"

    def __call__(self, images: Sequence[Image.Image], classes: Sequence[str]) -> list[Found]:
        from sipo.mini.detector import detect

        return [detect(image) for image in images]


def generate_pictures(
    model: str,
    metadata: str,
    out: Path,
    images_per_prompt: int,
    rewritten: str | None,
    seed: int,
    num_inference_steps: int | None,
    guidance_scale: float | None,
    batch_size: int,
    console: Console,
) -> int:
    """Fill `out` with the pictures that it lacks, and return how many it holds. Raises UserError for a video model."""
    from sipo.backbones.opening import open_for_sampling

    if images_per_prompt < 1:
        raise UsageError("--images-per-prompt must be at least 1")
    entries = read_metadata(metadata)
    texts = read_rewritten(rewritten, entries) if rewritten else [entry["prompt"] for entry in entries]
    items, files = plan_pictures(entries, texts, images_per_prompt, seed)
    refuse_foreign(out)
    opened = open_for_sampling(model, False, num_inference_steps, guidance_scale)
    if "fps" in opened.settings:
        raise UserError(f"{model} makes videos; GenEval judges pictures.")
    settings = {**opened.settings, "benchmark": "geneval", "prompts": "rewritten" if rewritten else "raw"}
    generate(opened.sampler, items, out, settings, batch_size, console, files)
    write_metadata(out, entries)
    return len(items)


def load_detector(name: str, weights: str | None = None, device: str = "auto") -> Detector:
    """A detector by name. Raises UsageError for an unknown one, and for weights of the miniature's."""
    options: dict[str, Any] = {"device": device} | ({"weights": weights} if weights else {})
    match name:
        case "mask2former":
            from sipo.geneval.detectors.mask2former import Mask2Former

            return Mask2Former(**options)
        case "owlv2":
            from sipo.geneval.detectors.owlv2 import Owlv2

            return Owlv2(**options)
        case "grounding-dino":
            from sipo.geneval.detectors.grounding_dino import GroundingDino

            return GroundingDino(**options)
        case "yolo-world":
            from sipo.geneval.detectors.yolo_world import YoloWorld

            return YoloWorld(**options)
        case "miniature":
            if weights:
                raise UsageError("the detector miniature works by rule and has no weights")
            return MiniatureDetector()
    raise UsageError(f"detector {name!r} is none of {', '.join(DETECTORS)}")


def default_thresholds(detector: str) -> Thresholds:
    """The official ones, but for the miniature: its score is an overlap with the ideal shape, and is cut off already."""
    return Thresholds(score=0.0, counting=0.0) if detector == "miniature" else Thresholds()


def judge_pictures(
    folder: Path,
    detector_name: str,
    weights: str | None,
    color_weights: str | None,
    threshold: float | None,
    counting_threshold: float | None,
    max_overlap: float | None,
    device: str,
    batch_size: int,
    console: Console,
) -> tuple[str, list[str]]:
    """Judge `folder`, write its results beside the pictures, and return the table, and what could not be judged.

    `None`: the detector's default. Raises UsageError for thresholds outside [0, 1].
    """
    asked = {"score": threshold, "counting": counting_threshold, "max_overlap": max_overlap}
    given = {name: value for name, value in asked.items() if value is not None}
    for name, value in given.items():
        if not 0 <= value <= 1:
            raise UsageError(f"the threshold {name} is a share between 0 and 1, not {value}")
    thresholds = replace(default_thresholds(detector_name), **given)
    detector = load_detector(detector_name, weights, device)
    if detector_name not in ("mask2former", "miniature") and (threshold is None or counting_threshold is None):
        console.print(OFFICIAL_ELSEWHERE, highlight=False)
    colors = _colors(folder, color_weights, device) if detector_name != "miniature" else None
    judged = judge_folder(folder, detector, colors, thresholds, batch_size, console)
    settings = read_settings(folder)
    about = {
        "name": _name(folder, settings),
        "prompts": settings.get("prompts", "not recorded"),
        "detector": detector.name,
        "colors": getattr(colors, "weights", "the detector's"),
        "thresholds": asdict(thresholds),
        "generation": settings,
        "unreadable": judged.unreadable,
        "missing": judged.missing,
    }
    return as_markdown([write_results(folder, judged.records, about)]), judged.problems


def compare_results(folders: Sequence[Path], form: str) -> str:
    """The table of the paper's Table 3, a row a judged folder, or a results.jsonl of the official evaluator.

    Raises UsageError for an unknown format.
    """
    if form not in FORMATS:
        raise UsageError(f"--format: {form!r} is none of {', '.join(FORMATS)}")
    return FORMATS[form]([read_official(path) if path.is_file() else read_summary(path) for path in folders])


def _colors(folder: Path, weights: str | None, device: str) -> ColorNamer | None:
    """CLIP where any prompt of the folder names a colour; its weights are read when the first is needed."""
    if not any(
        "color" in clause for picture in read_gallery(folder).pictures for clause in picture.metadata["include"]
    ):
        return None
    from sipo.geneval.detectors.colour import ClipColors

    return ClipColors(**({"weights": weights} if weights else {}), device=device)


def _name(folder: Path, settings: dict) -> str:
    """What the row is called: the run with its weights, or the model, or the folder."""
    weights = settings.get("weights", "base")
    return str(weights if weights != "base" else settings.get("model", folder.resolve().name))
