"""Objectives, scorers, detectors and whatever else is chosen by name: the package's own, and those of users.

A name stands in a table of the package, is an entry point that an installed package declares, or is written
`module:attribute`. Modules are imported when a name is used, never before: code of a user runs only where the user wrote
`module:attribute` or installed the package with the entry point.
"""

import ast
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sipo.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Miniature:
    """A small model in a small world, and all that the commands need of it, under one name (see `sipo.mini`)."""

    name: str
    about: str  # one line
    weights: Path  # in diffusers' layout
    pairs: Path
    train_prompts: Path  # GenEval's metadata, as all prompts here
    heldout_prompts: Path
    categories: tuple[str, ...]  # of the prompts, in the order of tables
    scorer: str  # module:attribute, as the next two
    detector: str | None  # of objects in pictures
    world: str | None  # of GenEval's prompts
    num_inference_steps: int  # with which it samples well
    guidance_scale: float


@dataclass(frozen=True)
class Entry:
    """A line of `sipo list`: the name, what it is, where it comes from, and why it cannot be used ("" if it can)."""

    name: str
    about: str
    source: str
    error: str = ""


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The names of one kind of thing.

    table: the package's own names and the `module:attribute` of each, or of a whole mapping from names to objects; they
    are imported when they are needed. group: of entry points, by which installed packages add theirs. field: of
    `Miniature`, for kinds of which every miniature brings one under its own name.
    """

    kind: str
    table: str | Mapping[str, str]
    group: str | None = None
    field: str | None = None

    def own(self) -> dict[str, Any]:
        """The package's own names, and objects or what to import."""
        found = dict(import_object(self.table) if isinstance(self.table, str) else self.table)
        if self.field is not None:
            brought = {each.name: getattr(each, self.field) for each in miniatures.own().values()}
            found |= {name: each for name, each in brought.items() if each is not None}
        return found

    def names(self) -> list[str]:
        """The package's own names, then those of installed packages."""
        return list(dict.fromkeys([*self.own(), *(point.name for point in self._installed())]))

    def load(self, name: Any, where: str | None = None) -> T:
        """What `name` stands for. Raises UsageError, which begins with `where` (an option or key), where it is nothing."""
        where, own = where or self.kind, self.own()
        if isinstance(name, str) and name in own:
            return import_object(own[name]) if isinstance(own[name], str) else own[name]
        if isinstance(name, str) and ":" in name:
            _see_current_folder()
            return _imported(name, f"{where}: {name}")
        points = [point for point in self._installed() if point.name == name]
        if not points:
            known = ", ".join(self.names())
            hint = did_you_mean(name, self.names()).removesuffix(f"; known: {known}")
            raise UsageError(f"{where}: {name!r} is none of {known}{hint}")
        if len(points) > 1:
            found = " and ".join(f"{_source(point)} ({point.value})" for point in points)
            raise UsageError(f"{where}: {name!r} is declared by {found}: write the one in brackets instead")
        return _imported(points[0].value, f"{where}: {name} of {_source(points[0])}")

    def make(self, name: str, where: str | None = None, weights: str | None = None, **settings: object) -> Any:
        """Call what `name` stands for with those settings that are not None and that it takes.

        Raises UsageError for `weights` where it takes none.
        """
        factory: Any = self.load(name, where)
        parameters = inspect.signature(factory).parameters
        takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
        if weights is not None and "weights" not in parameters and not takes_all:
            raise UsageError(f"{where or self.kind}: {name} takes no weights")
        given = {key: value for key, value in {"weights": weights, **settings}.items() if value is not None}
        return factory(**{key: value for key, value in given.items() if takes_all or key in parameters})

    def name_of(self, found: object) -> str:
        """The name that loads `found`: the package's own, an entry point's, else module:attribute."""
        own = next((name for name, each in self.own().items() if each is found), None)
        if own is not None:
            return own
        for point in self._installed():
            with suppress(Exception):  # a broken plugin of someone else
                if point.load() is found:
                    return point.name
        return f"{found.__module__}:{found.__qualname__}"  # pyright: ignore[reportAttributeAccessIssue]

    def entries(self) -> Iterable[Entry]:
        """All of the kind. The package's own are not imported for it; those of users are, so that errors are seen."""
        for name, found in self.own().items():
            yield Entry(name, _about_source(found) if isinstance(found, str) else _about(found), "sipo")
        for point in self._installed():
            if point.name in self.own():
                yield Entry(point.name, "", _source(point), f"the name is taken: write {point.value} instead")
                continue
            try:
                yield Entry(point.name, _about(point.load()), _source(point))
            except Exception as error:  # whatever a user's module raises
                yield Entry(point.name, "", _source(point), _reason(error))

    def _installed(self) -> "list[EntryPoint]":
        if self.group is None:
            return []
        from importlib.metadata import entry_points

        return sorted(entry_points(group=self.group), key=lambda point: (point.name, point.value))


