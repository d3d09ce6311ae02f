"""The command line as a user meets it: help, exit codes, no tracebacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import command_line
from typer.testing import CliRunner

from sipo.cli import app, at_home, main
from sipo.errors import Stopped

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"  # a file, where a folder is wanted


def sipo(*arguments: str) -> subprocess.CompletedProcess:
    """In the environment of a notebook's kernel, whose backend of matplotlib is not installed."""
    env = {**os.environ, "MPLBACKEND": "module://some_notebook.backend_inline"}
    return subprocess.run([sys.executable, "-m", "sipo", *arguments], env=env, capture_output=True, text=True)


def test_every_command_has_help():
    commands = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    groups = {
        g.name: [c.name for c in g.typer_instance.registered_commands]
        for g in app.registered_groups
        if g.typer_instance
    }
    assert {
        "train",
        "generate",
        "score",
        "compare",
        "label",
        "report",
        "export",
        "push",
        "benchmark",
        "study",
        "online",
        "plan",
        "rehearse",
        "list",
    } == set(commands)
    for words in [[], *([c] for c in commands), *([g, c] for g, cs in groups.items() for c in cs)]:
        result = CliRunner().invoke(app, [*words, "--help"])
        assert result.exit_code == 0, words
        assert "Usage" in result.output


def test_help_loads_nothing_heavy():
    code = "import sys; from sipo.cli import app; sys.exit(any(m in sys.modules for m in ('torch', 'diffusers', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "absent.yaml"], 2, "there is no config file absent.yaml"),
        (["train"], 2, "Missing argument"),
        (["data", "check", "absent.parquet"], 1, "absent.parquet does not exist"),
        (["report", "."], 1, "is no run directory"),
        (["train", "."], 2, ". is a folder; expected a regular file"),
        (["train", str(DEMO), f"run={DEMO}"], 1, f"{DEMO}: File exists"),
        (
            ["generate", "miniature", "--prompts", "miniature", "--out", "x", "--num-inference-steps", "0"],
            2,
            "greater than or",
        ),
        (
            ["generate", "miniature", "--prompts", "miniature", "--num-prompts", "1", "--out", str(DEMO)],
            1,
            "File exists",
        ),
    ],
)
def test_a_users_mistake_is_a_message_and_an_exit_code(monkeypatch, capfd, arguments, code, message):
    found, _, complaint = command_line.run(monkeypatch, capfd, *arguments)
    assert found == code
    assert message in complaint


def test_check_exits_with_1_for_bad_rows_and_writes_them(tiny_pairs, tmp_path, monkeypatch, capfd):
    assert command_line.run(monkeypatch, capfd, "data", "check", tiny_pairs)[0] == 0
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "x", "chosen": "gone.png", "rejected": "gone.png"}\n')
    result = sipo("data", "check", str(tmp_path / "pairs.jsonl"), "--json", str(tmp_path / "found.json"))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    assert "missing_file" in (tmp_path / "found.json").read_text()


def test_train_generate_report_export(raw_config, tmp_path, monkeypatch, capfd):
    run, config = Path(raw_config["run"]), tmp_path / "config.yaml"
    raw_config["train"]["num_steps"] = 2
    config.write_text(yaml.safe_dump(raw_config))
    trained = sipo("train", str(config))
    assert trained.returncode == 0, trained.stderr
    assert "1 (paper) = 1000 (salesforce) = 500 (diffusers)" in trained.stdout
    assert (run / "report.html").is_file()

    def again(*arguments):
        return command_line.run(monkeypatch, capfd, *arguments)

    written = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    code, printed, _ = again("train", config)
    assert code == 0
    assert "complete: 2 steps are done" in printed
    assert "report.html" in printed
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == written  # the report is not drawn again
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    out = tmp_path / "pictures"
    code, _, complaints = again("generate", run, "--prompts", tmp_path / "prompts.txt", "--out", out)
    assert code == 0, complaints
    assert len(list(out.glob("*.png"))) == 2
    assert again("report", run)[0] == 0
    code, printed, _ = again("data", "check", raw_config["data"]["path"], "--model", config)
    assert (code, "caption" in printed) == (0, True)
    assert again("export", run, "--out", tmp_path / "weights")[0] == 0
    code, _, complaints = again("train", config, "train.learning_rate=1")
    assert code == 2
    assert "train.learning_rate: 0.001 in the run, 1.0 now" in complaints


def test_a_stop_that_was_asked_for_is_no_error(monkeypatch, capsys):
    def stop():
        raise Stopped("stopped after step 3 as asked")

    monkeypatch.setattr("sipo.cli.app", stop)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped after step 3 as asked\n"


@pytest.mark.parametrize(
    ("word", "meant"),
    [("~/a.yaml", "HOME/a.yaml"), ("data.path=~/p", "data.path=HOME/p"), ("--out=~/o", "--out=HOME/o"),
     ("hpsv2=~/w.pt", "hpsv2=HOME/w.pt"), ("a~b", "a~b"), ("x=1", "x=1"), ("model.vae=", "model.vae=")],
)  # fmt: skip
def test_home_in_arguments(monkeypatch, tmp_path, word, meant):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home(word) == meant.replace("HOME", str(tmp_path))
