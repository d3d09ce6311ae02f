"""The command line: thin commands over the packages, which it alone connects."""

import io
import os
import sys

import typer

from sipo.cli.annotate import annotate
from sipo.cli.benchmarks import geneval, vbench
from sipo.cli.common import say
from sipo.cli.data import data
from sipo.cli.feedback import label, prompts
from sipo.cli.hub import push
from sipo.cli.judging import compare, generate, report, score
from sipo.cli.listing import list_names
from sipo.cli.mini import mini
from sipo.cli.online import online
from sipo.cli.study import study
from sipo.cli.training import benchmark, export, plan, rehearse, train
from sipo.errors import Stopped, UsageError, UserError, is_out_of_memory, shortage_of
from sipo.files import expand_home, is_disk_full

app = typer.Typer(
    name="sipo", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Align diffusion models with human preferences: SIPO, DPO-C&M, Diffusion-DPO, SFT.",
)  # fmt: skip
for command in (train, generate, score, compare, label, report, export, push, plan, rehearse, benchmark, study, online):
    app.command()(command)
app.command("list")(list_names)
for name, group in {
    "data": data,
    "prompts": prompts,
    "geneval": geneval,
    "vbench": vbench,
    "mini": mini,
    "annotate": annotate,
}.items():
    app.add_typer(group, name=name)


def main() -> None:
    """Entry point: a user's mistake is a message and an exit code, never a traceback."""
    sys.argv[1:] = map(at_home, sys.argv[1:])
    os.environ["MPLBACKEND"] = "agg"  # a notebook hands its own, which may be missing here, to what it starts
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # half a character in a name must not end the command
    try:
        app()
    except Stopped as stop:
        say(str(stop), err=True)
        sys.exit(130)
    except UsageError as error:
        _complain(error, 2)
    except UserError as error:
        _complain(error, 1)
    except KeyboardInterrupt as stop:
        _complain(str(stop) or "stopped", 130)
    except Exception as error:
        if is_out_of_memory(error):
            _complain(f"{shortage_of(error)}\nTry a lower batch size, or end what else uses the memory", 1)
        if is_disk_full(error):  # while a library wrote a file of its own
            _complain(f"the disk is full: {error}", 1)
        if not isinstance(error, OSError) or error.filename is None:
            raise
        _complain(f"{error.filename}: {error.strerror}", 1)  # the system says which file, and why


def at_home(word: str) -> str:
    """An argument whose path begins with ~, after `key=` or `--option=` as well, where shells leave it as it is."""
    head, equals, tail = word.partition("=")
    return head + equals + expand_home(tail) if equals else expand_home(word)


def _complain(error: object, code: int) -> None:
    from rich.text import Text

    from sipo.screen import Screen

    screen = Screen(stderr=True, soft_wrap=True, highlight=False)
    screen.print(Text.assemble(("error:", "bold red"), " ", str(error)))
    sys.exit(code)
