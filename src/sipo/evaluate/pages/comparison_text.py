"""Comparisons as Markdown and CSV, and the table of means that pages share, from the record in comparison.json."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sipo.evaluate.pages.words import DASH, p_text, percent, significance_paragraph
from sipo.tables import csv_table, markdown_table, markdown_text


@dataclass(frozen=True)
class MeanCell:
    """A model's mean in one column of the table, with its interval; `is_best`: no model has a higher one."""

    text: str
    low: float | None
    high: float | None
    is_best: bool


def comparison_markdown(record: Mapping) -> str:
    """The table of means, the comparisons with their tests, and their categories."""
    comparisons, parts = record["comparisons"], []
    if table := record["table"]:
        head, rows = means_table(table)
        texts = [(name, *(cell.text for cell in cells)) for name, cells in rows]
        parts += ["## Mean scores\n", markdown_table(head, texts), markdown_text(means_footnote(table)) + "\n"]
    rates = ("pairs", "win", "tie", "loss", "win rate [95%]", "difference [95%]")
    parts += [
        f"## {markdown_text(comparisons[0]['names'][0])} against\n",
        markdown_table(("against", "scorer", *rates, "p mean", "p sign"), map(_line, comparisons)),
        significance_paragraph(comparisons) + "\n",
    ]
    for each in comparisons:
        if each["categories"]:
            rows = [(name, *_rates(outcome)) for name, outcome in each["categories"].items()]
            title = markdown_text(f"By category, against {each['names'][1]}, {each['scorer']}")
            parts += [f"### {title}\n", markdown_table(("category", *rates), rows)]
    return "\n".join(parts)


def means_table(table: Mapping) -> tuple[tuple[str, ...], list[tuple[str, list[MeanCell]]]]:
    """Head, and (name, cells) of each model: four decimals as in the paper's Table 2, its average last if complete."""
    columns = [_column([row["means"][place] for row in table["rows"]]) for place in range(len(table["titles"]))]
    averages = [{"value": row["average"], "low": None, "high": None} for row in table["rows"]]
    has_average = averages[0]["value"] is not None
    if has_average:
        columns.append(_column(averages))
    names = [row["name"] for row in table["rows"]]
    head = ("Model", *table["titles"], *(["Average"] if has_average else []))
    return head, [(name, list(cells)) for name, cells in zip(names, zip(*columns, strict=True), strict=True)]


def _column(means: Sequence[Mapping]) -> list[MeanCell]:
    best = max(mean["value"] for mean in means)
    return [MeanCell(f"{m['value']:.4f}", m["low"], m["high"], m["value"] == best) for m in means]


def means_footnote(table: Mapping) -> str:
    """The number of pictures behind the means, and the definition of the average."""
    counts = dict(zip(table["titles"], table["num_pictures"], strict=True))
    same = len(set(counts.values())) == 1
    listed = f"{next(iter(counts.values())):,}" if same else ", ".join(f"{v:,} ({k})" for k, v in counts.items())
    text = f"Means over the pictures that every model has: {listed}."
    if table["rows"][0]["average"] is not None:
        text += " Average: the plain mean of HPS, Aesthetic, ImageReward and PickScore."
    return text


def means_csv(table: Mapping) -> str:
    """A line a model: every mean with its 95% interval, and the average."""
    head = ["model", *(f"{title}{part}" for title in table["titles"] for part in ("", " low", " high")), "Average"]
    rows = [
        [row["name"], *(mean[key] for mean in row["means"] for key in ("value", "low", "high")), row["average"]]
        for row in table["rows"]
    ]
    return csv_table(head, rows)


COMPARISON_COLUMNS = (
    "model", "against", "scorer", "category", "prompts", "pairs", "wins", "ties", "losses", "win_rate", "win_rate_low",
    "win_rate_high", "mean_model", "mean_against", "difference", "difference_low", "difference_high", "p_mean", "p_sign",
    "p_mean_holm", "p_sign_holm",
)  # fmt: skip


def comparison_csv(record: Mapping) -> str:
    """A line a comparison, and one for each of its categories; p-values of the whole alone."""
    return csv_table(COMPARISON_COLUMNS, (row for each in record["comparisons"] for row in _csv_rows(each)))


def _csv_rows(comparison: Mapping) -> Iterator[list]:
    unmeasured = {"value": None, "low": None, "high": None}
    for category, outcome in {"": comparison["overall"], **comparison["categories"]}.items():
        rate, difference = outcome["win_rate"], outcome["difference"] or unmeasured
        tests = outcome["significance"] or {}
        adjusted = comparison["adjusted"] if tests else {}
        yield [
            *comparison["names"],
            comparison["scorer"],
            category,
            *(outcome[key] for key in ("num_prompts", "num_pairs", "wins", "ties", "losses")),
            *(rate[key] for key in ("value", "low", "high")),
            *(outcome[key] for key in ("mean_a", "mean_b")),
            *(difference[key] for key in ("value", "low", "high")),
            *(tests.get(key) for key in ("p_mean", "p_sign")),
            *(adjusted.get(key) for key in ("p_mean", "p_sign")),
        ]


def _line(comparison: Mapping) -> tuple[str, ...]:
    tests = [p_text(comparison["adjusted"][key]) for key in ("p_mean", "p_sign")]
    return (comparison["names"][1], comparison["scorer"], *_rates(comparison["overall"]), *tests)


def _rates(outcome: Mapping) -> tuple[str, ...]:
    rate, pairs = outcome["win_rate"], outcome["num_pairs"]
    shares = (percent(outcome[key] / pairs) for key in ("wins", "ties", "losses"))
    bounds = "" if rate["low"] is None else f" [{percent(rate['low'])}, {percent(rate['high'])}]"
    return (str(pairs), *shares, percent(rate["value"]) + bounds, _difference(outcome["difference"]))


def _difference(estimate: Mapping | None) -> str:
    if estimate is None:
        return DASH
    bounds = "" if estimate["low"] is None else f" [{estimate['low']:+.4f}, {estimate['high']:+.4f}]"
    return f"{estimate['value']:+.4f}{bounds}"
