"""`examples/sipo.ipynb`: nothing is stored in it but its text, its commands exist, and run in order it aligns and compares.

Its cells are Python with lines that begin with `!`, which a notebook gives to the shell, values in braces filled in.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click import Context

from sipo.cli import app

NOTEBOOK = Path(__file__).parents[1] / "examples" / "sipo.ipynb"
COMMAND = re.compile(r"^( *)!(.+)$", re.MULTILINE)

# What a notebook brings: `display`, and the shell behind `!`.
BEGIN = """
import json, os, subprocess, sys, types
_shown = []
module = types.ModuleType("IPython.display")
module.display = lambda *things: _shown.extend([type(thing).__name__, *thing.size] for thing in things)
sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": module}
def _shell(line):
    print("$", line, flush=True)
    subprocess.run(line, shell=True, check=True)
"""
END = """
print("shown:", json.dumps(_shown))
"""


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def as_python(source: str) -> str:
    return COMMAND.sub(lambda found: f"{found[1]}_shell(f{found[2]!r})", source)


def test_it_is_a_notebook_without_outputs_and_without_places():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell["id"])
        assert isinstance(cell["metadata"], dict)
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            compile(as_python("".join(cell["source"])), cell["id"], "exec")
    assert not re.search(r"(?<![\w.<:/])(/|~/|[A-Z]:\\)\w", NOTEBOOK.read_text())
    for target in re.findall(r"\]\((?!https)([^)]+)\)", "\n".join(cells("markdown"))):
        assert (NOTEBOOK.parent / target).is_file(), target


def test_its_commands_are_those_of_the_package():
    """Names and options, as the command line parses them; the values of braces stand for themselves."""
    lines = [line for source in cells("code") for _, line in COMMAND.findall(source) if line.startswith("sipo ")]
    assert {line.split()[1] for line in lines} == {"train", "compare", "plan", "push"}
    group = typer.main.get_command(app)
    for line in lines:
        _, name, *arguments = shlex.split(line.replace("{PROMPTS}", "8"))
        command = group.commands[name]  # pyright: ignore[reportAttributeAccessIssue]
        command.parse_args(Context(command, info_name=name), arguments)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text("\n".join([BEGIN, *map(as_python, cells("code")), END]))
    few = {"SIPO_NOTEBOOK_STEPS": "2", "SIPO_NOTEBOOK_PAIRS": "40", "SIPO_NOTEBOOK_PROMPTS": "8"}
    env = {
        **os.environ,
        **few,
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pip install" not in done.stdout
    assert re.search(r"The aligned model wins [\d.]+% \(95% interval .*\) of 8 comparisons\.", done.stdout)
    assert re.search(r"Right pictures: [\d.]+% before, [\d.]+% after\.", done.stdout)
    assert "would go to OWNER/shapes-sipo; nothing was sent" in done.stdout
    assert "There is no GPU here" in done.stdout
    shown = json.loads(done.stdout.rpartition("shown: ")[2])
    assert [kind for kind, *_ in shown] == ["Image", "PngImageFile", "PngImageFile", "Image"]
    assert [tuple(size) for kind, *size in shown if kind == "Image"] == [(768, 256), (1024, 256)]
