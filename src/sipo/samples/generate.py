"""Pictures or videos from prompts, into a media folder, by all processes; the same call resumes."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from PIL import Image
from rich.console import Console

from sipo.data.media.encode_video import contact_sheet, encode_png, encode_video
from sipo.data.media.kinds import MediaFile
from sipo.errors import UserError
from sipo.files import open_regular, room_in, write_atomic
from sipo.processes import ALONE, Processes, batches
from sipo.processes.journal import Journal
from sipo.samples.folder import PICTURE, SAMPLES, SETTINGS, VIDEO, PromptItem, Sample, read_samples, read_settings
from sipo.samples.sources import SourceSampler, require_sources
from sipo.samples.trajectory import Traced, trajectory_of
from sipo.threads import in_background

Sampler = Callable[[list[str], list[int]], Sequence[Image.Image | list[Image.Image]]]
"""Prompts and seeds in, a picture or a video's frames each out, made from its own prompt and seed, never its batch."""
TracingSampler = Callable[[list[str], list[int]], Sequence[Traced]]
"""The same, each with the trajectory that led to it."""


def generate(
    sampler: Sampler | TracingSampler | SourceSampler,
    prompts: Sequence[PromptItem],
    out: Path,
    settings: Mapping[str, object],
    batch_size: int = 8,
    console: Console | None = None,
    files: Sequence[str] | None = None,
    processes: Processes = ALONE,
) -> Path:
    """Make the media of `prompts` that `out` lacks, and return `out`.

    `settings` (JSON values: model, weights, num_inference_steps, guidance_scale, size) are recorded; where `fps` is
    among them, the sampler makes videos, and each is written as an mp4 of that rate beside its contact sheet. A folder
    made with others is a `UserError` that names the keys that differ. So is a folder that was begun with other prompts
    or seeds; a longer list of prompts that begins with the old one is fine. Every file is on disk before its line in
    `samples.jsonl`, so that a kill at any moment leaves a folder that is valid as far as it goes.

    A sampler of a model that reads a source needs the source of every prompt (`require_sources`).

    `files` names them, relative to `out` (a benchmark's own layout), instead of 00000.png, 00001.png, ...

    All `processes` call it. Each samples whole batches and writes them while it samples the next; the batches, and so
    the files, are those of one process. A kill costs each the batch that it had sampled or was sampling.
    """
    if isinstance(sampler, SourceSampler):
        require_sources(prompts, sampler.size)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with processes.main_first():
        _settle(out, dict(settings))
    fps = settings.get("fps")
    suffix = PICTURE if fps is None else VIDEO
    names = files or [f"{i:05d}{suffix}" for i in range(len(prompts))]
    sources = {file: item.source for file, item in zip(names, prompts, strict=True) if item.source is not None}
    recorded = (
        {file: os.path.abspath(source) for file, source in sources.items() if isinstance(source, Path)}
        if isinstance(sampler, SourceSampler)
        else {}
    )
    samples = [
        Sample(file, item.prompt, item.seed, item.metadata, recorded.get(file))
        for file, item in zip(names, prompts, strict=True)
    ]
    journal = Journal(out / SAMPLES, processes)
    finished = _require_same(out, journal.begin(), samples)
    if processes.is_main:
        _require_whole(out, [sample for sample in samples if sample.file in finished])
    missing = [sample for sample in samples if sample.file not in finished]

    def kept() -> str:
        return f"{len(journal.lines())} of {len(samples)} samples are whole and kept"

    with ExitStack() as stack:
        stack.enter_context(room_in(out, kept=kept))
        advance = stack.enter_context(
            processes.progress(console, f"Generating {out.name}", len(samples), len(finished))
        )
        in_turn = stack.enter_context(in_background())
        for batch in processes.share(batches(missing, batch_size)):
            media = _draw(sampler, batch, sources)
            if len(media) != len(batch):
                raise ValueError(f"The sampler returned {len(media)} samples for {len(batch)} prompts.")
            in_turn(_write_batch, journal, batch, media, fps, advance)
    journal.finish(names)
    return out


