"""Judging a model from files: pictures in, scores, comparisons and reports out. Nothing here needs torch."""
