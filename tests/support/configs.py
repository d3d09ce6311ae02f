"""Configs as plain dictionaries, changed as the command line changes them."""

import copy

from sipo.config.reading import apply_override


def changed(raw: dict, *overrides: str) -> dict:
    """A copy of a config with `key.path=value` overrides; the value is YAML."""
    raw = copy.deepcopy(raw)
    for override in overrides:
        apply_override(raw, override)
    return raw
