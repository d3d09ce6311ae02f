"""Names: the package's own, those of installed packages and of modules; nothing runs that nobody named."""

import dataclasses
import importlib
import subprocess
import sys

import pytest

from sipo import registry
from sipo.config import parse_config
from sipo.errors import UsageError
from sipo.registry import Registry

PLUGIN = '''
"""A plugin."""
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Even:
    """Half of it."""
    share: float = 0.5
    needs_reference: ClassVar[bool] = False
    needs_rejected: ClassVar[bool] = False
    needs_importance_weights: ClassVar[bool] = False
    def __call__(self, terms): ...

def factory(**settings):
    """Anything."""
    return settings

def bare(device="cpu"):
    return device
'''
CONFIG = {"run": "r", "model": {"path": "m"}, "data": {"path": "d"}}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """entry points, as {group: {name: module:attribute}}, of an installed package my-plugin 1.2 with PLUGIN as my_plugin."""

    def install(name="my-plugin", **groups):
        info = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [
            f"[sipo.{group}]\n" + "".join(f"{n} = {v}\n" for n, v in points.items()) for group, points in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (tmp_path / "my_plugin.py").write_text(PLUGIN)
        (tmp_path / "broken_plugin.py").write_text("import a_module_that_is_not_here")
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    for module in ("my_plugin", "broken_plugin"):
        sys.modules.pop(module, None)


def lines(kind: str) -> dict[str, registry.Entry]:
    return {entry.name: entry for entry in registry.LISTED[kind].entries()}


@pytest.mark.parametrize("kind", sorted(registry.LISTED))
def test_what_comes_with_the_package_loads_and_says_what_it_is(kind):
    names = registry.LISTED[kind]
    assert list(lines(kind)) == names.names() == list(names.own())
    for name, entry in lines(kind).items():
        assert names.load(name) is not None
        assert len(entry.about) > 10, name
        assert (entry.source, entry.error) == ("sipo", "")


def test_what_is_read_from_the_source_is_what_importing_would_say():
    for kind in ("scorers", "detectors"):
        for name, entry in lines(kind).items():
            assert entry.about == registry.LISTED[kind].load(name).__doc__.split("\n")[0]


def test_listing_scorers_and_detectors_loads_no_library():
    code = (
        "import sys; from sipo import registry\n"
        "for kind in ('scorers', 'detectors', 'miniatures', 'worlds'): assert list(registry.LISTED[kind].entries())\n"
        "print(sorted({'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr


def test_an_installed_objective_is_found_configured_and_written_back(installed):
    installed(objectives={"even": "my_plugin:Even"})
    config = parse_config({**CONFIG, "loss": {"name": "even", "share": 0.25}})
    assert (type(config.loss).__name__, config.loss.share) == ("Even", 0.25)
    assert config.to_dict()["loss"] == {"name": "even", "share": 0.25}
    assert parse_config(config.to_dict()) == config
    assert lines("objectives")["even"] == registry.Entry("even", "Half of it.", "my-plugin 1.2")


def test_a_module_is_named_without_an_installation(installed):
    installed()
    config = parse_config({**CONFIG, "loss": {"name": "my_plugin:Even"}})
    assert config.to_dict()["loss"] == {"name": "my_plugin:Even", "share": 0.5}
    assert parse_config(config.to_dict()) == config
    with pytest.raises(UsageError, match=r"loss\.shar: unknown key; did you mean share\?"):
        parse_config({**CONFIG, "loss": {"name": "my_plugin:Even", "shar": 1}})
    with pytest.raises(UsageError, match=r"loss\.name: my_plugin:bare is no dataclass"):
        parse_config({**CONFIG, "loss": {"name": "my_plugin:bare"}})


def test_a_module_of_the_current_folder_is_found_and_hides_none(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("thing = 3")
    (tmp_path / "json.py").write_text("raise SystemExit('the current folder hides the standard library')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "json")
    assert registry.worlds.load("only_here:thing") == 3
    assert registry.worlds.load("json:dumps")(1) == "1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evn", r"loss\.name: 'evn' is none of sft, .*, even; did you mean even\?"),
        ("broken", r"loss\.name: broken of my-plugin 1\.2 cannot be imported: ModuleNotFoundError: .*a_module_that"),
        ("my_plugin:Odd", r"loss\.name: my_plugin:Odd cannot be imported: AttributeError"),
        ("no_such_module:Loss", r"loss\.name: no_such_module:Loss cannot be imported: ModuleNotFoundError"),
        ("C:", r"loss\.name: C: cannot be imported"),
        (":x", r"loss\.name: :x cannot be imported"),
        (["sipo"], r"loss\.name: .* is none of"),
    ],
)
def test_what_is_wrong_with_a_name(installed, name, message):
    installed(objectives={"even": "my_plugin:Even", "broken": "broken_plugin:Loss"})
    with pytest.raises(UsageError, match=message):
        parse_config({**CONFIG, "loss": {"name": name}})


def test_broken_and_hidden_plugins_are_listed_with_the_reason(installed):
    installed(objectives={"broken": "broken_plugin:Loss", "sipo": "my_plugin:Even"})
    found = list(registry.objectives.entries())
    assert "ModuleNotFoundError: No module named 'a_module" in next(e for e in found if e.name == "broken").error
    assert [e.error for e in found if e.name == "sipo"] == ["", "the name is taken: write my_plugin:Even instead"]
    assert registry.objectives.load("sipo").__module__ == "sipo.losses.sipo"


def test_a_name_of_two_packages_must_be_written_out(installed):
    installed(objectives={"even": "my_plugin:Even"})
    installed("other", objectives={"even": "other:Even"})
    with pytest.raises(UsageError, match=r"'even' is declared by my-plugin 1\.2 \(my_plugin:Even\) and other 1\.2"):
        registry.objectives.load("even")


def test_only_settings_that_are_taken_are_passed(installed):
    installed()
    scorers: Registry = registry.scorers
    assert scorers.make("my_plugin:bare", device="cuda", dtype="float16", batch_size=3) == "cuda"
    assert scorers.make("my_plugin:bare", device=None) == "cpu"
    assert scorers.make("my_plugin:factory", weights="w", dtype=None) == {"weights": "w"}
    with pytest.raises(UsageError, match="--scorer: my_plugin:bare takes no weights"):
        scorers.make("my_plugin:bare", "--scorer", weights="w")


def test_what_a_name_stands_for_is_imported_when_it_is_used_and_not_before(installed):
    installed(objectives={"broken": "broken_plugin:Loss"}, scorers={"even": "my_plugin:bare"})
    assert "broken" in registry.objectives.names()
    assert parse_config({**CONFIG, "loss": {"name": "sipo"}}).to_dict()["loss"]["name"] == "sipo"
    assert "my_plugin" not in sys.modules


def test_a_miniature_brings_everything_under_its_name():
    for each in registry.miniatures.own().values():
        assert registry.miniature(each.name) is each
        for field in dataclasses.fields(each):
            value = getattr(each, field.name)
            assert not hasattr(value, "exists") or value.exists(), field.name
        assert each.name in registry.scorers.own()
        assert (each.name in registry.detectors.own()) == (each.detector is not None)
        assert (each.name in registry.worlds.own()) == (each.world is not None)
    assert registry.miniature("a hub id") is None
    assert registry.miniature(registry.DEFAULT) is not None


@pytest.mark.parametrize(
    ("prompts", "scorer"),
    [("miniature", "miniature"), ("miniature-flow", "miniature"), ("miniature-video", "miniature-video"), ("my.txt", "miniature")],
)  # fmt: skip
def test_prompts_of_a_miniature_are_scored_by_its_own_scorer(prompts, scorer):
    assert registry.default_scorer(prompts) == scorer
    assert registry.scorers.make(scorer).name == scorer
