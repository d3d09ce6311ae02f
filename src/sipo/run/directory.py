"""The run directory: everything that a run writes, and the record of how it was made."""

import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sipo.errors import UsageError, UserError
from sipo.files import held, write_atomic
from sipo.jsonl import iter_jsonl, read_json
from sipo.yaml12 import read_mapping, write_yaml

if TYPE_CHECKING:
    from sipo.config import Config

FREE = {"run", "data.workers", "train.checkpoint_every", "train.keep_checkpoints", "train.sample_every", "train.validate_every",
        "log.tensorboard", "log.wandb", "log.trackio", "sample.batch_size", "model.offload"}  # fmt: skip
SAMPLING = {f"sample.{key}" for key in ("prompts", "num_prompts", "num_inference_steps", "guidance_scale", "seed")}
PLACES = {"data.path", "data.validation", "data.cache", "model.path", "model.vae", "model.lora", "policy.start"}
PACKAGES = ("sipo", "torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "numpy", "pillow")


@dataclass(frozen=True)
class RunDir:
    """Paths of a run, properties that return a `Path`. Training writes them, evaluation reads them; they meet nowhere else."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    config = property(lambda self: self.path / "config.yaml")
    env = property(lambda self: self.path / "env.json")
    inputs = property(lambda self: self.path / "inputs.json")  # fingerprints; see sipo.train.identity
    data = property(lambda self: self.path / "data.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    tensorboard = property(lambda self: self.path / "tensorboard")
    checkpoints = property(lambda self: self.path / "checkpoints")
    best = property(lambda self: self.path / "best")
    reference = property(lambda self: self.path / "reference")  # its errors, without a cache; see sipo.train.reference
    samples = property(lambda self: self.path / "samples")
    weights = property(lambda self: self.path / "weights")
    evaluation = property(lambda self: self.path / "evaluation")
    report = property(lambda self: self.path / "report.html")

    def require(self) -> "RunDir":
        """This run. Raises UserError if the folder holds none."""
        if not self.config.is_file():
            raise UserError(f"{self.path} is no run directory: it holds no config.yaml")
        return self

    def read_config(self) -> dict[str, Any]:
        """config.yaml as plain dictionaries. Raises UserError for a file that is damaged."""
        return read_mapping(self.config)

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of one kind (train, validation, score, warning) or all; a torn last line is ignored."""
        return [line for line in self.iter_metrics() if kind is None or line.get("kind") == kind]

    def iter_metrics(self) -> Iterator[dict[str, Any]]:
        """As `read_metrics`, one line at a time: a long run has gigabytes of them."""
        for _, line in iter_jsonl(self.metrics) if self.metrics.exists() else ():
            yield line

    def samples_at(self, step: int) -> Path:
        """The folder of the samples that were drawn after `step`."""
        return self.samples / f"{step:06d}"

    def sample_steps(self) -> list[int]:
        """Steps with a folder of samples, in order."""
        if not self.samples.is_dir():
            return []
        return sorted(int(folder.name) for folder in self.samples.iterdir() if folder.name.isdigit())

    def require_same_config(self, config: "Config", has_checkpoint: bool) -> None:
        """Compare the config with config.yaml, if it exists. Raises UsageError naming the changed keys.

        `train.num_steps` may grow; what changes no weights may change (loading, saving, looking, logging), and so may the
        place of the run and, where the run records what lay there (`inputs`), that of data and model. Without a
        checkpoint there is nothing to resume, so everything may change. A key that the file lacks, because it is of an
        earlier version, has its default.
        """
        from sipo.config import differences, parse_config  # here: reading a run needs no torch

        if not self.config.is_file() or not has_checkpoint:
            return
        free = FREE | (PLACES if self.inputs.is_file() else set())
        free |= set() if config.train.keep_best else SAMPLING  # these weights are chosen by samples
        before = self.read_config()
        with suppress(UsageError):  # a value that is refused by now is compared as it stands
            before = parse_config(before).to_dict()
        changed = [
            (key, old, now)
            for key, old, now in differences(before, config.to_dict())
            if not (key == "train.num_steps" and now > old)
            and not (key in free and (key not in PLACES or (isinstance(old, str) and isinstance(now, str))))
        ]
        if changed:
            listed = "\n".join(f"  {key}: {old!r} in the run, {now!r} now" for key, old, now in changed)
            raise UsageError(
                f"{self.path} was started with another config, and these keys shape its weights:\n{listed}\n"
                "Put the values back to resume, or choose another run directory (run=...)."
            )

    def is_complete(self, config: "Config") -> bool:
        """Whether nothing is left to do of this very config: its last step has a checkpoint, of which the weights are.

        Where `train.keep_best` chooses the weights, their step does not tell that, and the answer is no.
        """
        from sipo.config import parse_config

        steps = config.train.num_steps
        if config.train.keep_best or not (self.checkpoints / f"{steps:06d}" / "manifest.json").is_file():
            return False
        try:
            written = read_json(self.weights / "sipo.json")
            same = parse_config(self.read_config()).to_dict() == config.to_dict()
        except (OSError, UserError):  # a damaged file is for the training to judge
            return False
        return same and isinstance(written, dict) and written.get("step") == steps

    def has_current_report(self) -> bool:
        """Whether no other file of the run is younger than its report."""
        if not self.report.is_file():
            return False
        made = self.report.stat().st_mtime_ns
        files = (file for file in self.path.rglob("*") if file.is_file() and file.name != ".lock")
        return all(file.stat().st_mtime_ns <= made for file in files)

    def write_config(self, config: "Config") -> None:
        """Write config.yaml with every default written out."""
        write_atomic(self.config, write_yaml(config.to_dict()))

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run directory for this process. Raises UserError when another process trains into it."""
        return held(self.path, "training")


def environment(device: str, num_processes: int) -> dict[str, Any]:
    """Versions, machine and command of this process, for the run's record."""
    import torch

    found = {name: _version(name) for name in PACKAGES}
    return {
        "packages": {name: version for name, version in found.items() if version},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "num_processes": num_processes,
        "num_threads": torch.get_num_threads(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
