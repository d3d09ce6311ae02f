"""The result of a run: weights for plain diffusers, with a card that records how they were made."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from sipo.backbones import Backbone
from sipo.backbones.lora_names import Form
from sipo.config import Config, parse_config
from sipo.errors import UserError
from sipo.files import removed_on_error, room_in, sync_directory, write_atomic
from sipo.run import RunDir
from sipo.run.record import best_score
from sipo.train.best import read_best
from sipo.train.card import model_card
from sipo.train.checkpoint import load_checkpoint, saved_steps
from sipo.train.policy import RECORD, Policy, make_policy, save_policy


def write_weights(
    policy: Policy, backbone: Backbone, config: Config, folder: Path, step: int, weights: dict[str, Tensor],
    form: Form | None = None,
) -> None:  # fmt: skip
    """Replace `folder` by the policy's weights and their model card; a kill leaves the old folder or the new one.

    `weights`: the trained ones by name, unsharded. form: whose names the adapters have (see `Backbone.save_lora`).
    """
    size = sum(weight.nbytes for weight in weights.values())
    with _replaced(folder, size, config, backbone, step, config.policy.kind, form) as temporary:
        save_policy(policy, backbone, temporary, weights, form)


def write_merged(backbone: Backbone, config: Config, folder: Path, step: int) -> None:
    """Write the whole pipeline of a backbone into which the run's adapters were merged, with its card."""
    size = sum(weight.nbytes for weight in backbone.denoiser.parameters())
    with _replaced(folder, size, config, backbone, step, "full", None) as temporary:
        backbone.save_full(temporary, {})


@contextlib.contextmanager
def _replaced(
    folder: Path, size: int, config: Config, backbone: Backbone, step: int, kind: str, form: Form | None
) -> Iterator[Path]:
    """A new folder for weights of `size` bytes, which takes the place of `folder` once the context ends, with its card."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with room_in(folder.parent, size), removed_on_error(temporary):
        temporary.mkdir(parents=True)
        yield temporary
        write_atomic(temporary / "README.md", model_card(config, backbone, step, kind == "lora", form))
        write_atomic(temporary / RECORD, json.dumps({"base": config.model.path, "kind": kind, "step": step}))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    sync_directory(folder.parent)


def export(
    run: RunDir, step: int | None, out: Path, best: bool = False, form: Form | None = None, merge: bool = False
) -> int:
    """Write the weights of a kept checkpoint (the newest by default), or the best ones, to `out`; returns their step.

    Where the run keeps a moving average, that is what is written. form: whose names the adapters have. merge: write the
    whole pipeline, the adapters (and those of `model.lora`) merged into it; to an `out` that ends in .safetensors, as one
    file under the original code's names. Raises UserError for a step that is not kept, a run without held-out scores, an
    `out` that exists, a form without names for the network, or a family without a file of its own.
    """
    from sipo.backbones import load_backbone

    config = parse_config(run.require().read_config(), str(run.config))
    if form and (merge or config.policy.kind == "full"):
        raise UserError("--format says how adapters are written; the whole pipeline is in diffusers' layout")
    one_file, whole = out.suffix == ".safetensors", merge or config.policy.kind == "full"
    if one_file and not whole:
        raise UserError(f"{out} would be one checkpoint file: add --merge, or name a folder for the adapters")
    steps = saved_steps(run.checkpoints)
    if not steps:
        raise UserError(f"{run.path} has no checkpoint yet: `sipo train` writes one every train.checkpoint_every steps")
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
    if merge and config.policy.kind == "lora":
        with tempfile.TemporaryDirectory() as adapters:
            save_policy(policy, backbone, Path(adapters), policy.state())
            backbone = load_backbone(config.model, size=config.data.size)
            backbone.merge_lora(adapters)
    if one_file:
        backbone.save_single_file(out, {"base_model": config.model.path, "step": str(at)})
    elif merge and config.policy.kind == "lora":
        write_merged(backbone, config, out, at)
    else:
        write_weights(policy, backbone, config, out, at, policy.state(), form)
    return at
