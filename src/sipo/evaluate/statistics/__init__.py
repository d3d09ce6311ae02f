"""Verdicts, their intervals and their tests."""
