"""Out of memory, explained: what a step needs by the plan, and which change of the config spares how much of it."""

import contextlib
import os
from collections.abc import Iterator

from sipo.config import Config, parse_config
from sipo.config.reading import apply_override
from sipo.errors import UserError, is_out_of_memory, shortage_of
from sipo.plan.memory import Memory

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
    from sipo.plan.report import GIB, PARTS  # here: a training with memory enough makes no plan

    processes = int(os.environ.get("WORLD_SIZE", 1))
    try:
        need = step_memory(config, processes)
    except (UserError, RuntimeError):  # the meta device lacks a kernel of a family from elsewhere
        return f"{shortage_of(error)}\n" + "\n".join(
            ["try first:", *(f"  {' '.join(each)}" for each in switches(config))]
        )
    parts = sorted(((getattr(need, part), name) for part, name in PARTS.items()), reverse=True)[:SHOWN]
    listed = ", ".join(f"{size / GIB:.1f} {name}" for size, name in parts if size)
    lines = [
        shortage_of(error),
        f"A step needs about {need.total / GIB:.1f} GiB on each GPU by `sipo plan`: {listed}; sampling, and what it does "
        "not count (docs/plan.md), come on top.",
        "Try first, with what a step needs then:",
    ]
    for change in switches(config):
        raw = config.to_dict()
        for override in change:
            apply_override(raw, override)
        shards = change == SHARDED
        try:
            then = step_memory(parse_config(raw), max(processes, 2) if shards else processes)
        except (UserError, RuntimeError):
            continue  # keys that do not go together
        where = f" on each of {max(processes, 2)} GPUs" if shards else ""
        lines.append(f"  {' '.join(change):60} {then.total / GIB:.1f} GiB{where}")
    return "\n".join([*lines, "  a smaller data.resolution, or for videos data.num_frames"])


SHARDED = ["train.sharding=full"]


def switches(config: Config) -> list[list[str]]:
    """What spares memory and the config does not have, as on the command line; what costs least first."""
    train, full = config.train, config.policy.kind == "full"
    every = [
        (not train.gradient_checkpointing, ["train.gradient_checkpointing=true"]),
        (
            train.batch_size > 1,  # the same global batch
            ["train.batch_size=1", f"train.gradient_accumulation={train.gradient_accumulation * train.batch_size}"],
        ),
        (full, ["policy.kind=lora"]),
        (config.data.cache is None, ["data.cache=FOLDER"]),
        (full and config.runs_reference, ["train.reference.precompute=4"]),
        (train.sharding == "none", SHARDED),
    ]
    return [change for is_open, change in every if is_open]


def step_memory(config: Config, num_gpus: int) -> Memory:
    """Of one of so many GPUs, as the config lies over them. Raises UserError for what cannot be planned."""
    from sipo.plan.gpus import named_gpu
    from sipo.plan.plan import make_plan

    layouts = make_plan(config, named_gpu("h100"), [num_gpus]).layouts  # the GPU gives the time alone
    return layouts[-1 if config.train.sharding != "none" else 0].memory
