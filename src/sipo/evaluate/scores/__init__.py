"""Scores of media: which files there are, what each scorer says of them, and the tables of it."""
