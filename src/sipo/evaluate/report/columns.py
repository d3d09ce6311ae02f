"""The numbers that plots need out of many lines of metrics, read once."""

import math
from array import array
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np


class Columns:
    """What panels draw of many records, read once and kept as plain numbers: values over steps, and sums by timestep bin.

    late: the records from this one on, in order, count for the bins.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], keys: Collection[str], late: int = 0):
        self.points = {key: (array("d"), array("d")) for key in keys}
        # By key and edges: sums and counts, each (n,).
        self.bins: dict[str, dict[tuple, tuple[np.ndarray, np.ndarray]]] = {key: {} for key in keys}
        self.last_edges: dict[str, tuple] = {}
        for number, record in enumerate(records):
            for key, (steps, values) in self.points.items():
                value = record.get(key)
                if isinstance(value, int | float) and math.isfinite(value):
                    steps.append(record["step"])
                    values.append(value)
                if number >= late and (bins := record.get("bins")):
                    self._add(key, bins)

    def _add(self, key: str, bins: Mapping[str, Any]) -> None:
        means = bins.get(key) or []
        if all(mean is None for mean in means):
            return
        edges = self.last_edges[key] = tuple(bins["edges"])
        means, counts = np.array(means, dtype=np.float64), np.array(bins["count"], dtype=np.float64)  # null becomes NaN
        counts[~np.isfinite(means)] = 0
        sums, total = self.bins[key].setdefault(edges, (np.zeros_like(counts), np.zeros_like(counts)))
        sums += np.where(counts > 0, means, 0.0) * counts
        total += counts
