"""`hf://datasets/OWNER/NAME@REVISION/PATH`: the hub's own way to write where something lies."""

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote

from sipo.errors import UsageError, shown

SCHEME = "hf://"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REPOSITORY = re.compile(f"{NAME}/{NAME}")
# The hub's own references hold slashes, as refs/convert/parquet does; those of other branches are written %2F.
ADDRESS = re.compile(
    rf"hf://(?P<kind>(?:datasets|models|spaces)/)?(?P<repo>(?!(?:datasets|models|spaces)/){NAME}/{NAME})"
    r"(?:@(?P<revision>refs/(?:convert|pr)/[^/@]+|[^/@]+))?(?P<path>/.*)?"
)
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """A repository, its revision (None: the default branch), and a file or folder in it ("": all of it)."""

    kind: Literal["dataset", "model"]
    repo: str  # OWNER/NAME
    revision: str | None = None
    path: str = ""

    def at(self, commit: str) -> "Address":
        return replace(self, revision=commit)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{'datasets/' if self.kind == 'dataset' else ''}{self.repo}{revision}{self.path and '/' + self.path}"


def is_address(path: object) -> bool:
    return str(path).startswith(SCHEME)


def parse_address(text: str) -> Address:
    """Raises UsageError for what is no address of a model or data set."""
    found = ADDRESS.fullmatch(text)
    path = unquote(found["path"] or "").removeprefix("/").removesuffix("/") if found else ""
    if found is None or found["kind"] == "spaces/" or any(part in ("", ".", "..") for part in path.split("/") if path):
        raise UsageError(
            f"{shown(text)} is no address of the hub; expected hf://datasets/OWNER/NAME, with @REVISION and /PATH "
            "after it where wanted (hf://OWNER/NAME is a model)"
        )
    revision = found["revision"] and unquote(found["revision"])
    return Address("dataset" if found["kind"] == "datasets/" else "model", found["repo"], revision, path)