miniatures: Registry[Miniature] = Registry("miniature", "sipo.mini:MINIATURES")
objectives: Registry[type] = Registry("objective", "sipo.losses:LOSSES", "sipo.objectives")
kernels: Registry[type] = Registry("kernel", "sipo.kernels:KERNELS", "sipo.kernels")
timesteps: Registry[type] = Registry("timesteps", "sipo.timesteps:TIMESTEPS", "sipo.timesteps")
scorers: Registry[Callable] = Registry(
    "scorer",
    {
        "pickscore": "sipo.scorers.pickscore:PickScore",
        "hpsv2": "sipo.scorers.hps:HPSv2",
        "hpsv2.1": "sipo.scorers.hps:hpsv2_1",
        "hpsv3": "sipo.scorers.hpsv3:HPSv3",
        "videoreward": "sipo.scorers.video_reward:VideoReward",
        "imagereward": "sipo.scorers.image_reward:ImageReward",
        "aesthetic": "sipo.scorers.aesthetic:LaionAesthetic",
        "clip": "sipo.scorers.clip_score:ClipScore",
    },
    "sipo.scorers",
    "scorer",
)
"""What makes each `sipo.scorers.base.Scorer`: it takes weights, device, dtype and batch_size."""

detectors: Registry[Callable] = Registry(
    "detector",
    {
        "mask2former": "sipo.geneval.detectors.mask2former:Mask2Former",
        "owlv2": "sipo.geneval.detectors.owlv2:Owlv2",
        "grounding-dino": "sipo.geneval.detectors.grounding_dino:GroundingDino",
        "yolo-world": "sipo.geneval.detectors.yolo_world:YoloWorld",
    },
    "sipo.detectors",
    "detector",
)
"""What makes each `sipo.geneval.detectors.Detector`: it takes weights and device."""

worlds: Registry[Any] = Registry("world", {"geneval": "sipo.geneval.vocabulary:GENEVAL"}, "sipo.worlds", "world")
"""What prompts are composed of: a `sipo.geneval.vocabulary.World` each."""

families: Registry[Any] = Registry(
    "family",
    {
        "StableDiffusionPipeline": "sipo.backbones.stable_diffusion:STABLE_DIFFUSION",
        "StableDiffusionXLPipeline": "sipo.backbones.stable_diffusion:STABLE_DIFFUSION_XL",
        "StableDiffusion3Pipeline": "sipo.backbones.stable_diffusion_3:STABLE_DIFFUSION_3",
        "FluxPipeline": "sipo.backbones.flux:FLUX",
        "FluxKontextPipeline": "sipo.backbones.flux_kontext:FLUX_KONTEXT",
        "QwenImagePipeline": "sipo.backbones.qwen_image:QWEN_IMAGE",
        "QwenImageEditPipeline": "sipo.backbones.qwen_image_edit:QWEN_IMAGE_EDIT",
        "QwenImageEditPlusPipeline": "sipo.backbones.qwen_image_edit:QWEN_IMAGE_EDIT_PLUS",
        "Flux2KleinPipeline": "sipo.backbones.flux2_klein:FLUX2_KLEIN",
        "ZImagePipeline": "sipo.backbones.z_image:Z_IMAGE",
        "CogVideoXPipeline": "sipo.backbones.cogvideox:COGVIDEOX",
        "WanPipeline": "sipo.backbones.wan:WAN",
        "WanImageToVideoPipeline": "sipo.backbones.wan_i2v:WAN_I2V",
        "HunyuanVideo15Pipeline": "sipo.backbones.hunyuan_video_15:HUNYUAN_VIDEO_15",
        "LTX2Pipeline": "sipo.backbones.ltx2:LTX_2",
    },
    "sipo.backbones",
)
"""By the class that a checkpoint's model_index.json names, a `sipo.backbones.family.Family` each."""

LISTED: Mapping[str, Registry] = {
    "objectives": objectives, "kernels": kernels, "timesteps": timesteps, "scorers": scorers, "detectors": detectors,
    "families": families, "miniatures": miniatures, "worlds": worlds,
}  # fmt: skip
"""What `sipo list` lists."""

DEFAULT = "miniature"
"""The miniature whose prompts and scorer the commands take where none are named: it needs no weights."""


def miniature(name: object) -> Miniature | None:
    """The miniature of that name, for whatever may also be a path or a hub id."""
    return miniatures.own().get(str(name))


def default_scorer(prompts: object) -> str:
    """Where none is named: that of the miniature whose prompts these are, else the image miniature's."""
    found = miniature(prompts)
    return scorers.name_of(found.scorer) if found else DEFAULT


def import_object(target: str) -> Any:
    """The object at `module:attribute`, whose attribute may have dots."""
    module, _, attribute = target.partition(":")
    found: Any = import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _imported(target: str, what: str) -> Any:
    try:
        return import_object(target)
    except Exception as error:  # whatever a user's module raises
        raise UsageError(f"{what} cannot be imported: {_reason(error)}") from error


def _see_current_folder() -> None:
    """Find modules in the current folder, as `python -m` does; after all others, so that they hide none."""
    if (folder := os.getcwd()) not in sys.path:
        sys.path.append(folder)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]


def _source(point: "EntryPoint") -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _about(found: object) -> str:
    return found.about if isinstance(found, Miniature) else _first_line(inspect.getdoc(found))


def _about_source(target: str) -> str:
    """The first line of documentation of one of the package's own objects, read without importing it."""
    module, _, attribute = target.partition(":")
    body = ast.parse((PACKAGE.parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")).body
    for place, node in enumerate(body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            return _first_line(ast.get_docstring(node))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == attribute:
            match body[place + 1]:
                case ast.Expr(ast.Constant(str(text))):
                    return _first_line(text)
    return ""


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]
