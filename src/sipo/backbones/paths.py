"""What `model.path` may say."""

from importlib import resources


def resolve_path(path: str) -> str:
    """'miniature' becomes the folder shipped with the package; anything else is returned as it is."""
    return str(resources.files("sipo") / "mini" / "weights") if path == "miniature" else path
