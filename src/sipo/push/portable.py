"""Texts without what belongs to this machine and its user: absolute paths become names, tokens are removed."""

import html
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

END = r"\s\"'`<>|,;:)\]}&"  # characters that end a path in a text
# A path that nobody named before: of two parts at least, or in a home folder, where a word may begin.
PATH = re.compile(
    rf"(?<![^\s\"'`(=\[{{,;:>|])(?<!base64,)(?:file://)?"
    rf"(?:~[\w.-]*/[^{END}]+|/[\w.@+~%-]+(?:/[^{END}]*)+|[A-Za-z]:\\{{1,2}}[^\s\"'`<>|]+|\\\\[\w.-]+\\[^\s\"'`<>|]+)"
)
SECRET = re.compile(
    r"(?<![A-Za-z0-9_-])(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|xox[abps]-[\w-]{10,})"
    r"|(?<=://)[^\s/@:\"']+:[^\s/@\"']+(?=@)"  # a user and password in a URL
)
OF_ENVIRONMENT = re.compile(r"(TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)\Z")
LEAST = 12  # characters of a secret that is looked for by its value


@dataclass
class Portable:
    """places: paths of this machine, which may hold spaces. secrets: values that nobody may see. It counts what it changes."""

    places: Iterable[str] = ()
    secrets: Iterable[str] = ()
    paths: int = 0
    tokens: int = 0
    _known: re.Pattern | None = field(init=False, default=None)
    _secret: re.Pattern | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        places = {form for place in self.places if len(place) > 2 for form in _forms(place)}
        secrets = {form for secret in self.secrets if len(secret) >= LEAST for form in _forms(secret)}
        if places:
            known = "|".join(re.escape(place) for place in sorted(places, key=len, reverse=True))
            self._known = re.compile(rf"(?<![\w./~-])(?:{known})(?:[/\\]+[^{END}]*|(?![\w-]))")
        if secrets:
            self._secret = re.compile("|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True)))

    def text(self, text: str) -> str:
        """The text without secrets, and with the last name of every path in its place."""
        for pattern in (self._secret, SECRET):
            if pattern:
                text, count = pattern.subn("[removed]", text)
                self.tokens += count
        for pattern in (self._known, PATH):
            if pattern:
                text, count = pattern.subn(lambda found: name_of(found[0]), text)
                self.paths += count
        return text

    def value(self, value: Any) -> Any:
        """A JSON or YAML value, in which a text that is a path becomes its name, whatever characters it has."""
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        if not isinstance(value, str):
            return value
        if is_absolute(value):
            self.paths += 1
            return name_of(value)
        return self.text(value)


def of_this_machine(run: Path, config: Any) -> Portable:
    """What is known of this machine and user: the paths of a run and its config, folders, tokens of the environment."""
    from huggingface_hub import get_token

    here = [run.absolute(), run.resolve(), Path.cwd(), Path.home()]
    secrets = [value for name, value in os.environ.items() if OF_ENVIRONMENT.search(name)]
    return Portable([*map(str, here), *_absolute(config)], [*secrets, get_token() or ""])


def is_absolute(text: str) -> bool:
    """Whether a value is a path from a root or a home folder; a slash alone is a text."""
    if "\n" in text or len(text) < 2:
        return False
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    return (
        (posix.is_absolute() and len(posix.parts) > 1)
        or windows.is_absolute()
        or re.match(r"~[\w.-]*/", text) is not None
    )


def name_of(path: str) -> str:
    """The last part of a path of either system."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _absolute(value: Any) -> list[str]:
    """Every absolute path in a config."""
    if isinstance(value, dict):
        return [path for inner in value.values() for path in _absolute(inner)]
    if isinstance(value, list):
        return [path for inner in value for path in _absolute(inner)]
    return [value] if isinstance(value, str) and is_absolute(value) else []


def _forms(text: str) -> set[str]:
    """A text as HTML and JSON write it, too."""
    return {text, html.escape(text), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
