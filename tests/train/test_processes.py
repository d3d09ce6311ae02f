"""Two processes with the same global batch give the gradients of one."""

import os
import socket

import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors.torch import load_file, save_file
from support.runs import context


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_gradients(raw: dict, out: str, rank: int, world: int, port: int) -> None:
    """Train one step and write the gradients that the optimizer saw."""
    if world > 1:
        os.environ |= {"ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    import sipo.train.loop as loop
    from sipo.backbones.quiet import quiet_libraries
    from sipo.config import parse_config

    quiet_libraries()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    allows = loop.Guard.allows

    def record(self, step, pairs, ids, accelerator):
        if rank == 0 and step == 1:
            save_file(seen(), out)
        return allows(self, step, pairs, ids, accelerator)

    make, trained = loop.align_of, {}

    def align_of(*args):
        align = make(*args)
        trained.update(align.policy.trainable)
        return align

    def seen() -> dict[str, torch.Tensor]:
        return {name: weight.grad.clone() for name, weight in trained.items()}

    loop.align_of, loop.Guard.allows = align_of, record
    loop.train(parse_config(raw), Console(quiet=True))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run_processes(raw: dict, out: str, world: int) -> None:
    port = free_port()
    processes = [context.Process(target=first_gradients, args=(raw, out, rank, world, port)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * world


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_two_processes_give_the_gradients_of_one(raw_config, tmp_path, kind):
    gradients = {}
    for world, batch_size, accumulation in ((1, 4, 2), (2, 2, 2)):
        train = {**raw_config["train"], "num_steps": 2, "batch_size": batch_size, "gradient_accumulation": accumulation,
                 "validate_every": 1, "max_grad_norm": 1e9}  # fmt: skip
        raw = {**raw_config, "run": str(tmp_path / f"{world}"), "train": train, "policy": {"kind": kind}}
        raw["data"] = {**raw["data"], "validation": 0.3, "prompt_dropout": 0.5}
        run_processes(raw, str(tmp_path / f"{world}.safetensors"), world)
        gradients[world] = load_file(tmp_path / f"{world}.safetensors")
    one, two = gradients[1], gradients[2]
    scale = max(gradient.abs().max() for gradient in one.values())
    assert scale > 0
    for name, gradient in one.items():
        difference = (two[name] - gradient).norm() / gradient.norm().clamp(min=1e-4 * scale)
        assert difference < 1e-5, f"{name}: {difference:.2e}"
