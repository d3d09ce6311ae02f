"""A judge's file: which model at which address is asked what, and what it costs.

url: http://localhost:8080/v1
model: UnifiedReward
template: unifiedreward-2
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from sipo.config.reading import build, read_config
from sipo.config.sections import Count, FromZero, Positive
from sipo.errors import UsageError
from sipo.files import digest
from sipo.scorers.judge.endpoint import Endpoint
from sipo.scorers.judge.templates import QUESTIONS, Template, Templates, load_templates

OPTIONS = {"temperature": 0, "max_tokens": 2048}
ONE_TOKEN = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 20}  # of templates in QUESTIONS
TAKEN = ("model", "messages", "stream", "n")  # keys of a request that are not options


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: FromZero
    output: FromZero


@dataclass(frozen=True)
class JudgeConfig:
    """The keys of a judge's file. Raises ValueError for values that cannot go together.

    name: of the files of its scores and verdicts. key_variable: the name of the environment variable that holds the key; the key itself stands nowhere. template: a name
    of `sipo.scorers.judge.templates.TEMPLATES`; or text, video_text (default: text) and answers, see `Template`. options:
    of a request, in place of temperature 0 and max_tokens 2048; to a template of questions they are added, and null takes
    one of its own away. num_frames: of a video. max_side: longer pictures are
    reduced to it before they are sent.
    """

    url: str
    model: str
    template: str | None = None
    text: str | None = None
    video_text: str | None = None
    answers: dict[str, str] | None = None
    name: str = ""
    key_variable: str | None = None
    options: dict[str, Any] | None = None
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    timeout: Positive = 120.0
    num_frames: Annotated[int, Field(ge=1, le=256)] = 8
    max_side: Count = 1024
    price: Price | None = None

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("url: expected the address of an endpoint, such as http://localhost:8000/v1")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError("url: expected an address without user, password and query; a key belongs in key_variable")
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise ValueError("key_variable: expected the name of an environment variable, never the key itself")
        if not re.fullmatch(r"[A-Za-z0-9._-]*", self.name):
            raise ValueError("name: expected letters, digits, dots and dashes")
        if taken := [key for key in TAKEN if key in (self.options or {})]:
            raise ValueError(f"options: {', '.join(taken)} cannot be chosen here")
        if (self.template is None) == (self.text is None):
            raise ValueError("template: give either a template, or a text and its answers")
        self.templates()

    def templates(self) -> Templates:
        """What is asked. Raises UsageError."""
        try:
            if self.template is not None:
                return load_templates(self.template)
            answers = self.answers or {}
            return Templates(Template(self.text or "", answers), Template(self.video_text or self.text or "", answers))
        except UsageError as error:
            raise ValueError(str(error)) from None

    @property
    def compares(self) -> bool:
        """Whether it is asked about two samples at once."""
        return self.templates().picture.is_pair

    @property
    def shows_sources(self) -> bool:
        """Whether it is shown what the samples were made of."""
        return self.templates().picture.shows_source

    @property
    def asks_questions(self) -> bool:
        """Whether it asks each sample the questions of its own metadata."""
        return self.template in QUESTIONS

    @property
    def request_options(self) -> dict[str, Any]:
        """Further keys of a request."""
        if self.asks_questions:
            return {key: value for key, value in (ONE_TOKEN | (self.options or {})).items() if value is not None}
        return dict(OPTIONS) if self.options is None else self.options

    def endpoint(self) -> Endpoint:
        """The one that answers."""
        return Endpoint(
            self.url, self.model, self.key_variable, self.request_options, self.concurrency, self.retries, self.timeout
        )

    def recorded(self) -> dict[str, Any]:
        """What the answers depend on: not the address, nor how fast and for what price it is asked."""
        templates = self.templates()
        asked = [[each.text, dict(each.answers)] for each in (templates.picture, templates.video)]
        return {
            "model": self.model, "template": self.template or "its own", "asked": digest(asked), "options": self.request_options,
            "num_frames": self.num_frames, "max_side": self.max_side,
        }  # fmt: skip


def read_judge(path: str | Path) -> JudgeConfig:
    """The judge of a file, whose name is its own by default. Raises UsageError with every mistake in it."""
    mistakes: list[str] = []
    raw = {"name": re.sub(r"[^A-Za-z0-9._-]", "-", Path(path).stem), **read_config(path)}
    config = build(JudgeConfig, raw, "judge", mistakes)
    if mistakes:
        raise UsageError("\n  ".join([f"{path} is no judge:", *(each.removeprefix("judge.") for each in mistakes)]))
    return config
