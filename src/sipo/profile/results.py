"""From what was measured to the record of a profile: the numbers of profile.json, which the page shows."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sipo.data.pairs.rows import Origin
from sipo.evaluate.statistics.bootstrap import bootstrap_mean
from sipo.profile.labels import Balance, agreement, by_model, by_position, told_by_models
from sipo.profile.leaks import find_leaks
from sipo.profile.unlike import Errors, log_ratios

SHOWN_LEAKS = 100  # of a benchmark, in the record


@dataclass(frozen=True)
class Measured:
    """The errors of the pairs that were measured, in the order of `rows`, and of the base's own samples.

    own: (M, draws), of a sample for the prompt of each pair at `own_places`; M = 0 without any. edges: the timesteps between
    which the strata lie. threshold: weights below it are pruned.
    """

    rows: list[int]
    ids: list[str]
    prompts: list[str]
    origins: list[Origin]
    chosen: Errors
    rejected: Errors
    own: np.ndarray
    own_places: list[int]
    edges: list[float]
    threshold: float

    @property
    def preferences(self) -> np.ndarray:
        """(N,): by how much the base predicts the chosen member better, mean over draws of `r_l - r_w`."""
        return (self.rejected.values - self.chosen.values).mean(1)

    @property
    def ratios(self) -> np.ndarray:
        """(M, 2, draws): `log_ratios` of chosen and rejected, of the pairs that have a sample of the base."""
        both = np.stack([each.values[self.own_places] for each in (self.chosen, self.rejected)], axis=1)
        return log_ratios(both, self.own[:, None])

    @property
    def own_prompts(self) -> list[str]:
        return [self.prompts[place] for place in self.own_places]


def errors_record(found: Measured) -> dict[str, Any]:
    """Means by stratum of timesteps: errors, weights, the share of pairs that pruning drops, and what the base prefers."""
    chosen, rejected = found.chosen, found.rejected
    means = {
        "chosen": chosen.values,
        "rejected": rejected.values,
        "w_chosen": chosen.weights,
        "w_rejected": rejected.weights,
        "pruned": np.minimum(chosen.weights, rejected.weights) < found.threshold,
        "prefers_chosen": chosen.values < rejected.values,
    }
    if len(found.own):
        means["own"] = found.own
    return {
        "edges": found.edges,
        "threshold": found.threshold,
        **{name: values.mean(0).tolist() for name, values in means.items()},
    }


def unlike_record(found: Measured) -> dict[str, Any] | None:
    """How far chosen and rejected lie from the base's own samples for their prompts; None without any."""
    if not len(found.own):
        return None
    members = {"chosen": found.ratios[:, 0], "rejected": found.ratios[:, 1]}
    return {"num_own": len(found.own), **{name: _distance(logs, found.own_prompts) for name, logs in members.items()}}


def models_record(found: Measured) -> dict[str, dict[str, Any]]:
    """Errors and weights of the members that each source model made, the one with the most members first."""
    errors = np.concatenate([found.chosen.values, found.rejected.values])  # (2N, draws)
    weights = np.concatenate([found.chosen.weights, found.rejected.weights])
    names = np.array([origin.models for origin in found.origins], dtype=object)  # (N, 2)
    both, record = names.T.flatten(), {}
    for name, number in Counter(both.tolist()).most_common():
        mine, compared = both == name, names[found.own_places] == name  # (2N,), (M, 2)
        record[name] = {
            "num_members": number,
            "error": errors[mine].mean(0).tolist(),
            "weight": weights[mine].mean(),
            "below_threshold": (weights[mine] < found.threshold).mean(),
        }
        if compared.any():
            prompts = [found.own_prompts[place] for place in np.nonzero(compared)[0]]
            record[name] |= {
                "distance": _distance(found.ratios[compared], prompts),
                "log_ratio": found.ratios[compared].mean(0).tolist(),
            }
    record.pop("", None)
    return record


def _distance(logs: np.ndarray, prompts: Sequence[str]) -> dict[str, Any]:
    """logs (M, draws) of members -> the geometric mean of their ratios, with its interval over prompts, and how often a
    member is harder to predict than the sample."""
    means = logs.mean(1)
    mean = asdict(bootstrap_mean(means, prompts))
    ratio = {name: None if value is None else math.exp(value) for name, value in mean.items()}
    return {"ratio": ratio, "harder": _balance(agreement(means.tolist(), prompts))}


