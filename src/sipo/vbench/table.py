"""VBench's figures of several models: every dimension always, the totals where all sixteen are there."""

from collections.abc import Mapping

from sipo.vbench.totals import DIMENSIONS, QUALITY, aggregate

TOTALS = {"Total": "total", "Quality": "quality", "Semantic": "semantic"}


def markdown(models: Mapping[str, Mapping[str, float]]) -> str:
    """A row a dimension and a column a model, in percent; raw scores, and the totals above them.

    What is missing is a dash. (`aggregate` says what keeps a model from its totals.)
    """
    lines = ["| | " + " | ".join(models) + " |", "|---|" + "---:|" * len(models)]
    totals = {name: _totals(scores) for name, scores in models.items()}
    for label, key in TOTALS.items():
        lines.append(f"| **{label}** | " + " | ".join(_cell(totals[name].get(key)) for name in models) + " |")
    for dimension in DIMENSIONS:
        group = "quality" if dimension in QUALITY else "semantic"
        cells = " | ".join(_cell(scores.get(dimension)) for scores in models.values())
        lines.append(f"| {dimension.replace('_', ' ')} ({group}) | {cells} |")
    return "\n".join(lines) + "\n"


def _totals(scores: Mapping[str, float]) -> dict[str, float]:
    try:
        return aggregate(scores)
    except ValueError:
        return {}


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
