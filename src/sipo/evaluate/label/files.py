"""Labelled pairs as the files that `sipo train` reads: Pick-a-Pic's parquet, or JSONL beside the media."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sipo.data.media.kinds import MAX_VIDEO_BYTES
from sipo.data.pairs.pick_a_pic import encode_rows, pair_row
from sipo.errors import UsageError, UserError
from sipo.evaluate.label.label import Candidate, LabelledPair
from sipo.files import read_regular, write_atomic
from sipo.jsonl import dump_jsonl
from sipo.samples.folder import drawn_as

PARQUET, JSONL = ".parquet", ".jsonl"


def write_pairs(
    pairs: Sequence[LabelledPair], out: Path, seed: int = 0, read: Callable[[Path], bytes] | None = None
) -> Path:
    """Write .parquet (the files' bytes, in Pick-a-Pic's columns) or .jsonl (their paths), by the ending of `out`.

    `seed` draws the side of a row on which the chosen sample is. `read` gives the bytes of a sample for the parquet
    (default: the file's own). Raises UsageError for another ending, and for .parquet where samples have a source, which those
    columns do not hold; UserError where there is no pair or a file is missing.
    """
    read = read or _read
    require_ending("The file of pairs", out, PARQUET, JSONL)
    if not pairs:
        raise UserError(f"There is no pair to write to {out}: all were ties, or no prompt has two scored samples.")
    if out.suffix == JSONL:
        write_atomic(out, dump_jsonl(_line(pair, out.parent) for pair in pairs))
        return out
    if any(pair.chosen.source for pair in pairs):
        raise UsageError(f"The file of pairs: {out} cannot hold the sources of these samples; write a {JSONL}")
    rows = []
    for number, pair in enumerate(pairs):
        chosen, rejected = pair.chosen, pair.rejected
        media, models = (read(chosen.path), read(rejected.path)), (chosen.model, rejected.model)
        drawn = drawn_as(chosen.path), drawn_as(rejected.path)
        rows.append(pair_row(pair.prompt, number, *media, pair.gap, seed, models, drawn))
    write_atomic(out, encode_rows(rows, row_group_size=200))
    return out


def write_best(best: Sequence[Candidate], out: Path) -> Path:
    """The best scored samples as a JSONL manifest without rejected samples, for `loss: {name: sft}`."""
    require_ending("The file of best samples", out, JSONL)
    scored = [(sample, sample.score) for sample in best if sample.score]
    if not scored:
        raise UserError(f"There is no sample to write to {out}: none is right, or none has a score.")
    lines = (
        {"prompt": score.sample.prompt, "chosen": place(sample.path, out.parent), "score": score.value}
        | source_of(sample.source, out.parent)
        for sample, score in scored
    )
    write_atomic(out, dump_jsonl(lines))
    return out


def require_ending(what: str, out: Path, *endings: str) -> None:
    """Raises UsageError, which begins with `what` (an option's name), unless `out` has one of the endings."""
    if out.suffix not in endings:
        raise UsageError(f"{what}: {out} should end in {' or '.join(endings)}")


def _line(pair: LabelledPair, folder: Path) -> dict:
    chosen, rejected = place(pair.chosen.path, folder), place(pair.rejected.path, folder)
    gap = {} if pair.gap is None else {"score_gap": pair.gap}
    models = {"chosen_model": pair.chosen.model, "rejected_model": pair.rejected.model}
    line = {"prompt": pair.prompt, "chosen": chosen, "rejected": rejected} | source_of(pair.chosen.source, folder) | gap
    return line | {key: name for key, name in models.items() if name} | seeds_of(pair.chosen.path, pair.rejected.path)


def source_of(source: Path | None, folder: Path) -> dict[str, str]:
    """What a line of a manifest records of the picture that both members of its pair were made of."""
    return {"source": place(source, folder)} if source else {}


def seeds_of(chosen: Path, rejected: Path) -> dict:
    """What a line of a manifest records of generated members: their seeds and the settings of their samplers."""
    found = {"chosen": drawn_as(chosen), "rejected": drawn_as(rejected)}
    return {
        f"{member}_{key}": value
        for member, drawn in found.items() if drawn
        for key, value in zip(("seed", "sampler"), drawn, strict=True)
    }  # fmt: skip


def place(path: Path, folder: Path) -> str:
    """Relative to the manifest if the file is below its folder, so that both can be moved together; else absolute."""
    path = path.resolve()
    inside = Path(os.path.relpath(path, folder.resolve()))
    return path.as_posix() if inside.parts[0] == os.pardir else inside.as_posix()


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_VIDEO_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
