"""The command lines for the official package, and what becomes of dimensions that fail."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from support.processes import in_two

from sipo.errors import UserError
from sipo.vbench import official as command

QUIET = Console(file=io.StringIO())
Places = tuple[Path, Path, Path]


@pytest.fixture
def places(tmp_path):
    """An environment that has the program, and a folder with a video."""
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/vbench").write_text("")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a cat-0.mp4").write_bytes(b"")
    return tmp_path / "env", tmp_path / "videos", tmp_path / "out"


def test_the_command_of_a_dimension(places: Places):
    env, videos, out = places
    assert command.commands(env, videos, "scene", out, 4) == [
        [f"{env}/bin/vbench", "evaluate", "--ngpus", "4", "--videos_path", str(videos), "--dimension", "scene",
         "--output_path", f"{out}/scene"]
    ]  # fmt: skip


def test_flickering_is_judged_on_what_the_static_filter_leaves(places: Places):
    env, videos, out = places
    first, second = command.commands(env, videos, "temporal_flickering", out)
    assert first == [
        f"{env}/bin/vbench", "static_filter", "--videos_path", str(videos), "--result_path", f"{out}/static_filter",
    ]  # fmt: skip
    assert second[second.index("--videos_path") + 1] == f"{out}/static_filter/filtered_videos"


def test_paths_are_absolute_and_what_a_shell_would_garble_is_refused(places: Places, monkeypatch):
    env, videos, out = places
    monkeypatch.chdir(videos.parent)
    assert command.commands(Path("env"), Path("videos"), "scene", Path("out")) == command.commands(
        *places[:2], "scene", out
    )
    with pytest.raises(UserError, match="VBench cannot read paths with any of"):
        command.commands(env, Path("/data/$HOME"), "scene", out)


def test_the_environments_programs_come_first(places: Places, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command.variables(places[0])["PATH"] == f"{places[0]}/bin:/usr/bin"


class Package:
    """Stands for the package: notes what it was told, and leaves results but for the dimensions that fail."""

    def __init__(self, silent=(), loud=()):
        self.silent, self.loud, self.told = silent, loud, []

    def __call__(self, arguments, variables):
        given = dict(zip(arguments[2::2], arguments[3::2], strict=True))
        dimension = given.get("--dimension", "static filter")
        self.told.append(dimension)
        if dimension in self.loud:
            return 1
        if arguments[1] == "evaluate" and dimension not in self.silent:
            out = Path(given["--output_path"])
            out.mkdir(parents=True)
            (out / "results_now_eval_results.json").write_text(json.dumps({dimension: [0.5, []]}))
        return 0


def test_failures_do_not_stop_the_others_and_only_they_are_run_again(places: Places):
    names = ["scene", "color", "temporal_flickering", "human_action"]
    package = Package(silent=["color"], loud=["scene", "static filter"])
    assert command.run_dimensions(*places[:2], names, places[2], 1, QUIET, package) == names[:3]
    assert package.told == ["scene", "color", "static filter", "human_action"]
    again = Package()
    assert command.run_dimensions(*places[:2], names, places[2], 1, QUIET, again) == []
    assert again.told == ["scene", "color", "static filter", "temporal_flickering"]


def test_what_is_not_there_is_said_before_anything_runs(places: Places, tmp_path):
    env, videos, out = places
    with pytest.raises(UserError, match=r"is not an environment with VBench: it has no .*bin/vbench"):
        command.run_dimensions(tmp_path, videos, ["scene"], out, 1, QUIET, Package())
    with pytest.raises(UserError, match=r"holds no \.mp4 file"):
        command.run_dimensions(env, tmp_path, ["scene"], out, 1, QUIET, Package())


def judges(processes, places: Places, names):
    """What a package was told in this process, by what variables, and what failed at last."""
    found, package = [], Package(silent=["color"])

    def execute(arguments, variables):
        found.append({name: variables.get(name) for name in ("RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "HOME")})
        return package(arguments, variables)

    failed = command.run_dimensions(*places[:2], names, places[2], 1, QUIET, execute, processes)
    return package.told, found, failed


def test_two_processes_judge_each_dimension_once_on_the_gpu_of_each(places: Places, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    names = ["scene", "color", "human_action", "object_class", "spatial_relationship"]
    (first, variables, failed), (second, of_second, failed_too) = in_two(judges, places, names)
    assert sorted(first + second) == sorted(names)
    assert failed == failed_too == ["color"]
    for gpu, told in (("6", variables), ("7", of_second)):
        expected = {"RANK": None, "WORLD_SIZE": None, "CUDA_VISIBLE_DEVICES": gpu, "HOME": os.environ["HOME"]}
        assert all(found == expected for found in told)
