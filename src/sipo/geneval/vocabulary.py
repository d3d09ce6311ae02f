"""GenEval's words and metadata (djghosh13/geneval: prompts/create_prompts.py), its plain plurals included ("sheeps")."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sipo.samples.metadata import RELATIONS

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""COCO's 80 classes in COCO's order, under GenEval's names (evaluation/object_names.txt)."""


@dataclass(frozen=True)
class World:
    """What prompts are made of. `colorless` objects never get a colour; `colored_counts` allows "two red circles"."""

    objects: tuple[str, ...]
    colors: tuple[str, ...] = COLORS
    counts: tuple[int, ...] = (2, 3, 4)
    relations: tuple[str, ...] = RELATIONS
    colorless: tuple[str, ...] = ()
    colored_counts: bool = False
    plurals: Mapping[str, str] = field(default_factory=dict)  # where they are not GenEval's

    @property
    def colorable(self) -> tuple[str, ...]:
        return tuple(name for name in self.objects if name not in self.colorless)

    def plural(self, name: str) -> str:
        return self.plurals.get(name) or (f"{name}es" if name[-1] == "s" else f"{name}s")


GENEVAL = World(COCO, colorless=("person",))
"""GenEval's own: COCO's objects in ten colours."""


def clause(name: str, color: str | None = None, count: int = 1) -> dict:
    """An object that a picture must show, `count` times, in its colour if it has one."""
    return {"class": name, "count": count} | ({"color": color} if color else {})


def single(thing: dict) -> dict:
    """The entry for one object, of "single_object" or, if it has a colour, of "colors"."""
    tag = "colors" if "color" in thing else "single_object"
    return {"tag": tag, "include": [thing], "prompt": f"a photo of {_phrase(thing)}"}


def both(first: dict, second: dict) -> dict:
    """The entry for two objects, of "two_object" or, if one has a colour, of "color_attr"."""
    tag = "color_attr" if "color" in first or "color" in second else "two_object"
    return {"tag": tag, "include": [first, second], "prompt": f"a photo of {_phrase(first)} and {_phrase(second)}"}


def counted(things: dict, world: World = GENEVAL) -> dict:
    """The entry for `count` of an object and no more. GenEval's own counting prompts have no colours."""
    name, count = things["class"], things["count"]
    words = " ".join([NUMBERS[count], *([things["color"]] if "color" in things else []), world.plural(name)])
    exclude = [{"class": name, "count": count + 1}]
    return {"tag": "counting", "include": [things], "exclude": exclude, "prompt": f"a photo of {words}"}


def placed(thing: dict, relation: str, target: dict) -> dict:
    """The entry for `thing` in `relation` to `target`, whose clause comes first."""
    include = [target, thing | {"position": [relation, 0]}]
    prompt = f"a photo of {_phrase(thing)} {relation} {_phrase(target)}"
    return {"tag": "position", "include": include, "prompt": prompt}


def _phrase(thing: dict) -> str:
    words = f"{thing['color']} {thing['class']}" if "color" in thing else thing["class"]
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"
