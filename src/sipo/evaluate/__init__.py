"""Judging what a training made: scores, statistics, comparisons, labels, pages and the report of a run."""
