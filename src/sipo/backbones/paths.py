"""What `model.path` may be."""

from sipo.registry import miniature


def resolve_path(path: str) -> str:
    """A miniature's name becomes the folder of its weights; anything else is returned unchanged."""
    found = miniature(path)
    return str(found.weights) if found else path
