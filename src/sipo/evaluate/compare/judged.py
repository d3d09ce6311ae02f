"""Two models compared by a judge that sees both samples of a prompt, in both orders; what it has answered is kept.

verdicts.JUDGE.NAME.jsonl    beside the comparison: a line a pair, `{"pair", "hash", "judge", "verdict", "orders", "answers",
                             "usage"}`, or an `error`; NAME is the second model
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from sipo.errors import UserError
from sipo.evaluate.compare.matches import Comparison, Match, by_key, category_key, category_of, compare_matches
from sipo.evaluate.scores.files import Score, content_hash, source_hash, total_usage
from sipo.evaluate.scores.score import open_medium, open_source, require_sources_of
from sipo.evaluate.scores.sources import find_one
from sipo.evaluate.statistics.verdicts import Verdict
from sipo.files import digest, room_in
from sipo.processes import ALONE, Processes, batches
from sipo.processes.journal import Journal
from sipo.samples.folder import Sample
from sipo.scorers.base import Medium, reads_sources
from sipo.threads import read_ahead

Pair = tuple[Sample, Sample]


class PairwiseJudge(Protocol):
    """What a judge of pairs must have; `sipo.scorers.judge.judges.PairJudge` is one."""

    @property
    def name(self) -> str: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def settings(self) -> dict[str, Any]: ...

    def verdicts(self, pairs: Sequence[tuple[Medium, Medium]], prompts: Sequence[str]) -> list[dict]:
        """Of each pair `{"verdict", "orders", "answers", "usage"}`, or `{"error"}`. One that `reads_sources`
        (`sipo.scorers.base.SourceScorer`) is given `sources` too: the picture that both of each pair were made of."""
        ...


@dataclass(frozen=True)
class Model:
    """A name, and the folder of its media."""

    name: str
    folder: Path


def judge_pairs(
    judge: PairwiseJudge,
    a: Model,
    b: Model,
    out: Path,
    category: str | None = None,
    batch_size: int = 16,
    console: Console | None = None,
    processes: Processes = ALONE,
) -> Comparison:
    """The first model against the second by `judge`, on the prompts and seeds that both have. All `processes` call it.

    Pairs without a verdict are counted and asked about again next time. category: see `compare_scores`. Raises UserError
    where the models share no prompt and seed, or no pair has a verdict, and if the judge reads sources for samples without
    one and for pairs whose sources differ.
    """
    ours, theirs = (by_key(each.folder, ((s, s) for s in find_one(each.folder).samples)) for each in (a, b))
    keys = sorted(ours.keys() & theirs.keys())
    if not keys:
        raise UserError(f"{a.name} and {b.name} have no sample of the same prompt and seed; there is nothing to judge")
    pairs = {_name(ours[key], theirs[key]): (ours[key], theirs[key]) for key in keys}
    if reads_sources(judge):
        _require_same_sources(judge.name, a, b, list(pairs.values()))
    lines = _ask(judge, a, b, out, pairs, batch_size, console, processes)
    if all("error" in line for line in lines.values()):
        raise UserError(
            f"{judge.name}: there is no verdict on any of {len(lines)} pairs; the first: {next(iter(lines.values()))['error']}"
        )
    return _comparison(judge.name, a, b, pairs, lines, (len(ours), len(theirs)), category)


def _require_same_sources(judge: str, a: Model, b: Model, pairs: Sequence[Pair]) -> None:
    for model, samples in zip((a, b), zip(*pairs, strict=True), strict=True):
        require_sources_of(model.folder, samples, judge)
    differ = [(ours, theirs) for ours, theirs in pairs if source_hash(ours) != source_hash(theirs)]
    if differ:
        ours, theirs = differ[0]
        raise UserError(
            f"{a.name} and {b.name} made {len(differ)} of {len(pairs)} pairs of different sources, first {ours.prompt[:60]!r}, "
            f"seed {ours.seed}: {ours.source} and {theirs.source}. {judge} compares edits of one picture."
        )


def _ask(
    judge: PairwiseJudge, a: Model, b: Model, out: Path, pairs: Mapping[str, Pair], batch_size: int,
    console: Console | None, processes: Processes,
) -> dict[str, dict]:  # fmt: skip
    """The line of every pair; only those are asked about that have no verdict, or have changed."""
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / f"verdicts.{judge.name}.{b.name}.jsonl", processes, key="pair")
    head = partial(_head, judge, a.folder, b.folder, pairs)
    done = journal.begin(
        lambda line: line["pair"] in pairs and "error" not in line
        and all(line.get(key) == value for key, value in head(line["pair"]).items())
    )  # fmt: skip
    missing = [name for name in pairs if name not in done]
    read = partial(_read, judge, a.folder, b.folder, pairs)
    with (
        room_in(out, kept=lambda: f"{len(journal.lines())} of {len(pairs)} verdicts are kept"),
        processes.progress(console, f"Judging {a.name} against {b.name}", len(pairs), len(done)) as advance,
    ):
        for batch, media in read_ahead(processes.share(batches(missing, batch_size)), read):
            good = [name for name in batch if not isinstance(media[name], str)]
            sources: dict = {"sources": [media[name][2] for name in good]} if reads_sources(judge) else {}
            shown, prompts = [media[name][:2] for name in good], [pairs[name][0].prompt for name in good]
            given = judge.verdicts(shown, prompts, **sources) if good else []
            found = {name: {"error": reason} for name, reason in media.items() if isinstance(reason, str)}
            found |= dict(zip(good, given, strict=True))
            journal.add(head(name) | found[name] for name in batch)
            advance(len(batch))
    return journal.finish(pairs)


def _name(a: Sample, b: Sample) -> str:
    return f"{a.file} {b.file}"


def _head(judge: PairwiseJudge, first: Path, second: Path, pairs: Mapping[str, Pair], name: str) -> dict:
    """The keys of a line before its verdict; a line with others is stale."""
    a, b = pairs[name]
    hashes = [content_hash(first, a), content_hash(second, b)] + ([source_hash(a)] if reads_sources(judge) else [])
    return {"pair": name, "hash": digest(hashes), "judge": judge.settings}


def _read(
    judge: PairwiseJudge, first: Path, second: Path, pairs: Mapping[str, Pair], batch: Sequence[str]
) -> dict[str, Any]:
    """The media of each pair, and its source if the judge reads it, or why one of them cannot be read."""
    found: dict[str, Any] = {}
    for name in batch:
        a, b = pairs[name]
        try:
            media = [
                open_medium(place / each.file, each, judge.num_frames) for place, each in ((first, a), (second, b))
            ]
            found[name] = (*media, *([open_source(a)] if reads_sources(judge) else []))
        except (UserError, OSError, ValueError) as error:
            found[name] = str(error)
    return found


def _comparison(
    judge: str, a: Model, b: Model, pairs: Mapping[str, Pair], lines: Mapping[str, dict], counts: tuple[int, int],
    category: str | None,
) -> Comparison:  # fmt: skip
    key = category_key([first for first, _ in pairs.values()], category)
    good = {name: line for name, line in lines.items() if "error" not in line}
    matches = [_match(pairs[name], line, key) for name, line in good.items()]
    unscored = [Score(pairs[name][0], math.nan, {}, line["error"]) for name, line in lines.items() if "error" in line]
    return replace(
        compare_matches(matches, judge, (a.name, b.name), (a.folder, b.folder)),
        unpaired=(counts[0] - len(pairs), counts[1] - len(pairs)),
        unscored=tuple(unscored),
        judged={
            **_orders(list(good.values())),
            "usage": total_usage(line["usage"] for line in lines.values() if "usage" in line),
        },
    )


def _match(pair: Pair, line: Mapping, key: str) -> Match:
    """The judge's words stand with the sample that it saw first."""
    a, b = pair
    verdict = Verdict(a.prompt, a.seed, line["verdict"], None, category_of(a, key))
    said = [{"reasons": [f"shown first: {answer}"]} for answer in line["answers"]]
    return Match(verdict, (a, b), details=(said[0], said[1]))


def _orders(lines: Sequence[Mapping]) -> dict[str, int]:
    """How many pairs have one verdict in both orders; of the answers that prefer one sample, how many prefer the first."""
    answers = [(order, place) for line in lines for place, order in enumerate(line["orders"])]
    return {
        "agreed": sum(line["orders"][0] == line["orders"][1] for line in lines),
        "decisive": sum(order != "tie" for order, _ in answers),
        "shown_first": sum(order == ("win", "loss")[place] for order, place in answers),
    }
