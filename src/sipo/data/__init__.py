"""Preference pairs: what users have on disk, checked, decoded, dealt into batches, and encoded once for many runs."""
