"""The official VBench package, run in an environment of its own, one dimension at a time (vbench/cli/).

It pins old CUDA and transformers, so nothing of it is imported here: files in, files out.
"""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sipo.errors import UserError
from sipo.processes import ALONE, Processes, environment_of_programs
from sipo.vbench.files import FLICKERING, RESULTS

Execute = Callable[[Sequence[str], Mapping[str, str]], int]
"""A command line and its environment variables in, the exit status out."""


def evaluate_command(environment: Path, videos: Path, dimension: str, out: Path, num_gpus: int = 1) -> list[str]:
    """`vbench evaluate` of one dimension. `environment`: the virtual environment that holds the package."""
    return [
        str(program(environment)), "evaluate", "--ngpus", str(num_gpus), "--videos_path", str(videos),
        "--dimension", dimension, "--output_path", str(out),
    ]  # fmt: skip


def filter_command(environment: Path, videos: Path, out: Path) -> list[str]:
    """`vbench static_filter`: of the 25 videos of a prompt of temporal_flickering it copies up to 5 static ones."""
    return [str(program(environment)), "static_filter", "--videos_path", str(videos), "--result_path", str(out)]


def program(environment: Path) -> Path:
    return Path(environment) / "bin" / "vbench"


def variables(environment: Path) -> dict[str, str]:
    """This process's for programs, with the environment's programs first: the package calls `python` by name."""
    found = environment_of_programs()
    return {**found, "PATH": f"{Path(environment) / 'bin'}{os.pathsep}{found.get('PATH', '')}"}


def commands(environment: Path, videos: Path, dimension: str, out: Path, num_gpus: int = 1) -> list[list[str]]:
    """What judges one dimension: the evaluation into `out`/DIMENSION, for temporal_flickering after the static filter.

    Raises `UserError` for paths that the package, which passes them through a shell, would break.
    """
    environment, videos, out = (Path(path).absolute() for path in (environment, videos, out))
    for path in (environment, videos, out):
        if any(sign in str(path) for sign in '"$`\\'):
            raise UserError(f'{path}: VBench cannot read paths with any of " $ ` \\ in them.')
    if dimension != FLICKERING:
        return [evaluate_command(environment, videos, dimension, out / dimension, num_gpus)]
    filtered = out / "static_filter"
    return [
        filter_command(environment, videos, filtered),
        evaluate_command(environment, filtered / "filtered_videos", dimension, out / dimension, num_gpus),
    ]


def run_dimensions(
    environment: Path,
    videos: Path,
    dimensions: Sequence[str],
    out: Path,
    num_gpus: int,
    console: Console,
    execute: Execute | None = None,
    processes: Processes = ALONE,
) -> list[str]:
    """Judge each dimension that has no results in `out` yet, and return those that failed; the others are judged.

    All `processes` call it, and each judges whole dimensions.

    A dimension has failed when its command ends with an error or leaves no results (the package's own command line
    exits with 0 in any case). Raises `UserError` if the environment or the videos are missing.
    """
    if not program(environment).is_file():
        raise UserError(f"{environment} is not an environment with VBench: it has no {program(environment)}.")
    if not any(Path(videos).glob("*.mp4")):
        raise UserError(f"{videos} holds no .mp4 file.")
    execute = execute or _execute
    todo = [dimension for dimension in dimensions if not has_results(out / dimension)]
    processes.barrier()
    for dimension in processes.share(todo):
        for command in commands(environment, videos, dimension, out, num_gpus):
            console.print(Text.assemble((dimension, "bold"), f": {' '.join(command)}"), soft_wrap=True)
            if execute(command, variables(environment)) != 0:
                break
    processes.barrier()
    return [dimension for dimension in todo if not has_results(out / dimension)]


def has_results(folder: Path) -> bool:
    return any(Path(folder).glob(f"*{RESULTS}"))


def _execute(command: Sequence[str], environment: Mapping[str, str]) -> int:
    return subprocess.run(command, env=dict(environment)).returncode
