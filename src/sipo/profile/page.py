"""The page of a profile: what to know first, curves, tables, and examples at both ends."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sipo.evaluate.pages.page import render
from sipo.evaluate.pages.words import percent
from sipo.evaluate.report.plots import CHOSEN, NEUTRAL, QUIET, REJECTED, Drawing, Panel, Series, draw_bins
from sipo.files import write_atomic
from sipo.profile.examples import both_ends, repeats
from sipo.profile.pictures import MediaFiles
from sipo.profile.results import Measured

COLOURS = (CHOSEN, REJECTED, NEUTRAL, "#b9a13a", "#8a63b8", QUIET)  # of source models, the one with most members first
ERRORS = Panel(
    "errors", "Errors of the base", "mean squared error",
    (Series("chosen", "chosen", CHOSEN), Series("rejected", "rejected", REJECTED), Series("own", "own samples", QUIET, ":")),
    "What the base fails to predict of the pairs before any training (r_w, r_l), and of samples that it drew for the same prompts.",
)  # fmt: skip
WEIGHTS = Panel(
    "weights", "Importance weight w(t)", "mean over pairs",
    (Series("w_chosen", "chosen", CHOSEN), Series("w_rejected", "rejected", REJECTED)),
    "The base's expected weight against the posterior (Eq. 5). Dashed: the pruning threshold.",
)  # fmt: skip
SHARES = Panel(
    "shares", "Pruned, and preferred by the base", "share of pairs",
    (Series("pruned", "below the threshold", REJECTED), Series("prefers_chosen", "chosen predicted better", CHOSEN)),
    "Pairs that pruning would drop in the first step, and pairs whose chosen member the base predicts better.",
    (0.5,), limits=(0.0, 1.03),
)  # fmt: skip
MODELS = Panel("models", "By source model", "mean squared error", (), "Errors on the members that each model made.")


def write_page(
    file: Path, record: Mapping[str, Any], measured: Measured, scores: Mapping[str, np.ndarray], rows: Mapping[str, int],
    files: MediaFiles,
) -> None:  # fmt: skip
    """rows: of all usable pairs by their ids."""
    page = render(
        "profile.html",
        title=f"Profile of {record['data']}",
        record=record,
        lead=lead(record),
        notices=notices(record),
        plots=draw(record),
        ends=both_ends(measured, scores, files),
        repeats=repeats(record["duplicates"], rows, files),
    )
    write_atomic(file, page)


def lead(record: Mapping[str, Any]) -> str:
    """One paragraph: how many pairs, and how far from the base they lie."""
    text = (
        f"{record['num_pairs']:,} usable pairs of {record['num_prompts']:,} prompts; {record['num_measured']:,} of them were measured "
        f"under {record['model']}."
    )
    if unlike := record["unlike"]:
        ratios = " and ".join(f"{unlike[name]['ratio']['value']:.2f} ({name})" for name in ("chosen", "rejected"))
        text += f" The base predicts them with {ratios} times the error on its own samples for the same prompts."
    return text


def notices(record: Mapping[str, Any]) -> list[str]:
    """What to know before training on these pairs; empty where nothing stands out."""
    found, labels = [], record["labels"]
    if record["unlike"] and _low(harder := record["unlike"]["chosen"]["harder"]) > 0.5:
        found.append(
            f"Unlike data: {percent(harder['win_rate']['value'])} of the chosen members are harder to predict than the base's own "
            "samples for the same prompts. On data that a model cannot draw Diffusion-DPO loses quality (section 3.1, Fig. 3): fit "
            "the chosen members first (sft, then model.lora), or label samples of the base itself."
        )
    for name, leak in record["leaks"].items():
        if leak["num_pairs"]:
            found.append(
                f"{leak['num_leaked']:,} of the {leak['num_prompts']:,} prompts of {name} are among the captions, in {leak['num_pairs']:,} "
                f"pairs: results on {name} would not be held out."
            )
    if (position := labels["position"]) and position["p"] < 0.001:
        found.append(
            f"The labels depend on the position: the member that stands first is chosen in {percent(position['win_rate']['value'])} of "
            "the pairs."
        )
    if (told := labels["told_by_models"]) and told["share"] >= 0.75:
        found.append(
            f"The source models alone tell {percent(told['share'])} of the labels of {told['num_pairs']:,} pairs of two models: a policy "
            "may learn the look of a model rather than what people prefer in it."
        )
    for name, entry in record["agreement"].items():
        if entry["balance"] and (entry["balance"]["win_rate"]["high"] or 1) < 0.5:
            rate = percent(entry["balance"]["win_rate"]["value"])
            found.append(f"By {name} most labels are wrong ({rate} agreement): are the sides swapped?")
        if entry["num_unscored"]:
            found.append(
                f"{entry['num_unscored']:,} of the {record['num_measured']:,} measured pairs have no score by {name}; "
                f"scores.{name}.jsonl below the folder work says why."
            )
    return found + _repeats(record["duplicates"])


def _low(balance: Mapping[str, Any]) -> float:
    return balance["win_rate"]["low"] or 0.0


def _repeats(record: Mapping[str, Any]) -> list[str]:
    texts = {
        "twins": "pairs have members that look alike, between which there is little to prefer",
        "contrary": "pairs repeat an earlier one with the opposite preference",
        "repeated": "pairs repeat an earlier one",
    }
    found = [f"{len(record[key]):,} {text}." for key, text in texts.items() if record[key]]
    if seen := record["held_out_seen"]:
        found.append(
            f"{seen:,} of {record['num_held_out']:,} held-out pairs have a medium that is trained on as well, or nearly so."
        )
    return found


def draw(record: Mapping[str, Any]) -> list[Drawing]:
    """The curves over timesteps."""
    errors, models = record["errors"], record["models"]
    key = "log_ratio" if record["unlike"] else "error"
    by_model = {name: found[key] for name, found in models.items() if key in found}
    shown = dict(list(by_model.items())[: len(COLOURS)])
    panel = replace(MODELS, series=tuple(Series(n, n[:28], c) for n, c in zip(shown, COLOURS, strict=False)))
    if record["unlike"]:
        note = "Errors on the members that each model made, against those on the base's samples for the same prompts."
        panel = replace(panel, unit="log of the ratio", note=note, levels=(0.0,))
    drawn = [
        draw_bins(ERRORS, [_bins(record, errors)]),
        draw_bins(replace(WEIGHTS, levels=(errors["threshold"],)), [_bins(record, errors)]),
        draw_bins(SHARES, [_bins(record, errors)]),
        draw_bins(panel, [_bins(record, shown)]) if len(shown) > 1 else None,
    ]
    return [drawing for drawing in drawn if drawing]


def _bins(record: Mapping[str, Any], means: Mapping[str, Any]) -> dict[str, Any]:
    """Means by stratum in the form of a line of metrics."""
    edges = record["errors"]["edges"]
    return {"step": 0, "bins": {**means, "edges": edges, "count": [record["num_measured"]] * (len(edges) - 1)}}
