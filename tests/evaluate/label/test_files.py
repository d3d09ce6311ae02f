"""Files of labelled pairs, read back through the package's own readers: what `sipo data check` and `sipo train` see."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.videos import grey, video

from sipo.data.media.kinds import media_kind
from sipo.data.pairs.check import check_pairs
from sipo.data.pairs.open import open_pairs
from sipo.errors import UsageError, UserError
from sipo.evaluate.label.files import write_best, write_pairs
from sipo.evaluate.label.label import Candidate, label
from sipo.evaluate.scores.files import Score
from sipo.samples.folder import Sample


def picture(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def labels(tmp_path):
    """40 prompts, three samples each, whose score is their red."""
    folder = tmp_path / "samples"
    folder.mkdir()
    rng, given = np.random.default_rng(0), []
    for prompt in range(40):
        for seed, level in enumerate(rng.permutation(200)[:3]):
            file = f"{prompt:02d}-{seed}.png"
            (folder / file).write_bytes(picture(int(level)))
            given.append(Candidate(folder / file, Score(Sample(file, f"prompt {prompt}", seed), float(level), {}), "m"))
    return label(given)


def read(path) -> list:
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in open_pairs(str(path))]


def content(medium) -> bytes:
    return medium if isinstance(medium, bytes) else medium.read_bytes()


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl"])
def test_the_pairs_come_back_as_they_were(labels, tmp_path, name):
    out = write_pairs(labels.preferences.pairs, tmp_path / name)
    found = [(prompt, content(chosen), content(rejected)) for prompt, chosen, rejected in read(out)]
    assert found == [
        (p.prompt, p.chosen.path.read_bytes(), p.rejected.path.read_bytes()) for p in labels.preferences.pairs
    ]
    checked = check_pairs(str(out))
    assert (checked.num_rows, checked.num_usable, checked.num_bad) == (40, 40, 0)


def test_the_columns_are_pick_a_pics_and_the_side_says_nothing(labels, tmp_path):
    table = pq.read_table(write_pairs(labels.preferences.pairs, tmp_path / "pairs.parquet", seed=3)).to_pylist()
    assert {"jpg_0", "jpg_1", "label_0", "label_1", "caption", "model_0", "has_label"} <= table[0].keys()
    assert all(row["label_0"] + row["label_1"] == 1 and row["model_1"] == "m" for row in table)
    assert [row["score_gap"] for row in table] == [pair.gap for pair in labels.preferences.pairs]
    assert 8 <= sum(row["label_0"] for row in table) <= 32  # 40 fair coins: 20, standard deviation 3.2
    uids = [row["image_0_uid"] if row["label_0"] else row["image_1_uid"] for row in table]
    assert uids == [row["best_image_uid"] for row in table]


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl"])
def test_generated_members_keep_their_seeds_and_their_sampler(labels, tmp_path, name):
    """Those of a folder that `generate` wrote; of the others nothing is known."""
    pairs = labels.preferences.pairs[:6]
    (tmp_path / "samples" / "settings.json").write_text('{"model": "tiny", "height": 16, "width": 16}')
    listed = [(pair.chosen, 5 + n) for n, pair in enumerate(pairs)] + [
        (pair.rejected, 90 + n) for n, pair in enumerate(pairs[:4])
    ]
    lines = [{"file": each.path.name, "prompt": "p", "seed": seed} for each, seed in listed]
    (tmp_path / "samples" / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    origins = open_pairs(write_pairs(pairs, tmp_path / name, seed=3)).origins(list(range(6)))
    assert [origin.seeds for origin in origins] == [(5 + n, 90 + n if n < 4 else None) for n in range(6)]
    sampler = {"model": "tiny", "height": 16, "width": 16}
    assert [origin.samplers for origin in origins] == [(sampler, sampler if n < 4 else None) for n in range(6)]
    assert {origin.models for origin in origins} == {("m", "m")}


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl"])
def test_pairs_of_votes_have_no_gap(labels, tmp_path, name):
    voted = [replace(pair, gap=None) for pair in labels.preferences.pairs]
    out = write_pairs(voted, tmp_path / name)
    assert [prompt for prompt, _, _ in read(out)] == [pair.prompt for pair in voted]
    assert check_pairs(str(out)).num_usable == 40


def test_the_file_is_a_function_of_pairs_and_seed(labels, tmp_path):
    a, b, c = (
        write_pairs(labels.preferences.pairs, tmp_path / f"{n}.parquet", seed=s)
        for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    assert a.read_bytes() == b.read_bytes() != c.read_bytes()


def test_a_manifest_beside_its_media_moves_with_them_and_one_elsewhere_names_them_in_full(labels, tmp_path):
    inside = write_pairs(labels.preferences.pairs, tmp_path / "pairs.jsonl")
    outside = write_pairs(labels.preferences.pairs, tmp_path / "other" / "pairs.jsonl")
    places = [[json.loads(line)["chosen"] for line in path.read_text().splitlines()] for path in (inside, outside)]
    assert all(place.startswith("samples/") for place in places[0])
    assert places[1] == [str(tmp_path / place) for place in places[0]]
    assert check_pairs(str(outside)).num_usable == 40


def test_the_best_samples_serve_supervised_training(labels, tmp_path):
    out = write_best(labels.best, tmp_path / "best.jsonl")
    pairs = open_pairs(str(out))
    assert not pairs.has_rejected
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        (best.score.sample.prompt, best.path, None) for best in labels.best
    ]


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.jsonl"])
def test_videos(tmp_path, name):
    given = []
    for seed in (0, 1):
        file = tmp_path / f"{seed}.mp4"
        file.write_bytes(video(grey(5)[:: 1 - 2 * seed]))
        given.append(Candidate(file, Score(Sample(file.name, "grey", seed), float(seed), {})))
    out = write_pairs(label(given).preferences.pairs, tmp_path / name)
    ((prompt, chosen, rejected),) = read(out)
    assert (prompt, content(chosen), content(rejected)) == (
        "grey",
        given[1].path.read_bytes(),
        given[0].path.read_bytes(),
    )
    assert media_kind(chosen) == "video"
    assert check_pairs(str(out)).num_usable == 1


def test_mistakes(labels, tmp_path):
    with pytest.raises(UsageError, match=r"pairs\.csv should end in \.parquet or \.jsonl"):
        write_pairs(labels.preferences.pairs, tmp_path / "pairs.csv")
    with pytest.raises(UsageError, match=r"best\.parquet should end in \.jsonl"):
        write_best(labels.best, tmp_path / "best.parquet")
    with pytest.raises(UserError, match="There is no pair to write"):
        write_pairs([], tmp_path / "pairs.jsonl")
    with pytest.raises(UserError, match="There is no sample to write"):
        write_best([], tmp_path / "best.jsonl")
    labels.preferences.pairs[5].rejected.path.unlink()
    with pytest.raises(UserError, match=r"\.png cannot be read \(No such file"):
        write_pairs(labels.preferences.pairs, tmp_path / "pairs.parquet")
    assert not (tmp_path / "pairs.parquet").exists()


def test_samples_of_one_prompt_are_compared_within_their_source(tmp_path):
    """And the manifest names it: relative below its folder, as the members. Pick-a-Pic's columns have no place for it."""
    folder, given = tmp_path / "samples", []
    folder.mkdir()
    for number, level in enumerate((10, 200, 90, 100)):
        (folder / f"{number}.png").write_bytes(picture(level))
        (tmp_path / f"source-{number // 2}.png").write_bytes(picture(50 + number // 2))
        sample = Sample(f"{number}.png", "make it red", number, None, str(tmp_path / f"source-{number // 2}.png"))
        given.append(Candidate(folder / sample.file, Score(sample, float(level), {})))
    labels = label(given)
    out = write_pairs(labels.preferences.pairs, tmp_path / "pairs.jsonl")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["chosen"], row["rejected"], row["source"]) for row in rows] == [
        ("samples/1.png", "samples/0.png", "source-0.png"),
        ("samples/3.png", "samples/2.png", "source-1.png"),
    ]
    assert open_pairs(str(out)).has_source
    assert check_pairs(str(out)).num_usable == 2
    best = write_best(labels.best, tmp_path / "best.jsonl")
    assert [json.loads(line)["source"] for line in best.read_text().splitlines()] == ["source-0.png", "source-1.png"]
    with pytest.raises(UsageError, match=r"cannot hold the sources of these samples; write a \.jsonl"):
        write_pairs(labels.preferences.pairs, tmp_path / "pairs.parquet")
