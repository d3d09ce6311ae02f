"""`sipo plan --fit`: the cheapest set of switches by which a training fits a GPU, and what it costs in time."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations

from rich.console import Console
from rich.text import Text

from sipo.config import Config
from sipo.errors import UsageError
from sipo.plan.gpus import GPUS, Gpu
from sipo.plan.measure import Measurements
from sipo.plan.plan import Layout, Plan, make_plan
from sipo.plan.report import GIB, PARTS
from sipo.plan.switches import Switch, applied, switches

WORTH = 0.9  # of the time: how much faster a set that changes numbers is before it is named beside the first


@dataclass(frozen=True)
class Way:
    """A set of switches and the plan with it. layout: how it lies over the GPUs."""

    switches: list[Switch]
    plan: Plan
    layout: Layout

    @property
    def fits(self) -> bool:
        return self.plan.fits(self.layout)

    @property
    def changing(self) -> list[Switch]:
        """Those that change numbers."""
        return [switch for switch in self.switches if not switch.same]


@dataclass(frozen=True)
class Answer:
    """before: the config as it is. best: the cheapest way that fits, or None. faster: one that changes more numbers and takes less
    than `WORTH` of its time. least: the way that needs least memory."""

    before: Way
    best: Way | None
    faster: Way | None
    least: Way


def fit(config: Config, gpu: Gpu, num_gpus: int, measurements: Measurements | None = None) -> Answer:
    """Try every set of switches of which each is needed: those that change fewer numbers first, then by time, then by their order.

    measurements: of the same config, for other GPUs. Raises UserError for what cannot be planned.
    """
    measurements = measurements or Measurements()

    def way(chosen: list[Switch]) -> Way:
        now = applied(config, chosen)
        plan = make_plan(now, gpu, [num_gpus], measurements.of(now))
        return Way(chosen, plan, plan.layouts[-1 if now.train.sharding != "none" else 0])

    before = way([])
    if before.fits:
        return Answer(before, before, None, before)
    ways = [before]
    for chosen in _sets(config, num_gpus):
        try:
            ways.append(way(chosen))
        except UsageError:
            continue  # switches that exclude each other
    order = {switch: place for place, switch in enumerate(_all(config))}

    def numbers(way: Way) -> tuple:
        changing = [order[switch] for switch in way.changing]
        return max(changing, default=-1), len(changing)

    def cost(way: Way) -> tuple:
        return round(way.plan.seconds, 9), len(way.switches), [order[switch] for switch in way.switches]

    known = {frozenset(each.switches) for each in ways if each.fits}
    fitting = [
        each for each in ways if each.fits and not any({*each.switches} - {one} in known for one in each.switches)
    ]
    best = min(fitting, key=lambda each: (numbers(each), cost(each)), default=None)
    faster = None
    if best is not None:
        quicker = [each for each in fitting if each.plan.seconds < WORTH * best.plan.seconds]
        faster = min(quicker, key=lambda each: (numbers(each), cost(each)), default=None)
    return Answer(before, best, faster, min(ways, key=lambda each: (each.layout.memory.total, len(each.switches))))


def _all(config: Config) -> list[Switch]:
    """The switches of the config, and behind LoRA those that it opens."""
    own = switches(config)
    lora = next((switch for switch in own if switch.change == ("policy.kind=lora",)), None)
    return list(dict.fromkeys([*own, *(switches(applied(config, [lora])) if lora else [])]))


def _sets(config: Config, num_gpus: int) -> Iterator[list[Switch]]:
    """Every set but the empty one, in the order of the list, and none that sets one key twice."""
    found = [switch for switch in _all(config) if num_gpus > 1 or not switch.shards]
    for each in chain.from_iterable(combinations(found, n) for n in range(1, len(found) + 1)):
        keys = [override.partition("=")[0] for switch in each for override in switch.change]
        if len(keys) == len(set(keys)):
            yield list(each)


def render(answer: Answer, typed: str, console: Console) -> None:
    """typed: the config and its overrides, as they stand on the command line."""
    before, best, gpu = answer.before, answer.best, answer.before.plan.gpu

    def line(text: str | Text, style: str = "") -> None:
        console.print(text, style=style, highlight=False, soft_wrap=True)

    if before.fits:
        line(Text.assemble(("as it is, it fits", "green"), f": {_need(before)}"))
        return
    line(Text.assemble(("as it is, it does not fit", "red"), f": {_need(before)}"))
    if best is None:
        _nothing(answer, line)
        return
    line(Text.assemble(("it fits with", "green"), f": {_need(best)}; {_price(best, before)}"))
    _list(best, line)
    line(f"  {_command(best, typed)}", "bold")
    if answer.faster:
        line(f"faster, with numbers changed: {_need(answer.faster)}; {_price(answer.faster, before)}")
        _list(answer.faster, line)
        line(f"  {_command(answer.faster, typed)}", "bold")
    line(
        f"The time is a floor, of FLOPs, memory and PCI Express; {gpu.memory:g} GiB less 1 for CUDA count as the {gpu.name}'s.",
        "dim",
    )


def to_dict(answer: Answer) -> dict:
    """For `--json`: what to change, memory and seconds of each way."""
    ways = {"before": answer.before, "best": answer.best, "faster": answer.faster, "least": answer.least}
    return {
        name: way and {
            "overrides": [override for switch in way.switches for override in switch.change],
            "changes_numbers": bool(way.changing),
            "bytes_per_gpu": way.layout.memory.total,
            "seconds_per_step_at_least": way.plan.seconds,
            "fits": way.fits,
        }
        for name, way in ways.items()
    }  # fmt: skip


def _nothing(answer: Answer, line) -> None:
    least = answer.least
    line(
        Text.assemble(
            ("nothing fits", "red"),
            f": the least is {_need(least)}, with {' '.join(map(str, least.switches)) or 'no switch'}",
        )
    )
    size, part = max((getattr(least.layout.memory, part), name) for part, name in PARTS.items())
    line(f"  {size / GIB:.1f} GiB of it are {part}: "
         + ("a smaller data.resolution, or for videos data.num_frames, is what helps" if part == PARTS["activations"] else
            "a smaller model, or several GPUs: --gpus 8"))  # fmt: skip
    own = least.plan.gpu
    enough = sorted(
        (gpu for gpu in GPUS.values() if gpu.memory - 1 >= least.layout.memory.total / GIB and gpu.bf16 >= own.bf16),
        key=lambda gpu: gpu.memory,
    )
    line(f"  the smallest known GPU that it fits: {enough[0].name}" if enough else "  no known GPU has that much")


def _need(way: Way) -> str:
    where = f" on each of {way.layout.num_gpus}" if way.layout.num_gpus > 1 else ""
    return f"{way.layout.memory.total / GIB:.1f} of {way.plan.gpu.memory:g} GiB{where}, at least {way.plan.seconds:.3g} s a step"


def _price(way: Way, before: Way) -> str:
    return f"{way.plan.seconds / before.plan.seconds:.2f} x the time"


def _list(way: Way, line) -> None:
    for switch in way.switches:
        line(f"    {switch!s:55} {'' if switch.same else 'changes numbers: '}{switch.why}")


def _command(way: Way, typed: str) -> str:
    processes = way.layout.num_gpus
    launch = "sipo train" if processes == 1 else f"accelerate launch --num_processes {processes} -m sipo train"
    return " ".join([launch, typed, *map(str, way.switches)])
