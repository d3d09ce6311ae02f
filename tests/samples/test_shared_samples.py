"""Two real processes make the samples of one, byte for byte, whoever is killed and however many go on."""

import time

import numpy as np
import pytest
from PIL import Image
from support.folders import contents
from support.processes import Kill, in_one, in_two
from support.synthetic_run import prompt_items

from sipo.errors import UserError
from sipo.samples.generate import generate

ITEMS = prompt_items(11)


def of_its_batch(prompts, seeds):
    """Noise that depends on all of a batch, as the rounding of a network's sums does."""
    return [
        Image.fromarray(np.random.default_rng([*seeds, place]).integers(0, 255, (8, 8, 3), dtype=np.uint8))
        for place in range(len(prompts))
    ]


def moving(prompts, seeds):
    stills = [of_its_batch(prompts, [seed + 1000 * t for seed in seeds]) for t in range(3)]
    return [[frame.resize((32, 32)) for frame in clip] for clip in zip(*stills, strict=True)]


def makes(processes, out, sampler=of_its_batch, items=ITEMS, **settings):
    """The seeds that this process sampled."""
    asked = []

    def sample(prompts, seeds):
        time.sleep(0.0 if processes.rank == processes.world - 1 else 0.2)  # the last one, which may be killed, is fast
        asked.append(seeds)
        return sampler(prompts, seeds)

    generate(sample, items, out, {"model": "noise", **settings}, batch_size=2, processes=processes)
    return asked


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "samples"
    generate(of_its_batch, ITEMS, out, {"model": "noise"}, batch_size=2)
    return contents(out)


def test_two_processes_make_the_files_of_one(tmp_path, expected):
    asked = in_two(makes, tmp_path / "two")
    assert all(asked)
    assert sorted(asked[0] + asked[1]) == [[i.seed for i in ITEMS[n : n + 2]] for n in range(0, 11, 2)]
    assert contents(tmp_path / "two") == expected


@pytest.mark.parametrize(("first", "then"), [(in_two, in_one), (in_one, in_two)])
def test_a_kill_costs_a_batch_and_any_number_of_processes_goes_on(tmp_path, expected, first, then):
    """The last process is killed while it writes its second batch (its third picture)."""
    rank = 1 if first is in_two else 0
    found = first(makes, tmp_path / "cut", kill=Kill(rank, 3, ".png."))
    if first is in_two:
        assert "process 1 has ended without a word" in found[0]
    left = {name: content for name, content in contents(tmp_path / "cut").items() if name.endswith((".jsonl", ".part"))}
    finished = b"".join(left.values()).count(b"\n")
    assert finished >= 2
    asked = then(makes, tmp_path / "cut")
    assert sum(len(seeds) for each in asked for seeds in each) == 11 - finished
    assert contents(tmp_path / "cut") == expected


def test_videos_of_two_processes_are_those_of_one(tmp_path):
    generate(moving, ITEMS[:5], tmp_path / "one", {"model": "noise", "fps": 8.0}, batch_size=2)
    in_two(make_videos, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def make_videos(processes, out):
    makes(processes, out, moving, ITEMS[:5], fps=8.0)


def refuses(processes, out):
    if processes.is_main:
        return makes(processes, out, sampler=fails)
    return makes(processes, out)


def fails(prompts, seeds):
    raise UserError("the network gives NaN")


def test_an_error_in_one_process_ends_the_other_with_its_reason(tmp_path):
    first, second = in_two(refuses, tmp_path / "out")
    assert first == "the network gives NaN"
    assert second == "process 0 has ended: the network gives NaN"


def test_a_folder_of_something_else_is_refused_by_every_process(tmp_path):
    generate(of_its_batch, ITEMS[:3], tmp_path / "out", {"model": "another"})
    first, second = in_two(makes, tmp_path / "out")
    assert "model: 'another' there, 'noise' now" in first
    assert "model: 'another' there, 'noise' now" in second