def _draw(
    sampler: Sampler | TracingSampler | SourceSampler, batch: Sequence[Sample], sources: Mapping[str, MediaFile]
) -> Sequence:
    prompts, seeds = [sample.prompt for sample in batch], [sample.seed for sample in batch]
    if isinstance(sampler, SourceSampler):
        return sampler(prompts, seeds, [sources[sample.file] for sample in batch])
    return sampler(prompts, seeds)


def _write_batch(
    journal: Journal, batch: Sequence[Sample], media: Sequence, fps: object, advance: Callable[[int], None]
) -> None:
    for sample, made in zip(batch, media, strict=True):
        _write(journal.path.parent, sample, made, fps)
    journal.add(sample.to_dict() for sample in batch)
    advance(len(batch))


def _settle(out: Path, settings: dict) -> None:
    """Record the settings in a new folder; compare them with the recorded ones in an old one."""
    settings = json.loads(json.dumps(settings))  # what will be read back: tuples are lists, keys are text
    if not (out / SETTINGS).exists():
        if (out / SAMPLES).exists():
            raise UserError(
                f"{out} holds samples but no {SETTINGS}, so that their settings are unknown. Choose another folder."
            )
        write_atomic(out / SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    recorded = read_settings(out)
    different = [key for key in {**recorded, **settings} if recorded.get(key) != settings.get(key)]
    if different:
        lines = "".join(f"\n  {key}: {recorded.get(key)!r} there, {settings.get(key)!r} now" for key in different)
        raise UserError(f"{out} was made with other settings:{lines}\nChoose another folder or remove this one.")


def _require_same(out: Path, lines: Mapping[str, dict], samples: list[Sample]) -> set[str]:
    """The files that the folder holds. `UserError` where they are not among `samples`."""
    finished, wanted = read_samples(out) if lines else [], {sample.file: sample for sample in samples}
    if len(finished) > len(samples):
        raise UserError(
            f"{out} holds {len(finished)} samples, more than the {len(samples)} of this call. Choose another folder."
        )
    for old in finished:
        new = wanted.get(old.file)
        if new is None:
            raise UserError(f"{out} holds {old.file}, which this call does not make. Choose another folder.")
        if old != new:
            other = " and other metadata" if old.metadata != new.metadata else ""
            other += " and another source" if old.source != new.source else ""
            raise UserError(
                f"{out / old.file} was made for {old.prompt!r} with seed {old.seed}; this call has {new.prompt!r} with "
                f"seed {new.seed}{other}. Choose another folder."
            )
    return {sample.file for sample in finished}


def _require_whole(out: Path, finished: list[Sample]) -> None:
    lost = [name for s in finished for name in dict.fromkeys([s.file, s.picture]) if not _is_whole(out / name)]
    if lost:
        raise UserError(
            f"{out}: {len(lost)} files that {SAMPLES} lists are gone or damaged, {lost[0]} first. Remove the folder."
        )


def _is_whole(file: Path) -> bool:
    """Whether the file is there; a picture's own checksums are looked at too."""
    if file.suffix != PICTURE:
        return file.is_file()
    try:
        with open_regular(file) as content, Image.open(content) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError, UserError):
        return False
    return True


def _write(out: Path, sample: Sample, made: Image.Image | list[Image.Image] | Traced, fps: object) -> None:
    if isinstance(made, Traced):
        write_atomic(trajectory_of(out / sample.file), made.file())
        made = made.media
    if isinstance(made, Image.Image) != (fps is None):
        found, expected = ("a picture", fps) if fps is not None else ("frames", "nothing")
        raise ValueError(f"The sampler returned {found} for {sample.file}, but the settings say {expected} under fps.")
    if isinstance(made, Image.Image):
        write_atomic(out / sample.file, encode_png(made))
        return
    write_atomic(out / sample.file, encode_video(made, float(str(fps))))
    write_atomic(out / sample.picture, encode_png(contact_sheet(made)))
