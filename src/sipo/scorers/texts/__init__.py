"""What published judges are asked, word for word: a model scores right only the text that it was trained with."""

from importlib import resources


def read(name: str) -> str:
    """The text `name`.txt. Its source and licence stand in LICENSES.md beside it."""
    return (resources.files(__name__) / f"{name}.txt").read_text(encoding="utf-8")
