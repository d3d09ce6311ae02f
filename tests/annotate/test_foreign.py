"""Votes made elsewhere, in the forms in which those tools export them."""

import csv
import json
from pathlib import Path

import pytest

from sipo.annotate.ballots import Ballot, ballots_csv, read_csv
from sipo.annotate.foreign import import_files, read_foreign
from sipo.annotate.report import report
from sipo.errors import UserError

LABEL_STUDIO = [
    {
        "id": 7,
        "data": {"prompt": "a cat", "image1": "/data/a.png", "image2": "/data/b.png", "model_a": "mine", "model_b": "base"},
        "annotations": [
            {"id": 1, "completed_by": 4, "was_cancelled": False, "lead_time": 3.5, "created_at": "2026-01-02T03:04:05.6Z",
             "result": [{"type": "pairwise", "from_name": "pw", "to_name": "i1,i2", "value": {"selected": "left"}}]},
            {"id": 2, "completed_by": {"id": 5, "email": "b@example.org"}, "was_cancelled": False,
             "result": [{"type": "choices", "value": {"choices": ["Tie"]}}]},
            {"id": 3, "completed_by": 6, "was_cancelled": True, "result": []},
        ],
    }
]  # fmt: skip
ARGILLA = [
    {
        "id": "1",
        "fields": {"prompt": "a dog", "image_a": "a.png", "image_b": "b.png"},
        "metadata": {"model_a": "mine", "model_b": "base", "category": "animals"},
        "suggestions": {},
        "responses": {"preference": [{"value": "mine", "user_id": "u1"}, {"value": "b", "user_id": "u2"}]},
    }
]
RAPIDATA = {
    "info": {"createdAt": "2025-02-11T07:31:59.353232+00:00", "version": "3.0.0"},
    "summary": {"A_wins_total": 0, "B_wins_total": 1},
    "results": [
        {
            "context": "A small blue book.",
            "winner_index": 1,
            "winner": "dalle.jpg",
            "aggregatedResults": {"aurora.png": 1, "dalle.jpg": 2},
            "detailedResults": [
                {"votedFor": "dalle.jpg", "userDetails": {}},
                {"votedFor": "aurora.png"},
                {"votedFor": "dalle.jpg"},
            ],
        },
        {"context": "A red book.", "aggregatedResults": {"x.png": 2, "y.png": 0}},
    ],
}


def written(tmp_path: Path, name: str, content) -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path


def test_label_studio(tmp_path):
    first, second = read_foreign(written(tmp_path, "ls.json", LABEL_STUDIO))
    assert (first.prompt, first.systems, first.files) == ("a cat", ("mine", "base"), ("/data/a.png", "/data/b.png"))
    assert (first.label, first.annotator, first.seconds, first.left) == ("a", "label-studio-4", 3.5, "a")
    assert first.at == pytest.approx(1767323045.6)
    assert (second.label, second.annotator) == ("tie", "label-studio-b@example.org")


def test_argilla(tmp_path):
    first, second = read_foreign(written(tmp_path, "argilla.json", ARGILLA))
    assert (first.label, first.annotator, first.category, first.dimension) == (
        "a",
        "argilla-u1",
        "animals",
        "preference",
    )
    assert (second.label, second.files) == ("b", ("a.png", "b.png"))


def test_rapidata(tmp_path):
    found = read_foreign(written(tmp_path, "rapidata.json", RAPIDATA))
    assert [ballot.label for ballot in found] == ["b", "a", "b", "a", "a"]
    assert found[0].files == ("aurora.png", "dalle.jpg")
    assert len({ballot.annotator for ballot in found}) == 5


def test_all_go_into_the_same_report(tmp_path):
    files = [written(tmp_path, "ls.json", LABEL_STUDIO), written(tmp_path, "argilla.json", ARGILLA)]
    text = import_files(files, tmp_path / "votes.csv")
    assert "4 votes by 4 people" in text
    assert len(read_csv(tmp_path / "votes.csv")) == 4
    assert "mine wins" in report(tmp_path / "votes.csv")


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "@a", "-b", "+c", "\t=d", "'=e", "a\rb", "\x1b[2J"])
def test_texts_that_a_spreadsheet_would_run_come_back_as_they_were(tmp_path, text):
    ballot = Ballot(f"p {text}", 0, (f"{text}1", f"{text}2"), "a", f"{text}3", files=(text.strip(), ""))
    (tmp_path / "votes.csv").write_text(ballots_csv([ballot]), newline="")
    [line] = list(csv.DictReader((tmp_path / "votes.csv").open(newline="")))
    assert not [cell for cell in line.values() if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    [found] = read_csv(tmp_path / "votes.csv")
    assert (found.prompt, found.systems) == (ballot.prompt.strip(), tuple(s.strip() for s in ballot.systems))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "none of the exports"),
        ({"results": 3}, "none of the exports"),
        ({"results": [{"aggregatedResults": {"x": 1, "y": 1, "z": 0}}]}, "entry 0: expected two assets"),
        (
            [{"data": {"prompt": "p"}, "annotations": [{"result": [{"value": {"selected": "up"}}]}]}],
            "entry 0: the answer is 'up'",
        ),
        ([{"data": {}, "annotations": []}], "entry 0: no text under prompt"),
        ([{"data": {"prompt": "p"}, "annotations": 3}], "entry 0: malformed"),
        ([{"data": {"prompt": "p"}, "annotations": []}], "holds no vote"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read_foreign(written(tmp_path, "votes.json", content))
