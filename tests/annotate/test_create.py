"""Studies on disk: what is planned, what is shown, and that bad input is refused whole before anything is written."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.folders import contents
from support.studies import folder_of_samples, small_study

from sipo.annotate.create import CreateRequest, create
from sipo.annotate.people import discard
from sipo.annotate.store import open_store
from sipo.annotate.study import MEDIA, Plan, read_study
from sipo.data.media.decode_video import measure, read_frames
from sipo.data.media.encode_video import encode_video
from sipo.errors import UsageError, UserError


def request(root: Path, names=("s60", "s180"), **options) -> CreateRequest:
    return CreateRequest([root / name for name in names], root / "study", options.pop("plan", Plan(1, 1, 1)), **options)


@pytest.fixture
def folders(tmp_path) -> Path:
    for level in (60, 180):
        folder_of_samples(tmp_path / f"s{level}", level, [f"prompt {n}" for n in range(6)])
    return tmp_path


def refused(root: Path, **options) -> str:
    """The message; nothing may have been written."""
    before = contents(root)
    with pytest.raises(UserError) as error:
        create(request(root, **options))
    assert contents(root) == before
    return str(error.value)


def test_everybody_in_a_group_sees_everything_once_in_the_groups_order(folders):
    study = create(request(folders, plan=Plan(3, 4, 4, seed=5)))
    orders = {name: [slot.item for slot in study.slots(name, group)] for name, group in study.plan.annotators()}
    assert all(sorted(order) == list(range(6)) for order in orders.values())
    assert orders["g1-1"] == orders["g1-4"] != orders["g2-1"]
    assert len({tuple(order) for order in orders.values()}) == 3


def test_sides_are_drawn_anew_for_every_annotator_and_item(tmp_path):
    study = read_study(small_study(tmp_path, 60, plan=Plan(3, 4, 4)))
    sides = {name: [slot.order[0] for slot in study.slots(name, group)] for name, group in study.plan.annotators()}
    shares = [np.mean(each) for each in sides.values()]
    assert 0.45 < np.mean(shares) < 0.55
    assert len({tuple(each) for each in sides.values()}) == 12
    by_item = Counter(
        (slot.item, slot.order[0]) for name, group in study.plan.annotators() for slot in study.slots(name, group)
    )
    assert np.corrcoef([by_item[n, 0] for n in range(60)], np.arange(60))[0, 1] < 0.4


def test_fewer_repeats_are_shared_evenly(tmp_path):
    study = read_study(small_study(tmp_path, 12, plan=Plan(2, 4, 2)))
    for group in (1, 2):
        slots = [study.slots(f"g{group}-{n}", group) for n in range(1, 5)]
        assert Counter(slot.item for each in slots for slot in each) == dict.fromkeys(range(12), 2)
        assert {len(each) for each in slots} == {6}


def test_duplicates_and_checks_are_strewn_in(tmp_path):
    study = read_study(small_study(tmp_path, 20, plan=Plan(1, 2, 2, duplicates=4), checks=3))
    for name, group in study.plan.annotators():
        slots = study.slots(name, group)
        assert Counter(slot.kind for slot in slots) == {"main": 20, "duplicate": 4, "check": 3}
        for place, slot in enumerate(slots):
            if slot.kind == "duplicate":
                first = next(n for n, other in enumerate(slots) if other.item == slot.item)
                assert place - first >= 4
    assert len({tuple(slot.item for slot in study.slots(*person)) for person in study.plan.annotators()}) == 2


def test_the_same_seed_makes_the_same_study(folders):
    first = create(request(folders, checks=1, num_examples=1))
    (folders / "study").rename(folders / "before")
    assert create(request(folders, checks=1, num_examples=1)) == first
    assert contents(folders / "study") == contents(folders / "before")


def test_examples_are_not_in_the_study_and_items_can_be_fewer(folders):
    study = create(request(folders, num_examples=2, num_items=3))
    assert len(study.items) == 3
    assert not {item.prompt for item in study.examples} & {item.prompt for item in study.items}


def test_all_pairs_of_three_or_against_the_first(folders):
    folder_of_samples(folders / "s120", 120, [f"prompt {n}" for n in range(6)])
    names = ("s60", "s180", "s120")
    study = create(request(folders, names))
    assert Counter(item.systems for item in study.items) == {(0, 1): 6, (0, 2): 6, (1, 2): 6}
    (folders / "study").rename(folders / "before")
    study = create(request(folders, names, against_first=True))
    assert {item.systems for item in study.items} == {(0, 1), (0, 2)}


def test_media_are_uniform_whatever_they_were(folders):
    """One system's files are a large JPEG with metadata, the other's small PNGs: what is shown has one form."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x010E] = "made by s180"
    lines = [json.loads(line) for line in (folders / "s180" / "samples.jsonl").read_text().splitlines()]
    for line in lines:
        line["file"] = line["file"].replace(".png", ".jpg")
        big = Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8))
        big.save(folders / "s180" / line["file"], exif=exif, icc_profile=b"profile of s180", quality=60)
    (folders / "s180" / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    study = create(request(folders))
    for item in study.items:
        found = [(folders / "study" / MEDIA / name).read_bytes() for name in item.media]
        assert len({len(content) for content in found}) == 1
        for content in found:
            assert content.startswith(b"\x89PNG")
            assert b"made by" not in content
            assert b"profile" not in content
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                assert (image.format, image.size, image.mode) == ("PNG", (48, 48), "RGB")
                assert not image.info


def test_pictures_of_one_size_keep_their_pixels(folders):
    study = create(request(folders))
    for item in study.items:
        for name, source in zip(item.media, item.sources, strict=True):
            with Image.open(folders / "study" / MEDIA / name) as shown, Image.open(source) as original:
                assert np.array_equal(np.asarray(shown), np.asarray(original))


def test_videos_get_one_rate_length_and_size(tmp_path):
    frames = [Image.new("RGB", (64, 48), (n * 20, 90, 30)) for n in range(12)]
    for name, fps, count in (("slow", 4, 4), ("fast", 12, 12)):
        folder = folder_of_samples(tmp_path / name, 60, ["a"], video=True)
        (folder / "00000.mp4").write_bytes(encode_video(frames[:count], fps))
    study = create(request(tmp_path, ("slow", "fast")))
    assert study.kind == "video"
    found = [tmp_path / "study" / MEDIA / name for name in study.items[0].media]
    assert len({path.stat().st_size for path in found}) == 1
    lengths = [measure(path) for path in found]
    assert [length.num_frames for length in lengths] == [12, 12]
    assert [float(length.seconds) for length in lengths] == pytest.approx([1, 1])
    assert {next(iter(read_frames(path))).picture().size for path in found} == {(64, 48)}


def test_videos_of_different_length_are_refused_or_trimmed(tmp_path):
    frames = [Image.new("RGB", (32, 32), (n * 20, 90, 30)) for n in range(12)]
    for name, count in (("short", 6), ("long", 12)):
        folder = folder_of_samples(tmp_path / name, 60, ["a"], video=True)
        (folder / "00000.mp4").write_bytes(encode_video(frames[:count], 6))
    assert "--trim" in refused(tmp_path, names=("short", "long"))
    study = create(request(tmp_path, ("short", "long"), trim=True))
    assert [measure(tmp_path / "study" / MEDIA / name).num_frames for name in study.items[0].media] == [6, 6]


def test_a_check_item_has_a_result_that_is_clearly_worse(tmp_path):
    folder_of_samples(tmp_path / "s60", 60, ["a", "b"])
    rng = np.random.default_rng(0)
    for n in range(2):
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(tmp_path / "s60" / f"{n:05d}.png")
    folder_of_samples(tmp_path / "s180", 180, ["a", "b"])
    study = create(request(tmp_path, checks=2))
    for item in study.items[2:]:
        good, spoilt = (np.asarray(Image.open(tmp_path / "study" / MEDIA / name), dtype=float) for name in item.media)
        assert item.worst == 1
        assert np.abs(np.diff(spoilt, axis=0)).mean() < 0.2 * np.abs(np.diff(good, axis=0)).mean()


def test_every_missing_counterpart_and_file_is_named(folders):
    lines = (folders / "s60" / "samples.jsonl").read_text().splitlines(keepends=True)
    (folders / "s60" / "samples.jsonl").write_text("".join(lines[1:]) + lines[2])
    (folders / "s180" / "00003.png").unlink()
    message = refused(folders)
    assert "3 problems" in message
    assert "s60: nothing for seed 0, 'prompt 0'" in message
    assert "s60: 2 samples of seed 2 for 'prompt 2'" in message
    assert "00003.png does not exist" in message


def test_prompts_that_do_not_match_are_refused(folders):
    path = folders / "s180" / "samples.jsonl"
    path.write_text(path.read_text().replace("prompt 4", "something else"))
    assert "'something else'" in refused(folders)


def test_every_unreadable_medium_is_named(folders):
    (folders / "s60" / "00001.png").write_bytes(b"")
    (folders / "s60" / "00002.png").write_bytes(b"not a picture")
    whole = (folders / "s180" / "00004.png").read_bytes()
    (folders / "s180" / "00004.png").write_bytes(whole[: len(whole) // 2])
    message = refused(folders)
    assert all(f"0000{n}.png" in message for n in (1, 2, 4))


def test_images_and_videos_do_not_mix(folders):
    folder_of_samples(folders / "v", 60, [f"prompt {n}" for n in range(6)], video=True)
    assert "one kind" in refused(folders, names=("s60", "v"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"names": ("s60",)}, "at least two"),
        ({"plan": Plan(1, 2, 3)}, "--repeats"),
        ({"num_examples": 6}, "--examples"),
        ({"checks": 7}, "--checks"),
        ({"plan": Plan(1, 1, 1, duplicates=5)}, "--duplicates"),
        ({"mode": "ranking", "dimensions": ()}, "--dimension"),
        ({"title": "Is S180 good?"}, "names s180"),
        ({"names": ("s60", "nowhere")}, "nowhere"),
    ],
)
def test_requests_that_make_no_sense_are_refused(folders, options, words):
    assert words in refused(folders, **options)


def test_a_pair_manifest_becomes_chosen_against_rejected(folders):
    lines = [{"prompt": f"p{n}", "chosen": f"s180/0000{n}.png", "rejected": f"s60/0000{n}.png"} for n in range(4)]
    (folders / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    study = create(request(folders, ("pairs.jsonl",)))
    assert study.systems == ("chosen", "rejected")
    assert len(study.items) == 4
    lines[2]["rejected"] = "s60/99.png"
    (folders / "study").rename(folders / "before")
    (folders / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "99.png" in refused(folders, names=("pairs.jsonl",))


def test_a_study_changed_after_votes_is_refused_and_nothing_is_lost(folders):
    study = create(request(folders))
    root = folders / "study"
    with open_store(root, study) as store:
        store.vote("g1-1", store.open_slots("g1-1")[0].id, "0" * 32, "left", 1.0)
    assert "1 votes" in refused(folders)
    before = (root / "study.json").read_text()
    (root / "study.json").write_text(before.replace("prompt 1", "prompt one"))
    with pytest.raises(UserError, match="changed after"), open_store(root, read_study(root)):
        pass
    (root / "study.json").write_text(before)
    with open_store(root, read_study(root)) as store:
        assert store.count_votes() == 1


def test_a_damaged_study_is_a_message(folders):
    create(request(folders))
    path = folders / "study" / "study.json"
    for text in ("{", "{}", '{"version": 99}', json.dumps(json.loads(path.read_text()) | {"more": 1})):
        path.write_text(text)
        with pytest.raises(UserError):
            read_study(folders / "study")


def test_discarded_items_go_to_members_without_them(tmp_path):
    """Two votes for each of 12 items by 4 people: whoever is discarded, each item has two active judges again."""
    root = small_study(tmp_path, 12, plan=Plan(2, 4, 2))
    with open_store(root, read_study(root)) as store:
        for n, slot in enumerate(store.open_slots("g1-2", 3)):
            store.vote("g1-2", slot.id, f"{n:032x}", "left", 1.0)
        assert discard(store, "g1-2") == (6, 0, None)
        people = ("g1-1", "g1-3", "g1-4")
        items = Counter(slot.item for name in people for slot in store.open_slots(name, 99))
        assert items == dict.fromkeys(range(12), 2)
        assert {store.counts(name)[1] for name in people} == {8}
        assert store.count_votes() == 3  # kept on record
        with pytest.raises(UserError, match="no active annotator"):
            discard(store, "g1-2")


def test_where_everybody_has_everything_a_new_member_steps_in(tmp_path):
    root = small_study(tmp_path, 5, plan=Plan(1, 3, 3))
    with open_store(root, read_study(root)) as store:
        assert discard(store, "g1-1") == (0, 5, None)
        assert discard(store, "g1-2", replace=True) == (5, 0, "g1-4")
        assert store.counts("g1-4") == (0, 5)
        token = store.new_tokens(["g1-4"])["g1-4"]
        assert store.person(token).name == "g1-4"


def test_how_a_video_is_padded_is_still_a_video(tmp_path):
    study = read_study(small_study(tmp_path, 2, video=True))
    for name in study.hashes:
        assert measure(tmp_path / "study" / MEDIA / name).num_frames == 8


def test_usage_errors_are_usage_errors(folders):
    with pytest.raises(UsageError):
        create(request(folders, num_examples=9))
