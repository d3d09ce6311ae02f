"""Which module may import which: arrows point down, siblings meet in files, heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
CORE = ("schedule", "rng", "timesteps", "kernels", "terms", "losses")  # each may import itself and those before it
SIBLINGS = {
    "train",
    "evaluate",
    "geneval",
    "vbench",
    "mini",
    "plan",
    "studies",
    "annotate",
    "rounds",
    "profile",
    "push",
}  # tools that meet in files
USES = {  # one floor above them
    "annotate": {"evaluate"},  # votes become verdicts
    "rounds": {"train", "evaluate"},  # a round samples, scores, pairs and trains
    "studies": {"train", "evaluate", "rounds"},  # a run of a study trains and is scored, or is online rounds
    "mini": {"geneval", "evaluate"},  # the miniature is judged by their rules
    "train": {"evaluate"},  # train.keep_best scores samples as `sipo score` does
    "profile": {"train", "evaluate"},  # of a training's data and reference, before it; scored and shown as samples are
    "plan": {"train"},  # a plan makes the policy of a training on the meta device; rehearsals and benchmarks train
}
TOP = {"cli", "__main__"}  # may import everything; nobody below imports them
UTILITIES = {"errors", "files", "jsonl", "tables", "progress", "registry", "screen", "yaml12"}
HOMES = {  # library -> the only units that may import it
    **{name: {"annotate"} for name in ("fastapi", "starlette", "uvicorn", "sqlalchemy", "psycopg")},
    "diffusers": {"backbones", "scorers", "mini"},
    "transformers": {"backbones", "scorers", "geneval.detectors", "mini"},
    "peft": {"backbones.lora"},
    "huggingface_hub": {"hub", "push", "backbones"},
    "trl": {"text.trainer"},
    "accelerate": set(),  # its launcher starts trainings, diffusers and peft load with it
}


def imports() -> list[tuple[str, str]]:
    """(importing module, imported module), dotted, at any depth of the file; `from sipo import x` is sipo.x."""
    found = []
    for file in sorted(SRC.rglob("*.py")):
        module = ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Import(names=names):
                    found += [(module, alias.name) for alias in names]
                case ast.ImportFrom(module=source, names=names, level=0):
                    found += [
                        (module, name if is_module(name) or source == "sipo" else source)
                        for name in (f"{source}.{alias.name}" for alias in names)
                    ]
                case ast.ImportFrom():
                    found.append((module, "a relative import"))
    return found


def is_module(name: str) -> bool:
    path = SRC.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def unit(module: str) -> str:
    """`sipo.train.loop` -> train; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def violation(module: str, imported: str) -> str | None:
    library, here, there = imported.split(".")[0], unit(module), unit(imported)
    home = module.removeprefix("sipo.")
    if imported == "a relative import":
        return "imports are absolute"
    if here == "annotate" and library == "torch":
        return "a page of votes needs no torch"
    if library != "sipo":
        if (here in CORE or home == "text.loss") and library != "torch" and library not in sys.stdlib_module_names:
            return "the core needs torch alone"
        if library in HOMES and not any(home == place or home.startswith(place + ".") for place in HOMES[library]):
            return f"{library} belongs to {HOMES[library]}"
        return None
    if here in CORE and there not in CORE[: CORE.index(here) + 1]:
        return "the core points down"
    if here in UTILITIES and there not in UTILITIES:
        return "the helpers import each other alone"
    if here not in SIBLINGS | TOP and there in SIBLINGS | TOP:
        return "below the tools nobody imports them"
    if here in SIBLINGS and there in (SIBLINGS | TOP) - {here} - USES.get(here, set()):
        return "siblings meet in files"
    return None


def test_imports_point_down():
    found = imports()
    assert ("sipo.losses.sipo", "sipo.terms") in found
    broken = [f"{a} imports {b}: {why}" for a, b in found if (why := violation(a, b))]
    assert not broken, "\n".join(broken)


def test_the_rules_catch_what_they_should():
    for module, imported in [
        ("sipo.kernels", "numpy"),
        ("sipo.kernels", "sipo.terms"),
        ("sipo.losses.sipo", "sipo.config"),
        ("sipo.data.pairs.open", "diffusers"),
        ("sipo.train.policy", "peft"),
        ("sipo.text.loss", "transformers"),
        ("sipo.losses.sipo", "sipo.text.loss"),
        ("sipo.train.loop", "sipo.plan.plan"),
        ("sipo.backbones.flux", "accelerate.utils"),
        ("sipo.evaluate.report.report", "sipo.mini.world"),
        ("sipo.scorers.clip", "sipo.geneval.rules"),
        ("sipo.geneval.judging", "sipo.mini.detector"),
        ("sipo.train.loop", "sipo.cli"),
        ("sipo.config", "sipo.train.loop"),
        ("sipo.evaluate.report.report", "sipo.annotate.votes"),
        ("sipo.annotate.votes", "torch"),
    ]:
        assert violation(module, imported), f"{module} imports {imported} unseen"
    assert violation("sipo.mini.score", "sipo.geneval.rules") is None
    assert violation("sipo.backbones.lora", "peft") is None


def test_no_module_imports_itself_by_a_detour():
    arrows = imports()
    modules = {module for module, _ in arrows}
    below = {module: sorted({b for a, b in arrows if a == module and b in modules}) for module in modules}
    seen: dict[str, bool] = {}  # False while its imports are being followed

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert seen.get(module, True), " -> ".join([*path[path.index(module) :], module])
        if module not in seen:
            seen[module] = False
            for other in below[module]:
                follow(other, (*path, module))
            seen[module] = True

    for module in modules:
        follow(module, ())


def test_the_miniatures_are_known_by_name_alone():
    """`sipo.registry` finds what they bring; nobody else but the command line spells their package."""
    for file in sorted((SRC / "sipo").rglob("*.py")):
        home = file.relative_to(SRC / "sipo").as_posix()
        if not home.startswith(("mini/", "cli/mini.py", "registry.py")):
            assert "sipo.mini" not in file.read_text(), home


def test_the_judge_needs_nothing():
    code = "import sys; import sipo.geneval; print(sorted(n for n in sys.modules if n in ('torch', 'numpy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_core_loads_torch_and_nothing_else():
    code = (
        "import sys; import sipo; assert 'torch' not in sys.modules; import sipo.losses, sipo.timesteps\n"
        "from sipo import *\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & set(sys.argv[1:])), VPSchedule.__name__)"
    )
    heavy = [
        "diffusers",
        "transformers",
        "peft",
        "accelerate",
        "datasets",
        "trl",
        "pandas",
        "scipy",
        "PIL",
        "pydantic",
        "yaml",
        "rich",
    ]
    result = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True)
    assert result.stdout == "[] VPSchedule\n", result.stdout + result.stderr


def test_every_public_name_resolves():
    import sipo

    for name in sipo.__all__:
        assert getattr(sipo, name) is not None
    assert set(sipo.__all__) <= set(dir(sipo))
