"""Scalars to TensorBoard, and to wandb or trackio where asked; metrics.jsonl is the record, these are views."""

from collections.abc import Iterator
from typing import Any

from sipo.config import Config
from sipo.errors import UserError
from sipo.run import RunDir


class Loggers:
    """The views that the config asks for; on resume they go on after `step`."""

    def __init__(self, run: RunDir, config: Config, step: int):
        self.writer = self.services = None
        if config.log.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run.tensorboard), purge_step=step + 1)
        self.services = [
            _service(name, project, run, config)
            for name, project in (("wandb", config.log.wandb), ("trackio", config.log.trackio))
            if project
        ]

    def write(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl; bins become one curve each."""
        scalars = dict(_scalars(line["kind"], line))
        for name, value in scalars.items():
            if self.writer:
                self.writer.add_scalar(name, value, line["step"])
        for service in self.services:
            service.log({**scalars, "step": line["step"]})

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        for service in self.services:
            service.finish()


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


def _service(name: str, project: str, run: RunDir, config: Config):
    try:
        module = __import__(name)
    except ImportError:
        raise UserError(f"log.{name}: {name} is not installed: pip install 'sipo[{name}]'") from None
    return module.init(project=project, name=run.path.name, config=config.to_dict(), resume="allow")
