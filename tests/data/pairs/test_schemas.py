"""One row of each schema becomes the right pair, or a bad row of the right kind."""

from pathlib import Path

import pytest

from sipo.data.bad_rows import BadRow
from sipo.data.pairs.schemas import read_pairs, read_pick_a_pic, read_rapidata, recognise, resolve
from sipo.errors import UserError

FOLDER = Path("/data")


def pick_a_pic(**changes: object) -> dict:
    return {"jpg_0": b"zero", "jpg_1": b"one", "label_0": 1.0, "caption": "a cat", **changes}


def rapidata(**changes: object) -> dict:
    row = {"prompt": "a cat", "image1": b"one", "image2": b"two", "votes_image1": 20, "votes_image2": 6}
    return {**row, **changes}


def test_label_one_prefers_jpg_0() -> None:
    pair = read_pick_a_pic(pick_a_pic(), "f:0", FOLDER)
    assert (pair.id, pair.prompt, pair.chosen, pair.rejected, pair.strength) == ("f:0", "a cat", b"zero", b"one", 1.0)
    for label in (0, 0.0, False):
        pair = read_pick_a_pic(pick_a_pic(label_0=label), "f:0", FOLDER)
        assert (pair.chosen, pair.rejected) == (b"one", b"zero")


def test_votes_give_label_and_strength() -> None:
    pair = read_rapidata(rapidata(), "f:0", FOLDER)
    assert (pair.chosen, pair.rejected, pair.strength) == (b"one", b"two", 20 / 26)
    pair = read_rapidata(rapidata(votes_image1=1, votes_image2=3), "f:0", FOLDER)
    assert (pair.chosen, pair.rejected, pair.strength) == (b"two", b"one", 0.75)


def test_rapidata_by_path() -> None:
    row = {
        "prompt": "a cat",
        "votes_image1": 2,
        "votes_image2": 1,
        "image1_path": "x/1.jpg",
        "image2_path": "/abs/2.jpg",
    }
    pair = read_rapidata(row, "f:0", FOLDER)
    assert (pair.chosen, pair.rejected) == (FOLDER / "x/1.jpg", Path("/abs/2.jpg"))
    assert read_rapidata({**row, "image1": None, "image2": b"two"}, "f:0", FOLDER).chosen == FOLDER / "x/1.jpg"


def test_hugging_face_images_are_structs_of_bytes_and_path() -> None:
    row = pick_a_pic(jpg_0={"bytes": b"zero", "path": "ignored.jpg"}, jpg_1={"bytes": None, "path": "beside.jpg"})
    pair = read_pick_a_pic(row, "f:0", FOLDER)
    assert (pair.chosen, pair.rejected) == (b"zero", FOLDER / "beside.jpg")


def test_pairs_by_name() -> None:
    row = {"prompt": "ein Kätzchen 猫", "chosen": "a.png", "rejected": "b.png", "strength": 0.8}
    pair = read_pairs(row, "f:1", FOLDER)
    assert (pair.prompt, pair.chosen, pair.rejected, pair.strength) == (
        "ein Kätzchen 猫",
        FOLDER / "a.png",
        FOLDER / "b.png",
        0.8,
    )
    assert read_pairs({"prompt": "p", "chosen": "a.png"}, "f:1", FOLDER).rejected is None


@pytest.mark.parametrize(
    ("read", "row", "kind"),
    [
        (read_pick_a_pic, pick_a_pic(label_0=0.5), "tie"),
        (read_pick_a_pic, pick_a_pic(has_label=False), "unlabelled"),
        (read_pick_a_pic, pick_a_pic(has_label=False, label_0=None), "unlabelled"),
        (read_pick_a_pic, pick_a_pic(label_0=None), "bad_label"),
        (read_pick_a_pic, pick_a_pic(label_0=float("nan")), "bad_label"),
        (read_pick_a_pic, pick_a_pic(label_0=0.7), "bad_label"),
        (read_pick_a_pic, pick_a_pic(label_0=-1), "bad_label"),
        (read_pick_a_pic, pick_a_pic(caption=None), "blank_caption"),
        (read_pick_a_pic, pick_a_pic(caption=" \t\n"), "blank_caption"),
        (read_pick_a_pic, pick_a_pic(caption=["a"]), "malformed"),
        (read_pick_a_pic, pick_a_pic(caption="\ud800"), "malformed"),
        (read_pick_a_pic, {"caption": "p"}, "bad_label"),
        (read_rapidata, {"prompt": "p"}, "bad_label"),
        (read_pick_a_pic, {"caption": "p", "label_0": 1}, "empty_image"),
        (read_pick_a_pic, pick_a_pic(jpg_0=None), "empty_image"),
        (read_pick_a_pic, pick_a_pic(jpg_1=b""), "empty_image"),
        (read_pick_a_pic, pick_a_pic(jpg_1={"bytes": b"", "path": "x.jpg"}), "empty_image"),
        (read_pick_a_pic, pick_a_pic(jpg_1={"bytes": None, "path": None}), "empty_image"),
        (read_pick_a_pic, pick_a_pic(jpg_1=7), "malformed"),
        (read_pick_a_pic, pick_a_pic(jpg_1="https://example.org/1.jpg"), "missing_file"),
        (read_rapidata, rapidata(votes_image1=6), "tie"),
        (read_rapidata, rapidata(votes_image1=0, votes_image2=0), "unlabelled"),
        (read_rapidata, rapidata(votes_image1=None), "bad_label"),
        (read_rapidata, rapidata(votes_image1=-1), "bad_label"),
        (read_rapidata, rapidata(votes_image1=float("nan")), "bad_label"),
        (read_pairs, {"prompt": "p", "chosen": None}, "empty_image"),
        (read_pairs, {"prompt": "p"}, "empty_image"),
        (read_pairs, {"chosen": "a.png"}, "blank_caption"),
        (read_pairs, {"prompt": "p", "chosen": "a.png", "strength": 1.2}, "bad_label"),
        (read_pairs, {"prompt": "p", "chosen": "a.png", "strength": "much"}, "bad_label"),
        (read_pairs, {"prompt": "p", "chosen": "../a.png"}, "malformed"),
        (read_pairs, {"prompt": "p", "chosen": "x/../../a.png"}, "malformed"),
    ],
)
def test_bad_rows(read, row: dict, kind: str) -> None:
    with pytest.raises(BadRow) as caught:
        read(row, "f:0", FOLDER)
    assert caught.value.kind == kind
    assert str(caught.value)


