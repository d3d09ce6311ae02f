"""Numbers as sentences."""

import re
from collections.abc import Mapping, Sequence

from sipo.samples.folder import VIDEO

OBJECTIVES = {
    "sipo": "SIPO", "diffusion_dpo": "Diffusion-DPO", "dpo_cm": "DPO-C&M", "sft": "SFT", "d3po": "D3PO", "ipo": "IPO", "dpop": "DPOP",
    "nca": "NCA", "safeguarded_dpo": "Safeguarded DPO", "profile_dpo": "Profile DPO", "capped_dpo": "Capped DPO",
    "capped_sipo": "Capped SIPO",
}  # fmt: skip
FEW_PROMPTS = 50
DASH = "–"  # where there is no number


def percent(share: float | None, digits: int = 1) -> str:
    """0.631 as "63.1%"."""
    return DASH if share is None else f"{100 * share:.{digits}f}%"


def number(value: float | None) -> str:
    """Four significant digits, thousands separated; counts in full."""
    if value is None:
        return DASH
    if isinstance(value, int) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def objective_name(config: Mapping) -> str:
    name = (config.get("loss") or {}).get("name", "")
    return OBJECTIVES.get(name, str(name)) or "Training"


def interval(estimate: Mapping) -> str:
    """ "95% interval 57.3% to 68.8%", or why there is none."""
    if estimate["low"] is None:
        return "no interval from a single prompt"
    return f"95% interval {percent(estimate['low'])} to {percent(estimate['high'])}"


def comparison_paragraph(comparison: Mapping) -> str:
    """A comparison of comparison.json in three sentences: the rate, what it means, the share that the scorer finds right."""
    overall, (a, b) = comparison["overall"], map(spoken, comparison["names"])
    rate = overall["win_rate"]
    by = f"by {comparison['scorer']}" if overall["difference"] is None else f"by the {comparison['scorer']} score"
    text = (
        f"{_capital(a)} wins {percent(rate['value'])} of {overall['num_pairs']:,} comparisons with {b} on the same "
        f"prompts and seeds ({interval(rate)}; a tie counts half), {by}. {_meaning(rate, a, b)}"
    )
    if "correct" in overall["details"]:
        now, before = overall["details"]["correct"]
        text += f" The scorer finds {percent(now)} of the {media_of(comparison)} by {a} right, and {percent(before)} of those by {b}."
    return text


def media_of(comparison: Mapping) -> str:
    """What was compared, in a word: "pictures" or "videos"."""
    files = [side["file"] for pair in comparison["pairs"] for side in pair["sides"]]
    return "videos" if files and all(file.endswith(VIDEO) for file in files) else "pictures"


def p_text(p: float | None) -> str:
    """A p-value: "0.013", "< 0.001"; a dash without one."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def significance_paragraph(records: Sequence[Mapping]) -> str:
    """What was tested, how, and for how many comparisons it was corrected."""
    if all(record["overall"]["difference"] is None for record in records):
        text, compared = "Tested over prompts, two-sided.", "the wins less the losses"
    else:
        text, compared = "Tested over prompts, both two-sided.", "the mean difference"
        text += " p mean: the mean score difference is 0, by a paired bootstrap (10,000 resamples of prompts)."
    text += (
        f" p sign: a prompt is won as often as lost, by an exact sign test on {compared} of each prompt, ties ignored."
    )
    if len(records) > 1:
        text += f" All p-values are corrected by Holm's method for {len(records)} comparisons."
    return text


def spoken(name: str) -> str:
    """A side's name inside a sentence."""
    return {"policy": "the aligned model", "base": "the base model"}.get(name, name)


