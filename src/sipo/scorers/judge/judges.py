"""Judges over an endpoint: a score for each sample, by a rating or by questions; or a verdict on two in both orders."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from PIL import Image

from sipo.errors import UsageError, UserError, printable
from sipo.scorers.base import Medium, Metadata
from sipo.scorers.judge.config import JudgeConfig, read_judge
from sipo.scorers.judge.endpoint import Answer, Endpoint, Refused
from sipo.scorers.judge.questions import Question, arithmetic_mean, geometric_mean, questions_of
from sipo.scorers.judge.templates import Template, Unreadable

QUALITY = 95  # of the JPEGs that are sent, as UnifiedReward's own client sends them
MOST_KEPT = 2000  # characters of an answer that are kept
NO_PROBABILITIES = (
    "the endpoint gives no log-probabilities of an answer's first token (logprobs, top_logprobs), which Soft-TIFA needs; vLLM "
    "and SGLang give them"
)
Order = Literal["win", "tie", "loss"]
Sources = Sequence[Image.Image] | None


@dataclass(frozen=True)
class Judge:
    """What both kinds of judges share."""

    config: JudgeConfig

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def num_frames(self) -> int:
        return self.config.num_frames

    @property
    def settings(self) -> dict[str, Any]:
        return self.config.recorded()

    @property
    def reads_sources(self) -> bool:
        return self.config.shows_sources

    @cached_property
    def _endpoint(self) -> Endpoint:
        return self.config.endpoint()

    def _template(self, media: Sequence[Medium]) -> Template:
        templates = self.config.templates()
        return templates.video if any(isinstance(medium, list) for medium in media) else templates.picture

    def _message(self, prompt: str, **media: Medium) -> list[dict]:
        """The parts of a message: the template's texts, and the samples at their marks."""
        found: list[dict] = []
        for place, part in enumerate(self._template(list(media.values())).parts(prompt)):
            if place % 2:
                found += [_picture(picture, self.config.max_side) for picture in _pictures(media[part])]
            elif part.strip():
                found.append({"type": "text", "text": part})
        return found

    def _usage(self, answers: Sequence[Answer | Refused]) -> dict[str, float]:
        """Requests answered, their tokens, and with a price what they cost, in US dollars."""
        good = [answer for answer in answers if isinstance(answer, Answer)]
        tokens = [sum(each.input_tokens for each in good), sum(each.output_tokens for each in good)]
        found: dict[str, float] = {"requests": len(good), "input_tokens": tokens[0], "output_tokens": tokens[1]}
        if price := self.config.price:
            found["dollars"] = (tokens[0] * price.input + tokens[1] * price.output) / 1e6
        return found


@dataclass(frozen=True)
class PointJudge(Judge):
    """A scorer: the mean of the numbers that the template asks for; each is a detail under its own name.

    Raises UserError where the endpoint cannot be used (see `Endpoint`). A sample without a readable answer gets an error.
    sources: what the media were made of, for a template that shows it.
    """

    def __call__(
        self, media: list[Medium], prompts: list[str], metadata: Metadata = None, sources: Sources = None
    ) -> list[float]:
        return _scores(self.name, self.details(media, prompts, metadata, sources))

    def details(
        self, media: list[Medium], prompts: list[str], metadata: Metadata = None, sources: Sources = None
    ) -> list[dict]:
        given = zip(media, prompts, _shown(sources, len(media)), strict=True)
        messages = [self._message(prompt, media=medium, **source) for medium, prompt, source in given]
        answers = self._endpoint.ask_all(messages)
        return [self._scored(medium, answer) for medium, answer in zip(media, answers, strict=True)]

    def _scored(self, medium: Medium, answer: Answer | Refused) -> dict:
        if isinstance(answer, Refused):
            return {"error": printable(answer)}
        kept = {"reasons": [_kept(answer.text)], "usage": self._usage([answer])}
        try:
            numbers = self._template([medium]).numbers(answer.text)
        except Unreadable as error:
            return {"error": _unread(answer, error), "usage": kept["usage"]}
        return {"score": sum(numbers.values()) / len(numbers), **numbers, **kept}


