"""The commands under a launcher of two processes: the files of one process, and one voice."""

import contextlib
import io

import pytest
import typer
from support.folders import contents
from support.processes import in_one, in_two

from sipo.cli import app

FAST = ["--num-inference-steps", "2", "--guidance-scale", "4", "--batch-size", "2"]
COMMANDS = {
    "samples": [
        ["generate", "miniature", "--prompts", "miniature", "--num-prompts", "3", "--images-per-prompt", "2", *FAST],
        ["score", "--scorer", "miniature", "--batch-size", "2"],
        ["label", "--scorer", "miniature", "--sft", "best.jsonl"],
    ],
    "pictures": [
        ["geneval", "generate", "miniature", "--metadata", "metadata.jsonl", "--images-per-prompt", "1", *FAST],
        ["geneval", "judge", "--detector", "miniature", "--batch-size", "2"],
    ],
}
METADATA = [
    '{"tag": "single_object", "prompt": "a circle", "include": [{"class": "circle", "count": 1}]}',
    '{"tag": "counting", "prompt": "two squares", "include": [{"class": "square", "count": 2}]}',
    '{"tag": "colors", "prompt": "a red star", "include": [{"class": "star", "count": 1, "color": "red"}]}',
]


def commands(_processes, folder, name):
    """Exit codes and what is printed by the commands, one after the other, in `folder`."""
    printed, codes = io.StringIO(), []
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        for words in COMMANDS[name]:
            place = {"generate": ["--out", name], "label": [name, "--out", "pairs.jsonl"]}.get(
                words[1] if words[0] == "geneval" else words[0], [name]
            )
            try:
                codes.append(app([*words, *place], standalone_mode=False) or 0)
            except typer.Exit as stop:
                codes.append(stop.exit_code)
    return codes, printed.getvalue()


def unrefused(found):
    """What the processes returned, where none of them ended in a UserError, whose text it would be."""
    assert not [each for each in found if isinstance(each, str)], found
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_leave_the_files_of_one_and_print_once(tmp_path, name):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metadata.jsonl").write_text("\n".join(METADATA) + "\n")
    ((codes, printed),) = unrefused(in_one(commands, tmp_path / "one", name))
    (first, printed_by_first), (second, printed_by_second) = unrefused(in_two(commands, tmp_path / "two", name))
    assert set(codes) == {0}
    assert first == second == codes
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "one")) > 8
    bars = ("Generating", "Scoring", "Judging")
    said, by_first = ([line for line in text.splitlines() if not line.strip().startswith(bars)] for text in
                      (printed, printed_by_first))  # fmt: skip
    assert by_first == said
    assert printed_by_second == ""
