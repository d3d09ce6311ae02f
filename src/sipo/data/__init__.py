"""Preference pairs: where they come from, their pictures and videos, and the cache of their latents."""
