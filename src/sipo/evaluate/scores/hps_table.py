"""HPSv2's benchmark in the output of `sipo score`: mean and deviation a style, of pictures that say their style."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sipo.evaluate.scores.hps_groups import NUM_GROUPS, benchmark_statistics
from sipo.evaluate.scores.score import Score
from sipo.samples.prompt_sets import HPS_STYLES


def by_style(scores: Sequence[Score]) -> dict[str, list[float]]:
    """Scores by HPSv2's style, in the order of the prompts; empty where a picture is of none of the four."""
    found: dict[str, list[float]] = {style: [] for style in HPS_STYLES}
    for score in scores:
        style = (score.sample.metadata or {}).get("style")
        if style not in found:
            return {}
        found[style].append(score.value)
    return {style: values for style, values in found.items() if values}


def print_styles(folder: Path, scorer: str, scores: Sequence[Score], console: Console) -> None:
    """Nothing for pictures of other prompts. Where the groups cannot be made, says why."""
    styles = by_style(scores)
    if not styles:
        return
    try:
        found, mean = benchmark_statistics(styles)
    except ValueError as error:
        console.print(f"HPSv2's benchmark, {folder}, {scorer}: no figures. {error}", markup=False, soft_wrap=True)
        return
    table = Table(title=f"HPSv2's benchmark, {folder}, {scorer}", box=None, pad_edge=False, title_justify="left")
    for title in ("style", "pictures", "mean", f"deviation over {NUM_GROUPS} groups"):
        table.add_column(title, justify="left" if title == "style" else "right")
    for style, figures in found.items():
        table.add_row(style, f"{len(styles[style]):,}", f"{figures.mean:.4f}", f"{figures.deviation:.4f}")
    table.add_row("mean of styles", f"{len(scores):,}", f"{mean:.4f}", "")
    console.print(table)
