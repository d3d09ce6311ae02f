from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.synthetic_run import prompt_items, sampler

from sipo.errors import UserError
from sipo.samples import generate as generate_module
from sipo.samples.folder import read_samples, read_settings
from sipo.samples.generate import generate

SETTINGS = {"model": "miniature", "num_inference_steps": 25, "size": (64, 64)}


class Killed(Exception):
    pass


class Counting:
    """A sampler that records what it was asked for, and dies before the picture `die_at`."""

    def __init__(self, die_at: int | None = None):
        self.prompts, self.die_at = [], die_at

    def __call__(self, prompts, seeds):
        if self.die_at is not None and len(self.prompts) + len(prompts) > self.die_at:
            raise Killed
        self.prompts += prompts
        return sampler(10, 0.0)(prompts, seeds)


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def test_folder_holds_the_pictures_their_lines_and_the_settings(tmp_path):
    items = prompt_items(5)
    out = generate(sampler(10, 0.0), items, tmp_path / "a", SETTINGS, batch_size=2)
    samples = read_samples(out)
    assert [(s.file, s.prompt, s.seed, s.metadata) for s in samples] == [
        (f"{i:05d}.png", item.prompt, item.seed, item.metadata) for i, item in enumerate(items)
    ]
    assert read_settings(out) == {**SETTINGS, "size": [64, 64]}
    expected = sampler(10, 0.0)([item.prompt for item in items], [item.seed for item in items])
    assert all((made == np.asarray(image)).all() for made, image in zip(pixels(out).values(), expected, strict=True))


