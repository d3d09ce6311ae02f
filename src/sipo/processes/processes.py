"""The processes of a launch: which one this is, on which device, and how they exchange values."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from sipo.errors import UserError
from sipo.processes.meeting import Meeting
from sipo.progress import progress_bar

T = TypeVar("T")
MEETINGS: list[Meeting] = []  # the one that this process is in
CPU = torch.device("cpu")
LAUNCHERS = ("RANK", "LOCAL_", "WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_")
# What accelerate's launcher sets to take model, backward and update over. The loop does these itself, and looks at the
# gradients before an update.
LAUNCHER_ENGINES = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "accelerate's FSDP plugin",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


@dataclass(frozen=True)
class Processes:
    """This process among those that the launcher started. All of them call each method, in the same order."""

    device: torch.device = CPU
    rank: int = 0
    world: int = 1
    meeting: Meeting | None = None  # None: there is one process

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here, however long it takes. Raises UserError if one of them has ended."""
        if self.meeting:
            self.meeting.barrier()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The first process runs the context, then the others do, and find what it left."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def of_main(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, which alone does it; without collectives all do, the first one first."""
        if self.world == 1 or not dist.is_initialized():
            with self.main_first():
                return work()
        box: list[Any] = [work() if self.is_main else None]
        self.barrier()  # a collective has a time-out
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def share(self, units: Sequence[T]) -> Iterator[T]:
        """The units of work that are this process's: each is taken by one process, whoever is free, in their order.

        All processes are given the same units, such as the shards of a cache that are missing: find them before any
        process can have made one (`main_first`), and wait for all (`barrier`, `progress`) before reading what was made.
        A unit is what is computed at once, so its result is the same however many processes there are. The first units
        go to one process each. Raises UserError where another process has ended.
        """
        numbers = self.meeting.numbers(len(units)) if self.meeting else range(len(units))
        return (units[number] for number in numbers)

    @contextlib.contextmanager
    def progress(
        self, console: Console | None, text: str, total: int, completed: int = 0
    ) -> Iterator[Callable[[int], None]]:
        """A bar for what all processes do, drawn by the first one. All leave this context together.

        Yields the function that reports how many more items this process has done.
        """
        with progress_bar(console if self.is_main else None, text, total, completed) as advance:
            if self.meeting is None:
                yield advance
                return
            meeting, key, shown, mine, told = self.meeting, self.meeting.new_key("progress"), 0, 0, time.monotonic()

            def tell() -> None:
                nonlocal shown, mine, told
                done = meeting.add(key, mine)
                advance(done - shown)
                shown, mine, told = done, 0, time.monotonic()

            def count(more: int) -> None:
                nonlocal mine
                mine += more
                if time.monotonic() > told + 0.5:
                    tell()

            yield count
            tell()  # before the others see this process at the barrier
            meeting.barrier(tell)

    def gather(self, tensor: Tensor) -> Tensor:
        """Tensors of one shape, (world, ...) by rank, on the device."""
        if self.world == 1:
            return tensor[None]
        gathered = tensor.new_empty(self.world, *tensor.shape)
        dist.all_gather(list(gathered), tensor.contiguous())
        return gathered

    def gather_objects(self, value: Any) -> list[Any]:
        """Plain values, by rank."""
        if self.world == 1:
            return [value]
        self.barrier()  # a collective has a time-out, and some come late
        gathered = [None] * self.world
        dist.all_gather_object(gathered, value)
        return gathered


def batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Units of `size` items, the last one perhaps of fewer. Raises ValueError for a size below 1."""
    if size < 1:
        raise ValueError(f"The batch size must be at least 1, found {size}.")
    return [items[start : start + size] for start in range(0, len(items), size)]


ALONE = Processes()
"""One process on the CPU, which waits for nobody."""


@contextlib.contextmanager
def join_processes(collectives: bool = True) -> Iterator[Processes]:
    """Join the processes that torchrun or `accelerate launch` describe in the environment; leave them at the end.

    collectives: False where none are needed (`Processes.gather`), because processes only share work and wait. Raises
    UserError for more processes than GPUs, and where the launcher's config asks for an engine of its own.
    """
    for variable, engine in LAUNCHER_ENGINES.items():
        if collectives and _is_set(variable):
            raise UserError(
                f"the launcher's config asks for {engine} ({variable}), which this loop does not use. To shard a model "
                "over GPUs, launch plain processes (distributed_type: MULTI_GPU) with train.sharding: full or grads."
            )
    rank, local_rank, world = (
        int(os.environ.get(n, d)) for n, d in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))
    )
    found = None if _is_set("ACCELERATE_USE_CPU") else torch.accelerator.current_accelerator(check_available=True)
    device = found or CPU
    if world == 1:
        yield Processes(device)
        return
    if found:
        if local_rank >= torch.accelerator.device_count():
            raise UserError(
                f"process {local_rank} has no GPU of its own: this machine has {torch.accelerator.device_count()}. Launch "
                "as many processes"
            )
        torch.accelerator.set_device_index(local_rank)
        device = torch.device(found.type, local_rank)
    if MEETINGS:  # rounds of trainings have joined already
        yield Processes(device, rank, world, MEETINGS[-1])
        return
    joins = collectives and not dist.is_initialized()
    if joins:
        backend = dist.get_default_backend_for_device(device)
        dist.init_process_group(backend, device_id=device if found else None)
    meeting = Meeting(rank, world)
    MEETINGS.append(meeting)
    try:
        yield Processes(device, rank, world, meeting)
        meeting.close()
    except BaseException as error:
        meeting.close(str(error) or type(error).__name__)
        raise
    finally:
        MEETINGS.remove(meeting)
    if joins:  # not after an error: the other processes may be waiting in the group
        dist.destroy_process_group()


def environment_of_programs() -> dict[str, str]:
    """The variables for a program that this process starts: of several processes its own GPU alone, and nothing that
    their launcher says, since the program may launch processes itself."""
    found = dict(os.environ)
    if int(found.get("WORLD_SIZE", 1)) == 1:
        return found
    place, visible = int(found["LOCAL_RANK"]), found.get("CUDA_VISIBLE_DEVICES")
    found["CUDA_VISIBLE_DEVICES"] = str(place) if visible is None else (visible.split(",") + [""] * place)[place]
    return {name: value for name, value in found.items() if not name.startswith(LAUNCHERS)}


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1", "yes")
