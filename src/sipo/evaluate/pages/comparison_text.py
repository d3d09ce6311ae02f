"""Comparisons as Markdown and CSV, from what comparison.json records."""

from collections.abc import Iterator, Mapping

from sipo.evaluate.pages.words import p_text, percent, significance_paragraph
from sipo.tables import csv_table, markdown_table


def markdown(record: Mapping) -> str:
    """The table of means, the comparisons with their tests, and their categories."""
    records = [record, *record["more"]]
    parts = ["## Mean scores\n", markdown_table(*table_rows(record["table"]))]
    if footnote := table_footnote(record["table"]):
        parts.append(footnote + "\n")
    head = (
        "against",
        "scorer",
        "pairs",
        "win",
        "tie",
        "loss",
        "win rate [95%]",
        "difference [95%]",
        "p mean",
        "p sign",
    )
    parts += [
        f"## {record['names'][0]} against\n",
        markdown_table(head, map(_line, records)),
        significance_paragraph(records) + "\n",
    ]
    for each in records:
        if each["categories"]:
            head = ("category", "pairs", "win", "tie", "loss", "win rate [95%]", "difference [95%]")
            rows = [(name, *_rates(outcome)) for name, outcome in each["categories"].items()]
            parts += [f"### By category, against {each['names'][1]}, {each['scorer']}\n", markdown_table(head, rows)]
    return "\n".join(parts)


def table_rows(table: Mapping) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the means, four decimals as in the paper's Table 2, its average last where all four are there."""
    averaged = table["rows"][0]["average"] is not None
    head = ("Model", *table["titles"], *(["Average"] if averaged else []))
    rows = [
        (row["name"], *(f"{mean['value']:.4f}" for mean in row["means"]), *([f"{row['average']:.4f}"] if averaged else []))
        for row in table["rows"]
    ]  # fmt: skip
    return head, rows


def table_footnote(table: Mapping) -> str:
    """Of how many pictures the means are, and what the average is."""
    counts = dict(zip(table["titles"], table["num_pictures"], strict=True))
    same = len(set(counts.values())) == 1
    listed = f"{next(iter(counts.values())):,}" if same else ", ".join(f"{v:,} ({k})" for k, v in counts.items())
    text = f"Means over the pictures that every model has: {listed}."
    return text + (
        " Average: the plain mean of HPS, Aesthetic, ImageReward and PickScore."
        if table["rows"][0]["average"] is not None
        else ""
    )


def table_csv(record: Mapping) -> str:
    """A line a model: every mean with its 95% interval, and the average."""
    table = record["table"]
    head = ["model", *(f"{title}{part}" for title in table["titles"] for part in ("", " low", " high")), "Average"]
    rows = [
        [row["name"], *(mean[key] for mean in row["means"] for key in ("value", "low", "high")), row["average"]]
        for row in table["rows"]
    ]
    return csv_table(head, rows)


def comparison_csv(record: Mapping) -> str:
    """A line a comparison, and one for each of its categories; p-values of the whole alone."""
    head = ["model", "against", "scorer", "category", "prompts", "pairs", "wins", "ties", "losses", "win_rate", "win_rate_low",
            "win_rate_high", "mean_model", "mean_against", "difference", "difference_low", "difference_high",
            "p_mean", "p_sign", "p_mean_holm", "p_sign_holm"]  # fmt: skip
    return csv_table(head, (row for each in [record, *record["more"]] for row in _long(each)))


def _long(record: Mapping) -> Iterator[list]:
    for category, outcome in {"": record["overall"], **record["categories"]}.items():
        rate, difference, tests = outcome["win_rate"], outcome["difference"], outcome["significance"] or {}
        adjusted = record["adjusted"] if tests else {}
        yield [
            *record["names"], record["scorer"], category, outcome["num_prompts"], outcome["num_pairs"],
            outcome["wins"], outcome["ties"], outcome["losses"], rate["value"], rate["low"], rate["high"],
            outcome["mean_a"], outcome["mean_b"], difference["value"], difference["low"], difference["high"],
            tests.get("p_mean"), tests.get("p_sign"), adjusted.get("p_mean"), adjusted.get("p_sign"),
        ]  # fmt: skip


def _line(record: Mapping) -> tuple[str, ...]:
    adjusted = record["adjusted"]
    return (record["names"][1], record["scorer"], *_rates(record["overall"]), p_text(adjusted["p_mean"]),
            p_text(adjusted["p_sign"]))  # fmt: skip


def _rates(outcome: Mapping) -> tuple[str, ...]:
    rate, difference, pairs = outcome["win_rate"], outcome["difference"], outcome["num_pairs"]
    shares = (percent(outcome[key] / pairs) for key in ("wins", "ties", "losses"))
    bounds = "" if rate["low"] is None else f" [{percent(rate['low'])}, {percent(rate['high'])}]"
    spread = "" if difference["low"] is None else f" [{difference['low']:+.4f}, {difference['high']:+.4f}]"
    return (str(pairs), *shares, percent(rate["value"]) + bounds, f"{difference['value']:+.4f}{spread}")
