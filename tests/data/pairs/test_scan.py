"""One pass over a manifest finds what a look at every row found, whatever the rows are."""

import json
import random
from pathlib import Path

import pytest
from support.opens import opened

from sipo.data.bad_rows import BadRow
from sipo.data.media.kinds import frame_files
from sipo.data.pairs import manifest, scan
from sipo.data.pairs.manifest import ManifestPairs
from sipo.data.pairs.open import open_pairs
from sipo.data.pairs.split import split_validation
from sipo.files import digest, digest_long

PATHS = [
    "a.png", "sub/b.png", "sub/./b.png", "sub//b.png", "./a.png", "../a.png", "sub/../a.png", "gone.png", "frames",
    "frames/", "~/a.png", "~nobody/a.png", "a.png/", ".hidden.png", "ü.png", "http://x/a.png", "a:b.png", "", "a\0.png",
    "\ud800.png", "x" * 300 + ".png", "a.", "link.png", 7, None, True, ["a.png"], {"path": "a.png"}, {"bytes": None, "path": "sub/b.png"},
]  # fmt: skip
PROMPTS = ["a cat", "A cat ", "eine Kätzchen 猫", "", "  ", "\ud800", "\0", 3, None, ["a"]]
STRENGTHS = [0.7, 1, 0, -0.1, 1.5, None, "0.6", "x", True, float("nan")]


def manifest_of_chance(folder: Path, seed: int, rows: int, sft: bool = False) -> Path:
    rng, lines = random.Random(seed), []
    (folder / "sub").mkdir(exist_ok=True)
    for name in ("a.png", "sub/b.png", ".hidden.png", "ü.png", "a:b.png"):
        (folder / name).write_bytes(b"x" * rng.randrange(1, 99))
    (folder / "frames").mkdir(exist_ok=True)
    for name in ("frame-2.png", "frame-10.png", "notes.txt"):
        (folder / "frames" / name).write_bytes(b"y" * rng.randrange(1, 99))
    (folder / "absolute.png").write_bytes(b"z")
    (folder / "link.png").symlink_to("sub/b.png")
    for number in range(rows):
        if rng.random() < 0.1:
            lines.append(rng.choice(["", "   ", "[1]", "{", '{"prompt": 1}', "\ufeff{}", "null", "{},"]))
            continue
        sound = rng.random() < 0.5
        row = {
            "prompt": f"number {number % 5}" if sound else rng.choice(PROMPTS),
            "chosen": "a.png" if sound else rng.choice([*PATHS, str(folder / "absolute.png"), f"{folder}//a.png"]),
        }
        if not sft:
            row["rejected"] = "sub/b.png" if sound else rng.choice(PATHS)
        if rng.random() < 0.5:
            row["strength"] = 0.8 if sound else rng.choice(STRENGTHS)
        lines.append(json.dumps(row) + rng.choice(["", ",", " ", "\r"]))
    first = json.dumps({"prompt": "first", "chosen": "a.png"} | ({} if sft else {"rejected": "sub/b.png"}))
    (folder / "pairs.jsonl").write_text("\n".join([first, *lines]))
    return folder / "pairs.jsonl"


def row_by_row(source: ManifestPairs) -> tuple[str, str]:
    """Fingerprint and stamp as versions before this one made them, which caches and runs remember."""
    sizes, times = [], []
    for index in range(len(source)):
        try:
            pair = source[index]
        except BadRow:
            continue
        for member in (pair.chosen, pair.rejected):
            if isinstance(member, Path):
                for path in [member, *frame_files(member)] if is_dir(member) else [member]:
                    state = path.stat() if exists(path) else None
                    sizes.append([path.name, state.st_size if state and not path.is_dir() else -1])
                    times.append(state.st_mtime_ns if state else -1)
    fingerprint = digest([digest(source.path.read_bytes().decode("utf-8", "replace")), sizes])
    return fingerprint, digest([fingerprint, str(source.path), times])


def exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    return exists(path) and path.is_dir()


@pytest.mark.parametrize("sft", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_remembered_is_as_before(seed: int, sft: bool, tmp_path: Path) -> None:
    path = manifest_of_chance(tmp_path, seed, 400, sft)
    source = open_pairs(path)
    assert isinstance(source, ManifestPairs)
    assert (source.fingerprint, source.stamp) == row_by_row(source)


def test_many_rows_and_one_name_that_no_file_can_have(tmp_path: Path) -> None:
    """Files are asked for in lots of rows: one bad name must not change what is found of the others."""
    (tmp_path / "a.png").write_bytes(b"a")
    rows = [{"prompt": f"p {n}", "chosen": "a.png", "rejected": f"{n}.png" if n % 7 else "a.png"} for n in range(5000)]
    rows[3000]["chosen"] = "x" * 300
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_pairs(tmp_path)
    assert isinstance(source, ManifestPairs)
    assert (source.fingerprint, source.stamp) == row_by_row(source)


@pytest.mark.parametrize("seed", range(3))
def test_the_short_way_is_taken_by_sound_rows_alone(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifest_of_chance(tmp_path, 10 + seed, 400)
    source = open_pairs(path)
    monkeypatch.setattr(scan, "plain_names", lambda row, members: [])
    assert open_pairs(path).fingerprint == source.fingerprint


def test_prompts_of_a_scan_are_those_of_the_rows(tmp_path: Path) -> None:
    path = manifest_of_chance(tmp_path, 20, 200)
    one, other = open_pairs(path), open_pairs(path)
    usable = [index for index in range(len(one)) if has_pair(one, index)]
    assert other.stamp
    assert one.prompts(usable) == other.prompts(usable)


def has_pair(source, index: int) -> bool:
    try:
        return bool(source[index])
    except BadRow:
        return False


def test_a_start_reads_the_rows_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamp, fingerprint, split and the prompts of all rows: each line is parsed once, and the file is opened twice, for
    its text and for its rows, however many rows there are."""
    (tmp_path / "a.png").write_bytes(b"a")
    rows = [json.dumps({"prompt": f"p {n}", "chosen": "a.png", "rejected": "a.png"}) for n in range(500)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    source, parsed, real = open_pairs(tmp_path), [], manifest.parse
    monkeypatch.setattr(manifest, "parse", lambda line: parsed.append(line) or real(line))
    with opened() as files:
        assert source.stamp
        split_validation(source, list(range(500)), 0.1, 0)
        source.prompts(list(range(500)))
    assert len(parsed) == 500
    assert [file.name for file in files] == ["pairs.jsonl", "pairs.jsonl"]


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 9000])
def test_a_long_digest_is_that_of_the_whole(count: int) -> None:
    items = [["ä\ud800", n] for n in range(count)]
    texts = (json.dumps(item, ensure_ascii=False) for item in items)
    assert digest_long(["head", "猫"], texts) == digest(["head", "猫", items])


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", '猫\n"\\'.encode(), b"a" * (2**20 - 1) + "猫".encode() + b"\xe7\x8c"]
)
def test_the_digest_of_a_text_is_that_of_the_whole(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(content)
    assert scan.text_digest(tmp_path / "text") == digest(content.decode("utf-8", "replace"))
