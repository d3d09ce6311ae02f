"""Preference pairs from scored samples or from votes."""
