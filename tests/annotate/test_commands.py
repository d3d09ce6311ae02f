"""`sipo annotate` as users type it: what it prints, and messages without tracebacks."""

import csv
import json
import socket

import httpx
import pytest
from support.command_line import run
from support.studies import Voter, folder_of_samples, hosting, serving, small_study

from sipo.annotate.study import LINKS
from sipo.annotate.web import PAGE, read_texts


def test_create_discard_report_and_export(tmp_path, monkeypatch, capsys):
    for level in (60, 180):
        folder_of_samples(tmp_path / f"s{level}", level, [f"prompt {n}" for n in range(4)])
    study = tmp_path / "study"
    create = (
        "create",
        tmp_path / "s60",
        tmp_path / "s180",
        "--out",
        study,
        "--groups",
        1,
        "--group-size",
        3,
        "--examples",
        1,
    )
    code, printed, _ = run(monkeypatch, capsys, "annotate", *create)
    assert code == 0
    assert "3 items of 2 systems, 3 annotators, 9 showings" in printed
    with hosting(study) as server:
        for name, link in server.links().items():
            if name != "researcher":
                Voter(link).all(lambda item, voter: "left")
        code, printed, _ = run(
            monkeypatch, capsys, "annotate", "discard", study, "g1-3", "--replace", "--url", server.url
        )
        assert "new annotator g1-4: http" in printed
        assert Voter(printed.split()[-1]).all(lambda item, voter: "tie") == 3
        assert Voter(server.links()["g1-3"]).state()["status"] == "discarded"
    assert run(monkeypatch, capsys, "annotate", "report", study)[0] == 0
    code, printed, _ = run(
        monkeypatch, capsys, "annotate", "export", study, "--out", tmp_path / "pairs.jsonl", "--ties", "half"
    )
    assert "3 pairs" in printed
    with (study / "report" / "votes.csv").open() as file:
        assert {(row["annotator"], row["counts"]) for row in csv.DictReader(file)} == {
            ("g1-1", "1"), ("g1-2", "1"), ("g1-3", "0"), ("g1-4", "1"),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("report", "nowhere"), 1, "nowhere"),
        (("serve", "nowhere"), 1, "is no study"),
        (("create", "nowhere", "elsewhere", "--out", "study"), 1, "There is no folder nowhere"),
        (("power", "--win-rate", "1.5"), 2, "impossible"),
        (("solo", "nowhere", "--out", "pairs.parquet"), 2, ".jsonl"),
        (("import", "nowhere.json", "--out", "votes.csv"), 1, "nowhere.json"),
    ],
)
def test_mistakes_are_messages(tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    found, _, complaint = run(monkeypatch, capsys, "annotate", *arguments)
    assert (found, words in complaint) == (code, True), complaint


def test_a_port_in_use_and_media_that_changed_are_messages(tmp_path, monkeypatch, capsys):
    study = small_study(tmp_path, 2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, complaint = run(monkeypatch, capsys, "annotate", "serve", study, "--port", taken.getsockname()[1])
        assert code == 1
        assert "choose another --port" in complaint
    (study / "media" / "000001.png").write_bytes(b"other")
    (study / "media" / "000002.png").unlink()
    code, _, complaint = run(monkeypatch, capsys, "annotate", "serve", study)
    assert code == 1
    assert "000001.png was changed; 000002.png is missing" in complaint.replace("\n", " ")


def test_names_do_not_steer_the_terminal(tmp_path, monkeypatch, capsys):
    lines = [f"p{n},a\x1b[2J\u202e,b,{label},me" for n, label in enumerate("aab")]
    (tmp_path / "votes.csv").write_text("\n".join(["prompt,system_a,system_b,label,annotator", *lines]))
    code, printed, _ = run(monkeypatch, capsys, "annotate", "report", tmp_path / "votes.csv")
    assert code == 0
    assert "a\\x1b[2J\\u202e wins" in printed
    assert not {"\x1b", "\u202e"} & set(printed)


def test_power_is_a_table(monkeypatch, capsys):
    code, printed, _ = run(monkeypatch, capsys, "annotate", "power", "--win-rate", 0.6)
    assert code == 0
    assert "| 60% |" in printed


def test_a_translation_replaces_every_text(tmp_path, monkeypatch, capsys):
    texts = {key: f"X{value}" for key, value in read_texts().items()} | {"language": "de"}
    (tmp_path / "de.json").write_text(json.dumps(texts))
    study = small_study(tmp_path, 2)
    with serving(study, "--texts", str(tmp_path / "de.json")) as server:
        assert httpx.get(f"{server.links()['g1-1']}page/texts.json").json() == texts
    del texts["tie"]
    (tmp_path / "de.json").write_text(json.dumps(texts | {"tee": "x"}))
    code, _, complaint = run(monkeypatch, capsys, "annotate", "serve", study, "--texts", tmp_path / "de.json")
    assert code == 2
    assert "missing: tie; unknown: tee" in complaint


def test_every_text_of_the_page_is_in_the_one_file():
    page = "".join((PAGE / name).read_text() for name in ("app.js", "index.html"))
    dynamic = ("paused", "closed", "discarded", "done")
    for key in read_texts():
        assert f'"{key}"' in page or key.removesuffix("_title") in dynamic or key == "language", key


def test_links_are_written_once_and_are_the_owners_alone(tmp_path):
    study = small_study(tmp_path, 2)
    with hosting(study):
        first = (study / LINKS).read_text()
    with hosting(study):
        assert (study / LINKS).read_text() == first
    assert (study / LINKS).stat().st_mode & 0o777 == 0o600
