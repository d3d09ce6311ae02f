"""What a run trains on and from, by content: a run resumes on the same pairs, base, LoRA, VAE and start, wherever they lie now."""

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

from sipo.backbones import Backbone
from sipo.config import Config
from sipo.errors import UsageError
from sipo.files import hash_files, write_atomic
from sipo.jsonl import read_object
from sipo.run import RunDir
from sipo.train.inputs import Rows
from sipo.train.policy import start_folder

SAMPLES = 64  # values of each tensor
COMMIT = (
    "the commit of "  # then the key: where its content lay on the hub, which does not decide whether it is the same
)


def identity(config: Config, train: Rows, validation: Rows | None, backbone: Backbone) -> dict[str, str]:
    """A fingerprint under the key of each input, of a backbone as it was loaded: before a policy is made of it.

    Encoders that a cache replaces are those by which it was made, as the run's record knows even where the cache is gone.
    """
    found = {"data.path": train.source.fingerprint}
    if validation and validation.source is not train.source:
        found["data.validation"] = validation.source.fingerprint
    lora = Path(config.model.lora) if config.model.lora else None
    for key, place in (("model.lora", lora), ("policy.start", start_folder(config.policy))):
        if place and place.exists():  # a LoRA of the hub is seen in the denoiser
            found[key] = hash_files([place] if place.is_file() else sorted(place.rglob("*.safetensors")))
    found["model.path"] = sampled(backbone.denoiser)
    for part in backbone.family.encoders:
        if isinstance(network := getattr(backbone.pipeline, part, None), nn.Module):
            found[_encoder(config, part)] = sampled(network)
    if config.data.cache:  # encoders stay on disk
        files = backbone.fingerprint()
        found |= {_encoder(config, part): files[part] for part in ("file", *backbone.family.encoders) if part in files}
    return found


def commits(train: Rows, validation: Rows | None) -> dict[str, str]:
    """Of the inputs that come from the hub, the commit that was read."""
    rows = {"data.path": train, "data.validation": validation}
    return {COMMIT + key: each.hub.commit for key, each in rows.items() if each and each.hub}


def _encoder(config: Config, part: str) -> str:
    """How a message calls a part of the model besides its denoiser."""
    return f"the {part} of model.{'vae' if part == 'vae' and config.model.vae else 'path'}"


def sampled(network: nn.Module) -> str:
    """128 bits of a network's names, shapes and evenly spaced values: equal for equal weights, however they are stored."""
    joint = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.flatten()[:: max(tensor.numel() // SAMPLES, 1)].to("cpu", torch.float64)
        joint.update(f"{name} {tuple(tensor.shape)}".encode() + values.numpy().tobytes())
    return joint.hexdigest()


def require_same_inputs(run: RunDir, found: dict[str, str], start: int, now: dict[str, str] | None = None) -> None:
    """Compare with what the run was trained on. Raises UsageError with the key of each input that is another one.

    now: the `commits` of today, with which a message says how to read again what the run has read. Runs of versions that recorded nothing resume as they did.
    """
    recorded = read_object(run.inputs) if start and run.inputs.exists() else None
    other = [key for key, value in found.items() if recorded and recorded.get(key, value) != value]
    if "model.lora" in other:
        other = [key for key in other if key != "model.path"]  # the base with another LoRA in it is another one too
    if other:
        listed = "\n".join(
            f"  {key}: other content than the run has been trained with up to step {start}"
            + _moved(key, recorded or {}, now or {})
            for key in other
        )
        raise UsageError(
            f"{run.path} was trained on something else:\n{listed}\n"
            "Put it back to resume, or choose another run directory (run=...)."
        )


def _moved(key: str, recorded: dict[str, str], now: dict[str, str]) -> str:
    """For what has another commit on the hub than it had: which one was read."""
    before, after = recorded.get(COMMIT + key), now.get(COMMIT + key)
    if before is None or before == after:
        return ""
    today = f", and there is {after} now" if after else ""
    return f" (commit {before} of the hub{today}): add @{before} after OWNER/NAME"


def write_inputs(run: RunDir, found: dict[str, str]) -> None:
    write_atomic(run.inputs, json.dumps(found, indent=2))