def test_a_killed_generation_goes_on_where_it_stopped_and_ends_the_same(tmp_path):
    items = prompt_items(7)
    whole = generate(Counting(), items, tmp_path / "whole", SETTINGS, batch_size=2)
    with pytest.raises(Killed):
        generate(Counting(die_at=4), items, tmp_path / "cut", SETTINGS, batch_size=2)
    assert len(read_samples(tmp_path / "cut")) == 4
    again = Counting()
    cut = generate(again, items, tmp_path / "cut", SETTINGS, batch_size=3)
    assert again.prompts == [item.prompt for item in items[4:]]
    assert (cut / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert all((a == b).all() for a, b in zip(pixels(whole).values(), pixels(cut).values(), strict=True))


@pytest.mark.parametrize("keep", range(1, 60, 7))
def test_a_torn_line_costs_its_own_picture_alone(tmp_path, keep):
    """Cut the file of lines anywhere inside its last line: the pictures before it stand."""
    items = prompt_items(3)
    out = generate(Counting(), items, tmp_path / "a", SETTINGS)
    lines = (out / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (out / "samples.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:keep])
    again = Counting()
    generate(again, items, out, SETTINGS)
    assert again.prompts == [items[2].prompt]
    assert (out / "samples.jsonl").read_bytes() == b"".join(lines)


def test_a_finished_folder_is_left_alone_and_a_longer_list_adds_to_it(tmp_path):
    generate(Counting(), prompt_items(3), tmp_path / "a", SETTINGS)
    same, more = Counting(), Counting()
    generate(same, prompt_items(3), tmp_path / "a", SETTINGS)
    generate(more, prompt_items(5), tmp_path / "a", SETTINGS)
    assert same.prompts == []
    assert more.prompts == [item.prompt for item in prompt_items(5)[3:]]


def test_other_settings_are_refused_by_name(tmp_path):
    generate(sampler(10, 0.0), prompt_items(2), tmp_path / "a", SETTINGS)
    with pytest.raises(UserError) as caught:
        generate(sampler(10, 0.0), prompt_items(2), tmp_path / "a", {**SETTINGS, "num_inference_steps": 50, "eta": 1})
    assert "num_inference_steps: 25 there, 50 now" in str(caught.value)
    assert "eta: None there, 1 now" in str(caught.value)
    assert "model" not in str(caught.value)


def test_other_prompts_seeds_and_fewer_of_them_are_refused(tmp_path):
    items = prompt_items(3)
    generate(sampler(10, 0.0), items, tmp_path / "a", SETTINGS)
    with pytest.raises(UserError, match=r"00000\.png was made for .* with seed 100"):
        generate(sampler(10, 0.0), items[::-1], tmp_path / "a", SETTINGS)
    with pytest.raises(UserError, match="holds 3 samples, more than the 2 of this call"):
        generate(sampler(10, 0.0), items[:2], tmp_path / "a", SETTINGS)


def test_a_lost_picture_is_named(tmp_path):
    out = generate(sampler(10, 0.0), prompt_items(3), tmp_path / "a", SETTINGS)
    (out / "00001.png").unlink()
    with pytest.raises(UserError, match=r"1 files .* gone or damaged, 00001\.png first"):
        generate(sampler(10, 0.0), prompt_items(3), out, SETTINGS)


def test_a_damaged_picture_is_named(tmp_path):
    out = generate(sampler(10, 0.0), prompt_items(3), tmp_path / "a", SETTINGS)
    (out / "00002.png").write_bytes((out / "00002.png").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"1 files .* gone or damaged, 00002\.png first"):
        generate(sampler(10, 0.0), prompt_items(3), out, SETTINGS)


def test_pictures_of_unknown_make_are_refused(tmp_path):
    out = generate(sampler(10, 0.0), prompt_items(2), tmp_path / "a", SETTINGS)
    (out / "settings.json").unlink()
    with pytest.raises(UserError, match=r"no settings\.json"):
        generate(sampler(10, 0.0), prompt_items(2), out, SETTINGS)


def test_a_sampler_that_returns_too_few_is_caught(tmp_path):
    with pytest.raises(ValueError, match="returned 1 samples for 2 prompts"):
        generate(lambda prompts, seeds: sampler(1, 0)(prompts, seeds)[:1], prompt_items(2), tmp_path / "a", SETTINGS)


# videos


def moving(prompts, seeds):
    """Five frames: the still sampler's at five seeds."""
    frames = [sampler(10, 0.0)(prompts, [seed + 1000 * t for seed in seeds]) for t in range(5)]
    return [list(clip) for clip in zip(*frames, strict=True)]


VIDEOS = {"model": "m", "fps": 8.0}


def test_videos_are_mp4_beside_their_contact_sheets(tmp_path):
    out = generate(moving, prompt_items(3), tmp_path / "a", VIDEOS, batch_size=2)
    samples = read_samples(out)
    assert [(s.file, s.picture, s.is_video) for s in samples] == [
        (f"0000{i}.mp4", f"0000{i}.png", True) for i in range(3)
    ]
    for sample in samples:
        (frames,) = moving([sample.prompt], [sample.seed])
        with av.open(str(out / sample.file)) as file:
            decoded = [frame.to_image() for frame in file.decode(video=0)]
            assert file.streams.video[0].average_rate == 8
        for a, b in zip(decoded, frames, strict=True):
            assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).mean() < 12
        assert Image.open(out / sample.picture).size == (4 * 64 + 6, 2 * 64 + 2)


def test_a_killed_generation_of_videos_goes_on(tmp_path, monkeypatch):
    """Wherever it dies, a line stands for both of its files."""
    whole = generate(moving, prompt_items(4), tmp_path / "whole", VIDEOS, batch_size=2)
    write = generate_module.write_atomic
    for dies_at in range(1, 10):
        written = []

        def dying(path: Path, content, dies_at=dies_at, written=written):
            written.append(path.name)
            if len(written) == dies_at:
                raise Killed
            write(path, content)

        monkeypatch.setattr(generate_module, "write_atomic", dying)
        out = tmp_path / str(dies_at)
        with pytest.raises(Killed):
            generate(moving, prompt_items(4), out, VIDEOS, batch_size=2)
        if (out / "samples.jsonl").exists():
            assert all((out / s.file).exists() and (out / s.picture).exists() for s in read_samples(out))
        monkeypatch.setattr(generate_module, "write_atomic", write)
        generate(moving, prompt_items(4), out, VIDEOS, batch_size=2)
        assert {p.name: p.read_bytes() for p in out.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}


def test_a_lost_contact_sheet_is_named(tmp_path):
    out = generate(moving, prompt_items(2), tmp_path / "a", VIDEOS)
    (out / "00001.png").unlink()
    with pytest.raises(UserError, match=r"1 files .* gone or damaged, 00001\.png first"):
        generate(moving, prompt_items(2), out, VIDEOS)


def test_a_sampler_of_the_other_kind_is_caught(tmp_path):
    with pytest.raises(ValueError, match=r"returned a picture for 00000\.mp4, but the settings say 8\.0 under fps"):
        generate(sampler(1, 0), prompt_items(1), tmp_path / "a", VIDEOS)
    with pytest.raises(ValueError, match=r"returned frames for 00000\.png, but the settings say nothing under fps"):
        generate(moving, prompt_items(1), tmp_path / "b", SETTINGS)