def cautions(comparison: Mapping) -> list[str]:
    """What a reader must know before trusting a comparison of comparison.json."""
    overall, (a, b), notes = comparison["overall"], map(spoken, comparison["names"]), []
    media = media_of(comparison)
    if overall["num_prompts"] < FEW_PROMPTS:
        notes.append(f"Only {overall['num_prompts']} prompts were compared: the interval itself is uncertain.")
    for count, name in zip(comparison["unpaired"], (a, b), strict=True):
        if count:
            notes.append(
                f"{count:,} {media} by {name} had no counterpart with the same prompt and seed and were left out."
            )
    if comparison["unscored"]:
        first, what = comparison["unscored"][0], "verdict" if comparison.get("judged") else "score"
        notes.append(
            f"{len(comparison['unscored']):,} {media} had no {what}, so their pairs were left out; the first is "
            f"{first['file']} ({first['error']})."
        )
    if judged := comparison.get("judged"):
        notes.append(_both_orders(judged, overall["num_pairs"]))
        notes.append(f"{comparison['scorer']}: {usage_text(judged['usage'])}.")
    if comparison["left_out"]:
        notes.append(f"{comparison['left_out']:,} pairs were left out because another model has no score for them.")
    if len({str(settings) for side in comparison["scorer_settings"] for settings in side}) > 1:
        notes.append(f"Not all {comparison['scorer']} scores were made with the same settings: score both sides again.")
    ours, theirs = comparison["settings"]
    expected = {"model", "weights"}
    if not ours or not theirs:
        return notes  # a file of scores alone does not tell how its pictures were made
    different = sorted(key for key in {**ours, **theirs}.keys() - expected if ours.get(key) != theirs.get(key))
    if different:
        notes.append(f"{_capital(a)} and {b} were generated with different settings: {', '.join(different)}.")
    return notes


def _both_orders(judged: Mapping, num_pairs: int) -> str:
    """How far a judge of pairs agrees with itself when the order is reversed."""
    text = (
        f"The judge saw each pair in both orders and gave one verdict for {percent(judged['agreed'] / num_pairs)} of them; "
        "the others count as ties."
    )
    if not judged["decisive"]:
        return text
    return f"{text} Of its answers that prefer one sample {percent(judged['shown_first'] / judged['decisive'])} prefer the first shown."


def usage_text(usage: Mapping) -> str:
    """What was asked of an endpoint: "812 answers, 1,234,567 tokens in, 20,300 out, 1.23 US dollars"."""
    text = f"{usage['requests']:,} answers, {usage['input_tokens']:,} tokens in, {usage['output_tokens']:,} out"
    return f"{text}, {usage['dollars']:,.2f} US dollars" if "dollars" in usage else text


def grouped_warnings(records: Sequence[Mapping]) -> list[str]:
    """The run's own warnings, each once with its steps; of those that differ in their numbers alone the last one."""
    last: dict[str, str] = {}
    steps: dict[str, list[int]] = {}
    for record in records:
        kind = re.sub(r"-?[\d.]+(e[+-]?\d+)?", "0", text := record.get("message", ""))
        last[kind] = text
        steps.setdefault(kind, []).append(record.get("step", 0))
    return [f"{text.rstrip('.')}. ({_when(steps[kind])})" for kind, text in last.items()]


def what_samples_say(comparison: Mapping) -> list[str]:
    """Beside the warnings of a training, which sees no samples: whether they got worse, where a comparison can tell."""
    rate, (a, b) = comparison["overall"]["win_rate"], comparison["names"]
    if rate["low"] is None or rate["low"] <= 0.5 <= rate["high"]:
        return []
    what = "did not get worse" if rate["low"] > 0.5 else "got worse"
    return [
        f"The samples {what}, by this comparison: {a} wins {percent(rate['value'])} against {b} ({interval(rate)})."
    ]


def _meaning(rate: Mapping, a: str, b: str) -> str:
    if rate["low"] is None:
        return "One prompt decides nothing."
    if rate["low"] > 0.5:
        return "The whole interval lies above one half: the gain is more than chance."
    if rate["high"] < 0.5:
        return f"The whole interval lies below one half: by this measure {a} is worse than {b}."
    return "The interval contains one half: this comparison cannot tell the two apart."


def _when(steps: Sequence[int]) -> str:
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    return f"{len(steps):,} times, steps {min(steps):,} to {max(steps):,}"


def _capital(text: str) -> str:
    """The text as the beginning of a sentence; the user's own names are not capitalised."""
    return f"The {text[4:]}" if text.startswith("the ") else text
