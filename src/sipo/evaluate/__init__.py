"""Scores and votes into statistics, comparisons, preference pairs, pages, and the report of a run."""
