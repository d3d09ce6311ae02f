"""Intervals and tests for paired comparisons."""
