"""The result of a run: weights for plain diffusers, with a card that records how they were made."""

import json
import os
import shutil
from pathlib import Path

from torch import Tensor

from sipo.backbones import Backbone
from sipo.config import Config, parse_config
from sipo.errors import UserError
from sipo.files import removed_on_error, room_in, sync_directory, write_atomic
from sipo.registry import miniature
from sipo.run import RunDir
from sipo.run.record import best_score
from sipo.train.best import read_best
from sipo.train.checkpoint import load_checkpoint, saved_steps
from sipo.train.policy import RECORD, Policy, make_policy, save_policy
from sipo.yaml12 import write_yaml


def write_weights(
    policy: Policy, backbone: Backbone, config: Config, folder: Path, step: int, weights: dict[str, Tensor]
) -> None:
    """Replace `folder` by the policy's weights and their model card; a kill leaves the old folder or the new one.

    `weights`: the trained ones by name, unsharded.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    size = sum(weight.nbytes for weight in weights.values())
    with room_in(folder.parent, size), removed_on_error(temporary):
        temporary.mkdir(parents=True)
        save_policy(policy, backbone, temporary, weights)
        write_atomic(temporary / "README.md", model_card(config, step))
        record = {"base": config.model.path, "kind": config.policy.kind, "step": step}
        write_atomic(temporary / RECORD, json.dumps(record))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    sync_directory(folder.parent)


def export(run: RunDir, step: int | None, out: Path, best: bool = False) -> int:
    """Write the weights of a kept checkpoint (the newest by default), or the best ones, to `out`; returns their step.

    Where the run keeps a moving average, that is what is written. Raises UserError for a step that is not kept, a run
    without held-out scores, or an `out` that exists.
    """
    from sipo.backbones import load_backbone

    config = parse_config(run.require().read_config(), str(run.config))
    steps = saved_steps(run.checkpoints)
    if not steps:
        raise UserError(f"{run.path} has no checkpoint yet")
    if out.exists():
        raise UserError(f"{out} exists already; choose another folder")
    if best:
        found = best_score(run.read_metrics("score"))
        if found is None:
            raise UserError(f"{run.path} has no held-out scores: train.keep_best makes them")
        at: int = found["step"]
        weights = read_best(run.best, at)
    else:
        checkpoint = load_checkpoint(run.checkpoints, steps[-1] if step is None else step)
        at, weights = checkpoint.step, checkpoint.ema or checkpoint.weights
    backbone = load_backbone(config.model, size=config.data.size)
    policy = make_policy(backbone, config.policy, needs_reference=False, seed=config.train.seed)
    policy.load_state(weights)
    write_weights(policy, backbone, config, out, at, policy.state())
    return at


def model_card(config: Config, step: int) -> str:
    """Markdown with the hub's front matter: base, data, objective, how to load."""
    is_lora = config.policy.kind == "lora"
    base, name = config.model.path, type(config.loss).__name__
    front = {"base_model": base, "library_name": "diffusers", "tags": ["sipo", name.lower(), "preference-optimization"]}
    if is_lora:
        front["tags"].append("lora")
    load = f'DiffusionPipeline.from_pretrained("{"path/to/" if miniature(base) else ""}{base}")\n' \
        'pipeline.load_lora_weights("path/to/this/folder")' if is_lora else \
        'DiffusionPipeline.from_pretrained("path/to/this/folder")'  # fmt: skip
    settings = write_yaml(config.to_dict())
    return (
        f"---\n{write_yaml(front)}---\n\n# {base} aligned with {name}\n\n"
        f"{'LoRA adapter' if is_lora else 'Full pipeline'} after {step} steps on the preference pairs "
        f"`{config.data.path}`, trained with `sipo`.\n\n"
        f"```python\nfrom diffusers import DiffusionPipeline\n\npipeline = {load}\n```\n\n"
        f"## Settings\n\n```yaml\n{settings}```\n"
    )
