"""Scores of media: which files to score, scoring them, reading the scores back, and tables of them."""
