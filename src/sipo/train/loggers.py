"""Scalars to TensorBoard, and to wandb or trackio where asked; metrics.jsonl is the record, these are views."""

import importlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from sipo.config import Config
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.run import RunDir


def require_services(config: Config) -> None:
    """UserError where a service that the config asks for is not installed."""
    for name in ("wandb", "trackio"):
        if getattr(config.log, name):
            _module(name)


class Loggers:
    """The views that the config asks for; on resume after `step` they go on, steps that are redone come twice there."""

    def __init__(self, run: RunDir, config: Config, step: int):
        self.writer = None
        if config.log.tensorboard:
            from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
            from torch.utils.tensorboard import SummaryWriter

            self.writer, self.summary = SummaryWriter(str(run.tensorboard), purge_step=step + 1), Summary
        self.services: list[Callable[..., Any]] = []
        self.endings: list[Callable[[], Any]] = []
        for begin, project in ((_wandb, config.log.wandb), (_trackio, config.log.trackio)):
            if project:
                log, finish = begin(project, run, config, step)
                self.services.append(log)
                self.endings.append(finish)

    def write(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl; bins become one curve each."""
        scalars = dict(_scalars(line["kind"], line))
        if self.writer:  # one event for all scalars, of which there are up to 140
            values = [self.summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
            self.writer._get_file_writer().add_summary(self.summary(value=values), line["step"])
        for log in self.services:
            log(scalars, line["step"])

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        for finish in self.endings:
            finish()


def _wandb(project: str, run: RunDir, config: Config, step: int):
    """Goes on by an id, which the run directory keeps. Its own step cannot go back, so ours is a metric of its own."""
    wandb = _module("wandb")
    place = run.path / "wandb.id"
    if step == 0 or not place.is_file():
        write_atomic(place, secrets.token_hex(8))
    service = wandb.init(project=project, name=run.path.name, id=place.read_text(encoding="utf-8"), resume="allow",
                         dir=str(run.path), config=config.to_dict())  # fmt: skip
    service.define_metric("*", step_metric="step")
    return lambda scalars, at: service.log({**scalars, "step": at}), service.finish


def _trackio(project: str, run: RunDir, config: Config, step: int):
    """Goes on by the run's name, which a new run may share with an older one."""
    trackio = _module("trackio")
    service = trackio.init(project=project, name=run.path.name, resume="allow" if step else "never",
                           config=config.to_dict())  # fmt: skip
    return lambda scalars, at: service.log(scalars, step=at), service.finish


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"log.{name}: {name} is not installed: pip install 'sipo[{name}]'") from None


def _scalars(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if name == "bins":
            for metric in (key for key in value if key not in ("edges", "count")):
                for left, mean in zip(value["edges"], value[metric], strict=False):
                    if mean is not None:
                        yield f"bins/{metric}/t{left:03.0f}", mean
        elif isinstance(value, dict):
            yield from _scalars(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and name != "step":
            yield f"{prefix}/{name}", value
