"""What a judge is asked, and how its answer is read.

A template's text has marks: {prompt}, and {media} (one sample) or {first} and {second} (two), and perhaps {source}, the
picture that they were made of. A video takes the place of its mark as frames in order. `answers` holds regular
expressions, by the name of what is judged; the last match counts, as a model may think aloud before it answers.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from sipo.errors import UsageError, printable, shown
from sipo.scorers import texts

MARKS = re.compile(r"\{(media|first|second|source)\}")
FIRST, SECOND, TIE = ("first", "a", "1"), ("second", "b", "2"), ("tie", "equal", "same")
MOST_READ = 100_000  # characters at the end of an answer that are searched


class Unreadable(ValueError):
    """An answer that does not hold what the template asks for."""


@dataclass(frozen=True)
class Template:
    """Raises UsageError for marks and patterns that do not go together.

    A pattern for one sample has one group, a number. One for two samples has two groups, the numbers of the first and
    the second, or one, a word: first, second or tie (a, b; 1, 2).
    """

    text: str
    answers: Mapping[str, str]

    def __post_init__(self) -> None:
        marks = sorted(MARKS.findall(self.text))
        if marks not in (["media"], ["media", "source"], ["first", "second"], ["first", "second", "source"]):
            raise UsageError(
                "text: expected {media} once, or {first} and {second} once each, and perhaps {source} once; "
                f"found {marks or 'none'}"
            )
        if not self.answers:
            raise UsageError("answers: expected at least one pattern")
        for name, pattern in self.answers.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise UsageError(f"answers.{name}: {pattern!r} is no regular expression: {error}") from None
            if groups not in ((1, 2) if self.is_pair else (1,)):
                wanted = "one group, the verdict, or two, the numbers" if self.is_pair else "one group, the number"
                raise UsageError(f"answers.{name}: {pattern!r} has {groups} groups; expected {wanted}")

    @property
    def is_pair(self) -> bool:
        """Whether it compares two samples."""
        return "{first}" in self.text

    @property
    def shows_source(self) -> bool:
        """Whether it shows the picture that the samples were made of."""
        return "{source}" in self.text

    def parts(self, prompt: str) -> list[str]:
        """Texts and the names of marks in turn: text, mark, text, mark, ..., text."""
        found = MARKS.split(self.text)
        return [part if place % 2 else part.replace("{prompt}", prompt) for place, part in enumerate(found)]

    def numbers(self, answer: str) -> dict[str, float]:
        """The numbers in an answer about one sample. Raises Unreadable for one that is missing."""
        return {name: _number(match[1]) for name, match in self._matches(answer).items()}

    def shares(self, answer: str) -> dict[str, tuple[float, float]]:
        """In an answer about two samples what the first and the second get. Raises Unreadable."""
        return {
            name: (_number(match[1]), _number(match[2])) if match.re.groups == 2 else _word(match[1])
            for name, match in self._matches(answer).items()
        }

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern]:
        return {name: re.compile(pattern) for name, pattern in self.answers.items()}

    def _matches(self, answer: str) -> dict[str, re.Match]:
        found = {name: list(p.finditer(answer[-MOST_READ:])) for name, p in self._patterns.items()}
        if lacking := [name for name, matches in found.items() if not matches]:
            raise Unreadable(f"no {' and no '.join(lacking)} in the answer {shown(answer[-200:].strip())}")
        return {name: matches[-1] for name, matches in found.items()}


def _number(text: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise Unreadable(f"found {shown(text, 40)}, expected a number") from None
    if not math.isfinite(value):
        raise Unreadable(f"found {value}, expected a finite number")
    return value


def _word(text: str) -> tuple[float, float]:
    word = str(text).strip().lower()
    for words, shares in ((FIRST, (1.0, 0.0)), (SECOND, (0.0, 1.0)), (TIE, (0.5, 0.5))):
        if word in words:
            return shares
    raise Unreadable(f"found {printable(word[:40])!r}, expected first, second or tie")


NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"


VERDICT = {"verdict": r"(?i)Verdict:\W*(first|second|tie)\b"}
RATING = {"rating": rf"(?i)Rating:\W*{NUMBER}"}


def _scored(*names: str) -> dict[str, str]:
    return {name: rf"{name.capitalize()} Score \(1-5\):\s*{NUMBER}" for name in names}


def _halves(kind: str) -> dict[str, str]:
    halves = rf"\s*{kind} 1:\s*{NUMBER}\s*{kind} 2:\s*{NUMBER}"
    return {name: rf"{name.capitalize()} Score:{halves}" for name in ("alignment", "coherence", "style")}


TEMPLATES: dict[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "rating": (RATING, RATING),
    "pairwise": (VERDICT, VERDICT),
    "unifiedreward-2": (_scored("alignment", "coherence", "style"), _scored("alignment", "physics", "style")),
    "unifiedreward-2-pair": (_halves("Image"), _halves("Video")),
    "edit": (RATING, RATING),
    "edit-pair": (VERDICT, VERDICT),
}
"""The package's own: patterns for pictures, and for videos; the texts are NAME.txt and NAME-video.txt."""


QUESTIONS: dict[str, str] = {"geneval2": "{media}{prompt} Answer in one word."}
"""Templates that ask each sample the questions of its own metadata in turn, here as {prompt} (`sipo.scorers.judge.questions`)."""


@dataclass(frozen=True)
class Templates:
    """What is asked about pictures, and about videos."""

    picture: Template
    video: Template

    def __post_init__(self) -> None:
        if self.picture.is_pair != self.video.is_pair:
            raise UsageError("video_text: judges another number of samples than text")
        if self.picture.shows_source != self.video.shows_source:
            raise UsageError("video_text: {source} stands in it or in text alone; expected it in both or in neither")


def load_templates(name: str) -> Templates:
    """The package's own of that name. Raises UsageError for another one."""
    if name in QUESTIONS:
        asked = Template(QUESTIONS[name], {"word": r"(\S+)"})
        return Templates(asked, asked)
    if name not in TEMPLATES:
        known = ", ".join([*TEMPLATES, *QUESTIONS])
        raise UsageError(f"template: {name!r} is none of {known}; or write text and answers in its place")
    picture, video = TEMPLATES[name]
    return Templates(Template(texts.read(name), picture), Template(texts.read(f"{name}-video"), video))
