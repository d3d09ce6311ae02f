"""Numbers behind the curves: series from metric lines, thinned and smoothed, and means per timestep bin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """A series ready to draw: `raw` values or means of neighbouring steps, `smooth` their moving average; each (N,)."""

    steps: np.ndarray
    raw: np.ndarray
    smooth: np.ndarray


def curve(records: Sequence[dict], key: str, max_points: int = MAX_POINTS) -> Curve | None:
    """The values of `key` over "step"; None where no record has a finite one. At most `max_points` points."""
    points = [(r["step"], r[key]) for r in records if isinstance(r.get(key), (int, float)) and np.isfinite(r[key])]
    if not points:
        return None
    steps, values = np.array(points, dtype=np.float64).T
    stride = -(-len(steps) // max_points)
    steps, values = _block_means(steps, stride), _block_means(values, stride)
    return Curve(steps, values, moving_average(values, window=1 + 2 * (len(steps) // 40)))


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """The centred mean over `window` (odd) neighbours; at the ends over those that exist. (N,) -> (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index, half = np.arange(len(values)), window // 2
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def binned(records: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(edges (n + 1,), means (n,), counts (n,)) of `key` by timestep bin, over all records, weighted by pairs.

    A bin without pairs is NaN. None where no record has the key. Records with other bins than the last one's are
    ignored.
    """
    bins = [r["bins"] for r in records if r.get("bins") and any(v is not None for v in r["bins"].get(key) or [])]
    if not bins:
        return None
    edges = bins[-1]["edges"]
    bins = [b for b in bins if b["edges"] == edges]
    means = np.array([b[key] for b in bins], dtype=np.float64)  # (R, n); null becomes NaN
    counts = np.array([b["count"] for b in bins], dtype=np.float64)  # (R, n)
    counts[~np.isfinite(means)] = 0
    total = counts.sum(0)
    sums = (np.where(counts > 0, means, 0.0) * counts).sum(0)
    return (
        np.array(edges, dtype=np.float64),
        np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0),
        total,
    )


def _block_means(values: np.ndarray, stride: int) -> np.ndarray:
    """Means of consecutive blocks of `stride`; the last may be shorter."""
    starts = np.arange(0, len(values), stride)
    return np.add.reduceat(values, starts) / np.diff(np.append(starts, len(values)))