def labels_record(origins: Sequence[Origin], prompts: Sequence[str]) -> dict[str, Any]:
    """Balance by position and by source model, of all usable rows."""
    told = told_by_models(origins)
    return {
        "position": _balance(by_position(origins, prompts)),
        "models": {
            name: {"num_members": each.members, "balance": _balance(each.balance)}
            for name, each in by_model(origins, prompts).items()
        },
        "told_by_models": None if told is None else {"share": told[0], "num_pairs": told[1]},
    }


def agreement_record(found: Measured, scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How often scorers agree with the labels. scores: (N, 2) of chosen and rejected, NaN where there is none."""
    record: dict[str, Any] = {}
    for name, values in {"the base's own errors": None, **scores}.items():
        gaps = found.preferences if values is None else values[:, 0] - values[:, 1]
        known = np.isfinite(gaps)
        pairs = [prompt for prompt, fine in zip(found.prompts, known, strict=True) if fine]
        record[name] = {
            "balance": _balance(agreement(gaps[known].tolist(), pairs)),
            "num_unscored": int((~known).sum()),
        }
    return record


def duplicates_record(ids: Sequence[str], groups: np.ndarray, held_out: Sequence[bool]) -> dict[str, Any]:
    """What repeats. groups: (2N,) numbers of the members' clusters, chosen and rejected in turn."""
    pairs = groups.reshape(-1, 2)
    first: dict[tuple[int, int], int] = {}  # the two clusters, the smaller one first -> the pair that has them first
    repeated, contrary, twins = [], [], []
    for place, (chosen, rejected) in enumerate(pairs.tolist()):
        if chosen == rejected:
            twins.append(place)
            continue
        before = first.setdefault((min(chosen, rejected), max(chosen, rejected)), place)
        if before != place:
            (repeated if pairs[before, 0] == chosen else contrary).append((before, place))
    held = np.repeat(np.asarray(held_out, dtype=bool), 2)
    crossing = np.isin(groups, groups[~held]) & held
    _, sizes = np.unique(groups, return_counts=True)
    named = [[ids[a], ids[b]] for a, b in contrary]
    return {
        "num_media": len(groups),
        "num_distinct": len(sizes),
        "largest": int(sizes.max()),
        "twins": [ids[place] for place in twins],
        "repeated": [[ids[a], ids[b]] for a, b in repeated],
        "contrary": named,
        "num_held_out": int(held.sum()) // 2,
        "held_out_seen": int(crossing.reshape(-1, 2).any(1).sum()),
    }


def leaks_record(captions: Sequence[str], benchmarks: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Which captions are a benchmark's prompts. captions: of all usable rows."""
    record = {}
    for name, prompts in benchmarks.items():
        leaks = find_leaks(captions, prompts)
        leaking = {leak.caption for leak in leaks}
        record[name] = {
            "num_prompts": len(set(prompts)),
            "num_leaked": len({leak.prompt for leak in leaks}),
            "num_whole": len({leak.prompt for leak in leaks if leak.whole}),
            "num_pairs": sum(caption in leaking for caption in captions),
            "captions": [asdict(leak) for leak in leaks[:SHOWN_LEAKS]],
        }
    return record


def pairs_record(found: Measured, scores: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A line a measured pair, for whoever filters by these numbers."""
    record, own = [], dict(zip(found.own_places, found.ratios.mean(2), strict=True))
    for place, id in enumerate(found.ids):
        line: dict[str, Any] = {
            "id": id, "prompt": found.prompts[place],
            "error": [each.values[place].mean() for each in (found.chosen, found.rejected)],
            "weight": [each.weights[place].mean() for each in (found.chosen, found.rejected)],
            "scores": {name: values[place].tolist() for name, values in scores.items()},
        }  # fmt: skip
        if place in own:
            line["ratio"] = np.exp(own[place]).tolist()
        record.append(line)
    return record


def rounded(value: Any) -> Any:
    """For JSON: plain numbers of six significant digits, null for what is not finite."""
    match value:
        case dict():
            return {key: rounded(each) for key, each in value.items()}
        case list() | tuple():
            return [rounded(each) for each in value]
        case float() | np.floating():
            return float(f"{value:.6g}") if math.isfinite(value) else None
        case np.integer():
            return int(value)
    return value


def _balance(found: Balance | None) -> dict[str, Any] | None:
    return None if found is None else {**asdict(found.tally), "p": found.p}
