"""What all stages share: the loop with its checkpoints, the learning rate over time, the averaged weights, the log."""

import copy
import io
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sipo.files import write_atomic
from sipo.jsonl import append_jsonl, read_jsonl
from sipo.mini.recipe import Schedule


def train(
    networks: nn.Module,
    schedule: Schedule,
    loss: Callable[[int], dict[str, Tensor]],
    path: Path,
    report: Callable[[int, dict[str, float]], None],
    snapshot: Callable[[int, nn.Module], None] = lambda step, average: None,
    save_every: int = 100,
) -> nn.Module:
    """Train `networks`, or resume from the checkpoint `path`, to the schedule's last step; returns the averaged copy.

    `loss` returns the terms of a step's loss (scalars), "loss" their sum, every draw in it a function of the step, so
    that a resumed training equals an uninterrupted one. `snapshot` is called with the averaged networks whenever a
    checkpoint is written.
    """
    average = copy.deepcopy(networks).requires_grad_(False)
    state = load_state(path) or {"step": 0, "seconds": 0.0}
    if state["step"] >= schedule.num_steps:  # nothing else of the checkpoint is needed then
        average.load_state_dict(state["average"])
        return average.eval()
    optimizers = make_optimizers(networks, schedule)
    if state["step"]:
        networks.load_state_dict(state["networks"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    start = time.monotonic() - state["seconds"]
    for step in range(state["step"], schedule.num_steps):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * share_of_rate(step, schedule)
        terms = loss(step)
        terms["loss"].backward()
        norm = nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        _follow(average, networks, min(schedule.ema, (step + 1) / (step + 10)))
        report(step + 1, {name: float(term.detach()) for name, term in (terms | {"grad_norm": norm}).items()})
        if (step + 1) % save_every == 0 or step + 1 == schedule.num_steps:
            state = {"step": step + 1, "seconds": time.monotonic() - start}
            state |= {"optimizers": [optimizer.state_dict() for optimizer in optimizers]}
            save_state(path, state | {"networks": networks.state_dict(), "average": average.state_dict()})
            snapshot(step + 1, average)
    return average.eval()


def train_jointly(
    start: nn.ModuleDict,
    schedule: Schedule,
    terms: Callable[[nn.ModuleDict, int], dict[str, Tensor]],
    guide_weight: float | None,
    folder: Path,
    report: Callable[[int, dict[str, float]], None],
    snapshot: Callable[[int, nn.Module], None] = lambda step, average: None,
    compiled: bool = False,
    save_every: int = 100,
) -> nn.ModuleDict:
    """Train a copy of `start`, or resume from `folder`; returns the averaged (EMA) networks.

    `terms` returns a step's losses (scalars) of the networks given, the denoiser's first. `guide_weight` adds the others
    (that the encoder says what stands where, and that the denoiser's places look it up); None leaves them out.
    compiled: transformer blocks run as torch compiles them, which needs a C++ compiler.
    """
    networks = copy.deepcopy(start).train().requires_grad_(True)
    for name, module in networks.named_modules():
        if compiled and name.rpartition(".")[0].endswith("transformer_blocks"):
            module.compile()

    def loss(step: int) -> dict[str, Tensor]:
        found = terms(networks, step)
        denoising, *guides = found.values()
        if guide_weight is None:
            return {"loss": denoising}
        return {"loss": denoising + guide_weight * sum(guides), **found}

    with sdpa_kernel(
        SDPBackend.MATH
    ):  # a step of the flow transformer takes a quarter less than with torch's fused one
        average = train(networks, schedule, loss, folder / "state.pt", report, snapshot, save_every)
    assert isinstance(average, nn.ModuleDict)
    return average


@torch.no_grad()
def _follow(average: nn.Module, networks: nn.Module, decay: float) -> None:
    for mean, latest in zip(average.parameters(), networks.parameters(), strict=True):
        mean.lerp_(latest, 1 - decay)


def make_optimizers(networks: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices inside transformer blocks if the schedule has a learning rate for it."""
    matrices = [
        weight
        for name, weight in networks.named_parameters()
        if schedule.muon and weight.ndim == 2 and "transformer_blocks." in name
    ]
    taken = set(map(id, matrices))
    rest = [weight for weight in networks.parameters() if id(weight) not in taken]
    decay = schedule.weight_decay
    adamw = torch.optim.AdamW(rest, schedule.learning_rate, (0.9, 0.99), weight_decay=decay, fused=True)
    if not matrices:
        return [adamw]
    return [adamw, torch.optim.Muon(matrices, schedule.muon, decay, adjust_lr_fn="match_rms_adamw")]


def share_of_rate(step: int, schedule: Schedule) -> float:
    """Linear warm-up, 1, then linear to zero over the last `decay_share` of the steps. `step` counts from 0."""
    up = (step + 1) / schedule.warmup_steps
    down = (schedule.num_steps - step) / max(1.0, schedule.decay_share * schedule.num_steps)
    return min(1.0, up, down)


def save_state(path: Path, state: dict) -> None:
    """Write a checkpoint of tensors and plain values, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path) -> dict | None:
    return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


class Log:
    """Appends the mean of each metric to a JSON Lines file, and prints it, every `every` steps."""

    def __init__(self, path: Path, num_steps: int, console: Console, every: int = 25):
        self.path, self.num_steps, self.console, self.every = path, num_steps, console, every
        self.sums: dict[str, float] = {}
        self.count = 0
        self.start = time.monotonic()

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.count += 1
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if step % self.every and step != self.num_steps:
            return
        means = {name: round(total / self.count, 5) for name, total in self.sums.items()}
        pace = (time.monotonic() - self.start) / self.count
        line = {"step": step, **means, "seconds_per_step": round(pace, 3)}
        append_jsonl(self.path, [line])
        left = (self.num_steps - step) * pace / 60
        self.console.print(f"step {step}/{self.num_steps}  {means}  {pace:.2f} s/step, {left:.0f} min left")
        self.sums, self.count, self.start = {}, 0, time.monotonic()

    @staticmethod
    def tail(path: Path) -> dict:
        """The last line written: means over the last steps."""
        return read_jsonl(path)[-1] if path.is_file() else {}
