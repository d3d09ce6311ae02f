"""Studies and solo sessions of edits: the source is shown beside the prompt, and stands in the pairs that are written."""

import io
import json
import secrets
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from support.studies import Voter, folder_of_samples, hosting

from sipo.annotate.create import CreateRequest, create
from sipo.annotate.export import export
from sipo.annotate.report import VOTES, report
from sipo.annotate.solo import SoloDesk, SoloRequest, open_prompts
from sipo.annotate.study import MEDIA, STUDY, Plan, read_study
from sipo.data.pairs.check import check_pairs
from sipo.data.pairs.open import open_pairs
from sipo.errors import UserError

PROMPTS = ["make it red", "make it red", "make it blue"]


def sources(root: Path, count: int = 3) -> list[Path]:
    """Pictures that differ, not of the samples' size."""
    files = [root / f"source-{n}.png" for n in range(count)]
    for n, file in enumerate(files):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 64, 3), dtype=np.uint8)).save(file)
    return files


@pytest.fixture
def edits(tmp_path) -> Path:
    for level in (60, 180):
        folder_of_samples(tmp_path / f"s{level}", level, PROMPTS, sources=sources(tmp_path))
    return tmp_path


def pixels(content: bytes | Path) -> np.ndarray:
    with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as picture:
        return np.asarray(picture.convert("RGB"))


def test_each_item_shows_its_source_and_the_pairs_have_it(edits):
    create(CreateRequest([edits / "s60", edits / "s180"], edits / "study", Plan(1, 1, 1), checks=1))
    shown = []

    def brighter(item: dict, voter: Voter) -> str:
        shown.append((item["prompt"], voter.look(item["source"])))
        assert httpx.get(f"{voter.link}media/{item['source']}").status_code == 410  # its name is good for one request
        levels = [pixels(voter.look(name)).mean() for name in item["media"]]
        return "left" if levels[0] > levels[1] else "right"

    with hosting(edits / "study") as server:
        assert Voter(server.links()["g1-1"]).all(brighter) == 4
    originals = [(prompt, pixels(file)) for prompt, file in zip(PROMPTS, sources(edits), strict=True)]
    found = [
        [n for n, (text, original) in enumerate(originals) if text == prompt and np.array_equal(pixels(png), original)]
        for prompt, png in shown
    ]
    assert {n for (n,) in found} == {0, 1, 2}
    report(edits / "study")
    for votes, out in ((edits / "study", edits / "a.jsonl"), (edits / "study" / "report" / VOTES, edits / "b.jsonl")):
        export(votes, out)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert sorted((line["source"], line["chosen"]) for line in lines) == [
            (f"source-{n}.png", f"s180/0000{n}.png") for n in range(3)
        ]
        assert open_pairs(str(out)).has_source
        assert len(check_pairs(out, progress=False).usable) == 3


def test_a_source_is_encoded_once_and_study_json_reads_back(edits):
    folder_of_samples(edits / "s120", 120, PROMPTS, sources=sources(edits))
    study = create(CreateRequest([edits / name for name in ("s60", "s180", "s120")], edits / "study", Plan(1, 1, 1)))
    assert read_study(edits / "study") == study
    assert len({item.source for item in study.items}) == 3 < len(study.items)
    files = {path.name for path in (edits / "study" / MEDIA).iterdir()}
    assert files == set(study.hashes) == {n for item in study.items for n in (*item.media, item.source[1])}


def test_a_study_without_sources_is_written_as_before(tmp_path):
    """Votes remember a fingerprint of study.json: a key that is always there would refuse those of earlier studies."""
    folders = [folder_of_samples(tmp_path / f"s{level}", level, PROMPTS) for level in (60, 180)]
    study = create(CreateRequest(folders, tmp_path / "study", Plan(1, 1, 1), num_examples=1))
    record = json.loads((tmp_path / "study" / STUDY).read_text())
    keys = {"prompt", "seed", "category", "systems", "media", "sources", "worst"}
    assert all(item.keys() == keys for item in [*record["items"], *record["examples"]])
    assert read_study(tmp_path / "study").fingerprint == study.fingerprint


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "source-1.png").unlink(), "the source .*source-1.png does not exist"),
        (lambda root: (root / "source-1.png").write_bytes(b"no picture"), "the source .*source-1.png: "),
        (
            lambda root: (root / "source-1.png").write_bytes((root / "v" / "00000.mp4").read_bytes()),
            "the source .*source-1.png is a video; expected a picture",
        ),
    ],
)
def test_a_source_that_cannot_be_shown_is_named(edits, spoil, message):
    folder_of_samples(edits / "v", 60, ["a video"], video=True)
    spoil(edits)
    with pytest.raises(UserError, match=message):
        create(CreateRequest([edits / "s60", edits / "s180"], edits / "study", Plan(1, 1, 1)))
    assert not (edits / "study").exists()


def test_systems_that_started_from_different_pictures_are_not_compared(edits):
    folder_of_samples(edits / "other", 90, PROMPTS, sources=sources(edits)[::-1])
    with pytest.raises(UserError, match=r"(?s)2 problems.*seed 0, 'make it red': made of .*-0\.png and of .*-2\.png"):
        create(CreateRequest([edits / "s60", edits / "other"], edits / "study", Plan(1, 1, 1)))


def test_the_source_of_a_manifest_is_taken_over(edits):
    lines = [
        {"prompt": p, "chosen": f"s180/0000{n}.png", "rejected": f"s60/0000{n}.png", "source": f"source-{n}.png"}
        for n, p in enumerate(PROMPTS)
    ]
    (edits / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    study = create(CreateRequest([edits / "pairs.jsonl"], edits / "study", Plan(1, 1, 1)))
    assert {item.seed: Path(item.source[0]).name for item in study.items} == {n: f"source-{n}.png" for n in range(3)}


def test_solo_compares_samples_of_one_source_and_writes_it(edits):
    request = SoloRequest([edits / "s60", edits / "s180"], edits / "pairs.jsonl")
    desk = SoloDesk(request, open_prompts(request), "token")
    me, seen = desk.person("token"), set()
    while items := desk.look(me)["items"]:
        content, type = desk.medium(me, items[0]["source"])
        levels = [pixels(desk.medium(me, name)[0]).mean() for name in items[0]["media"]]
        desk.vote(me, items[0]["slot"], secrets.token_hex(16), "left" if levels[0] > levels[1] else "right", 1.0)
        seen.add(content)
        assert type == "image/png"
    assert seen == {file.read_bytes() for file in sources(edits)}
    lines = [json.loads(line) for line in (edits / "pairs.jsonl").read_text().splitlines()]
    assert sorted((line["source"], line["chosen"], line["rejected"]) for line in lines) == [
        (f"source-{n}.png", f"s180/0000{n}.png", f"s60/0000{n}.png") for n in range(3)
    ]
    (edits / "source-2.png").unlink()
    with pytest.raises(UserError, match=r"1 files do not exist:\n  .*source-2\.png"):
        open_prompts(request)