@dataclass(frozen=True)
class QuestionJudge(Judge):
    """A scorer: Soft-TIFA GM, the geometric mean of the probabilities of the right answers to a picture's own questions.

    Its details: `atoms`, the probabilities; `arithmetic`, their mean (Soft-TIFA AM); `tifa`, the share of questions whose
    likeliest answer is right; `unlisted`, how many have no right answer among the tokens that the endpoint lists (they
    count as 0). A picture without questions in its metadata gets an error. Raises UserError as `PointJudge`.
    """

    def __call__(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[float]:
        return _scores(self.name, self.details(media, prompts, metadata))

    def details(self, media: list[Medium], prompts: list[str], metadata: Metadata = None) -> list[dict]:
        asked = [
            _questions(medium, about) for medium, about in zip(media, metadata or [None] * len(media), strict=True)
        ]
        messages = [
            self._message(question.text, media=medium)
            for medium, found in zip(media, asked, strict=True)
            for question in (found if isinstance(found, list) else [])
        ]
        answers = iter(self._endpoint.ask_all(messages))
        return [
            {"error": found} if isinstance(found, str) else self._scored(found, [next(answers) for _ in found])
            for found in asked
        ]

    def _scored(self, questions: Sequence[Question], answers: Sequence[Answer | Refused]) -> dict:
        usage = {"usage": self._usage(answers)}
        rows: list[tuple[Question, Answer]] = []
        for question, answer in zip(questions, answers, strict=True):
            if isinstance(answer, Refused):
                return {"error": f"{printable(question.text)} {printable(answer)}", **usage}
            if not answer.first:
                return {"error": NO_PROBABILITIES, **usage}
            rows.append((question, answer))
        atoms = [question.probability(answer.first) for question, answer in rows]
        return {
            "score": geometric_mean(atoms),
            "arithmetic": arithmetic_mean(atoms),
            "tifa": sum(question.is_right(answer.first) for question, answer in rows) / len(rows),
            "atoms": atoms,
            "unlisted": sum(not question.spellings() & answer.first.keys() for question, answer in rows),
            "reasons": [_line(*row, p) for row, p in zip(rows, atoms, strict=True)],
            **usage,
        }


@dataclass(frozen=True)
class PairJudge(Judge):
    """Verdicts on two samples, each pair asked in both orders; where these disagree, it is a tie."""

    def verdicts(
        self, pairs: Sequence[tuple[Medium, Medium]], prompts: Sequence[str], sources: Sources = None
    ) -> list[dict]:
        """Of each pair `{"verdict", "orders", "answers", "usage"}`, or `{"error", "usage"}`.

        verdict: win, tie or loss of the first. orders: the same by the answers with the first, and with the second shown
        first. sources: what both of each pair were made of, for a template that shows it. Raises UserError as `PointJudge`.
        """
        messages = []
        for (a, b), prompt, source in zip(pairs, prompts, _shown(sources, len(pairs)), strict=True):
            messages += [
                self._message(prompt, first=a, second=b, **source),
                self._message(prompt, first=b, second=a, **source),
            ]
        answers = self._endpoint.ask_all(messages)
        return [self._verdict(pair, answers[2 * i : 2 * i + 2]) for i, pair in enumerate(pairs)]

    def _verdict(self, pair: Sequence[Medium], answers: Sequence[Answer | Refused]) -> dict:
        usage = {"usage": self._usage(answers)}
        orders: list[Order] = []
        for answer, sign in zip(answers, (1, -1), strict=True):
            if isinstance(answer, Refused):
                return {"error": printable(answer), **usage}
            try:
                shares = self._template(pair).shares(answer.text)
            except Unreadable as error:
                return {"error": _unread(answer, error), **usage}
            orders.append(result(shares, sign))
        kept = [_kept(answer.text) for answer in answers if isinstance(answer, Answer)]
        return {"verdict": agreed(*orders), "orders": orders, "answers": kept, **usage}


def load_point_judge(path: str, weights: str | None = None) -> PointJudge | QuestionJudge:
    """Raises UsageError for a file that is no judge of single samples, and for weights, which are the endpoint's."""
    if weights:
        raise UsageError(f"--weights: {path} is a judge, whose weights lie at its endpoint")
    config = read_judge(path)
    if config.compares:
        raise UsageError(f"{path} compares two samples, and gives no scores: sipo compare takes it")
    return QuestionJudge(config) if config.asks_questions else PointJudge(config)


def load_pair_judge(path: str) -> PairJudge:
    """Raises UsageError for a file that is no judge."""
    return PairJudge(read_judge(path))


def result(shares: Mapping[str, tuple[float, float]], sign: int = 1) -> Order:
    """Of the first sample where `sign` is 1, of the second where it is -1: who gets more over all that is judged."""
    gain = sign * sum(first - second for first, second in shares.values())
    return "tie" if abs(gain) < 1e-9 else "win" if gain > 0 else "loss"


def agreed(one: Order, other: Order) -> Order:
    """The verdict of two orders of the same pair: what both say, else a tie."""
    return one if one == other else "tie"


def _scores(name: str, details: Sequence[Mapping]) -> list[float]:
    """Raises UserError where one has none."""
    if wrong := [each["error"] for each in details if "error" in each]:
        raise UserError(f"{name}: {wrong[0]}")
    return [each["score"] for each in details]


def _questions(medium: Medium, metadata: Mapping | None) -> list[Question] | str:
    """What a sample is asked, or why nothing."""
    if not isinstance(medium, Image.Image):
        return "a video; GenEval 2 asks about pictures"
    try:
        return questions_of(metadata)
    except UserError as error:
        return str(error)


def _line(question: Question, answer: Answer, probability: float) -> str:
    said = printable(answer.text.strip()[:40])
    return f"{printable(question.text)} {said} (P({printable(question.answer)}) = {probability:.4f})"


def _shown(sources: Sources, count: int) -> list[dict[str, Medium]]:
    """What stands at the mark {source}, of each sample or pair."""
    return [{} for _ in range(count)] if sources is None else [{"source": source} for source in sources]


def _pictures(medium: Medium) -> list[Image.Image]:
    return [medium] if isinstance(medium, Image.Image) else medium


def _picture(picture: Image.Image, max_side: int) -> dict:
    """A picture as a data URL, reduced so that its longer side has at most `max_side` pixels."""
    sent = picture.convert("RGB")
    if max(sent.size) > max_side:
        sent = sent.copy()
        sent.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    sent.save(buffer, "JPEG", quality=QUALITY)
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"},
    }


def _kept(text: str) -> str:
    """The end of an answer, where the verdict stands."""
    text = printable(text.strip())
    return text if len(text) <= MOST_KEPT else f"...{text[-MOST_KEPT:]}"


def _unread(answer: Answer, error: Unreadable) -> str:
    cut = ", which max_tokens cut off" if answer.ended_by == "length" else ""
    return f"{error}{cut}"
