"""Out of memory, explained: what a step needs by the plan, and which change of the config spares how much of it."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sipo.config import Config
from sipo.errors import UserError, is_out_of_memory, shortage_of
from sipo.plan.memory import Memory
from sipo.plan.switches import applied, switches

if TYPE_CHECKING:
    from sipo.plan.measure import Measured

SHOWN = 4  # parts of the memory


@contextlib.contextmanager
def explained(config: Config) -> Iterator[None]:
    """Around a training by `config`: running out of memory becomes a UserError that says what to change first."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(shortage(config, error)) from error


def shortage(config: Config, error: BaseException) -> str:
    """What could not be had, what a step needs by `sipo plan`, and the switches with what it would need by them."""
    from sipo.plan.measure import Measurements
    from sipo.plan.report import GIB, PARTS  # here: a training with memory enough makes no plan

    processes = int(os.environ.get("WORLD_SIZE", 1))
    try:
        measurements = Measurements()
        need = step_memory(config, processes, measurements.of(config))
    except (UserError, RuntimeError):  # the meta device lacks a kernel of a family from elsewhere
        return f"{shortage_of(error)}\n" + "\n".join(["try first:", *(f"  {each}" for each in switches(config))])
    parts = sorted(((getattr(need, part), name) for part, name in PARTS.items()), reverse=True)[:SHOWN]
    listed = ", ".join(f"{size / GIB:.1f} {name}" for size, name in parts if size)
    lines = [
        shortage_of(error),
        f"A step needs about {need.total / GIB:.1f} GiB on each GPU by `sipo plan`: {listed}; sampling, and what it does "
        "not count (docs/plan.md), come on top.",
        "Try first, with what a step needs then:",
    ]
    for switch in switches(config):
        gpus = max(processes, 2) if switch.shards else processes
        try:
            now = applied(config, [switch])
            then = step_memory(now, gpus, measurements.of(now))
        except (UserError, RuntimeError):
            continue  # keys that do not go together
        where = f" on each of {gpus} GPUs" if switch.shards else ""
        lines.append(f"  {switch!s:60} {then.total / GIB:.1f} GiB{where}")
    return "\n".join([*lines, "  a smaller data.resolution, or for videos data.num_frames"])


def step_memory(config: Config, num_gpus: int, measured: "Measured | None" = None) -> Memory:
    """Of one of so many GPUs, as the config lies over them. Raises UserError for what cannot be planned."""
    from sipo.plan.gpus import named_gpu
    from sipo.plan.plan import make_plan

    layouts = make_plan(config, named_gpu("h100"), [num_gpus], measured).layouts  # the GPU gives the time alone
    return layouts[-1 if config.train.sharding != "none" else 0].memory