def test_relative_paths_stay_in_the_folder() -> None:
    assert resolve("x/../y.png", FOLDER) == FOLDER / "y.png"
    assert resolve("..x/y.png", FOLDER) == FOLDER / "..x/y.png"
    assert resolve("/elsewhere/y.png", FOLDER) == Path("/elsewhere/y.png")


def test_recognising() -> None:
    assert recognise(pick_a_pic(model_0="x", uid=3), "f").name == "Pick-a-Pic"
    assert recognise(rapidata(), "f").name == "Rapidata"
    assert recognise(["prompt", "chosen"], "f").name == "pairs"


def test_unknown_columns_are_listed_with_what_is_accepted() -> None:
    with pytest.raises(UserError, match=r"(?s)f has the columns foo, bar.*Pick-a-Pic: jpg_0.*Rapidata.*pairs: prompt"):
        recognise(["foo", "bar"], "f")


def test_tables_of_addresses_ask_for_a_download() -> None:
    with pytest.raises(UserError, match="Download the images first"):
        recognise(["caption", "image_0_url", "image_1_url", "label_0"], "f")


@pytest.mark.parametrize("kind", [int, float, str, bool, lambda flag: "yes" if flag else "no"])
def test_a_flag_of_any_type_never_makes_a_row_a_win(kind) -> None:
    """Rows that lost their label in CSV, SQLite or pandas have label_0 0, which alone would be a win of jpg_1."""
    labelled = read_pick_a_pic(pick_a_pic(has_label=kind(True), label_0=kind(True)), "f:0", FOLDER)
    assert labelled.chosen == b"zero"
    with pytest.raises(BadRow) as caught:
        read_pick_a_pic(pick_a_pic(has_label=kind(False), label_0=kind(False)), "f:0", FOLDER)
    assert caught.value.kind == "unlabelled"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"has_label": None}, "unlabelled"),
        ({"has_label": float("nan")}, "unlabelled"),
        ({"has_label": ""}, "unlabelled"),
        ({"has_label": "perhaps"}, "bad_label"),
        ({"has_label": 2}, "bad_label"),
        ({"label_0": 0, "label_1": 0}, "bad_label"),  # neither is preferred: no win of jpg_1
        ({"label_0": 1, "label_1": "1"}, "bad_label"),
        ({"label_0": "0.5", "label_1": 0.5}, "tie"),
        ({"label_0": "one"}, "bad_label"),
    ],
)
def test_labels_that_contradict_or_say_nothing(changes: dict, kind: str) -> None:
    with pytest.raises(BadRow) as caught:
        read_pick_a_pic(pick_a_pic(**changes), "f:0", FOLDER)
    assert caught.value.kind == kind


def test_numbers_as_texts() -> None:
    assert read_pick_a_pic(pick_a_pic(label_0="0", label_1="1"), "f:0", FOLDER).chosen == b"one"
    votes = read_rapidata(rapidata(votes_image1="9", votes_image2=3.0), "f:0", FOLDER)
    assert votes.strength == 0.75
    assert read_pairs({"prompt": "p", "chosen": "a.png", "strength": "0.8"}, "f:1", FOLDER).strength == 0.8
    assert read_pairs({"prompt": "p", "chosen": "a.png", "strength": float("nan")}, "f:1", FOLDER).strength == 1.0


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pair = read_pairs({"prompt": "p", "chosen": "~/a.png"}, "f:1", FOLDER)
    assert pair.chosen == tmp_path / "a.png"


def test_what_a_table_lacks_is_named() -> None:
    with pytest.raises(UserError, match="It lacks chosen of pairs"):
        recognise(["prompt", "rejected"], "pairs.jsonl, line 1,")
    with pytest.raises(UserError, match="It lacks label_0 of Pick-a-Pic"):
        recognise(["jpg_0", "jpg_1", "caption"], "pairs.parquet")
