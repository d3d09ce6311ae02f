"""VBench (Huang et al. 2024): its files, the official package driven in its own environment, and its totals."""

from sipo.vbench.totals import aggregate, total

__all__ = ["aggregate", "total"]
