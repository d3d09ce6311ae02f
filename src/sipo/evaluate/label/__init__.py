"""Preference pairs out of scored samples."""
