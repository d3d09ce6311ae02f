"""Low-rank adapters on a denoiser, by peft: put on, switched off, merged, and written for plain diffusers."""

import contextlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sipo.backbones.denoisers import by_part, networks_of, prefix_of
from sipo.errors import UserError

POLICY = "default"  # the adapters that are trained, by peft's own name for the first ones
FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it


def add_adapters(
    denoiser: nn.Module, targets: Sequence[str], rank: int, alpha: float, name: str = POLICY
) -> dict[str, nn.Parameter]:
    """Add y = W x + alpha / rank B A x to every target module, where B = 0 at first; the adapters' weights by name.

    The adapters are active from now on. The draws of A are torch's global ones; on the meta device there are none.
    Raises UserError for targets that the network does not have, or that cannot be adapted.
    """
    for network in networks_of(denoiser):
        on_meta = next(network.parameters()).is_meta
        try:
            with torch.device("meta") if on_meta else contextlib.nullcontext(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several adapters are meant
                scale: Any = alpha  # peft declares an int and takes any number
                network.add_adapter(LoraConfig(r=rank, lora_alpha=scale, target_modules=list(targets)), name)
        except ValueError as error:
            raise UserError(f"policy.target_modules: {error}") from error
    return {key: weight for key, weight in denoiser.named_parameters() if f".{name}." in key}


@contextlib.contextmanager
def without_adapters(denoiser: nn.Module) -> Iterator[nn.Module]:
    """The denoiser as it was before training, for no-grad use; the policy's adapters are on again when the context ends.

    Adapters that are still off at `backward()` would silently give zero gradients.
    """
    with _same_gradients(denoiser):
        for network in networks_of(denoiser):
            network.disable_adapters()
    try:
        yield denoiser
    finally:
        with _same_gradients(denoiser):
            for network in networks_of(denoiser):
                network.enable_adapters()


@contextlib.contextmanager
def with_adapters(denoiser: nn.Module, name: str) -> Iterator[nn.Module]:
    """The denoiser with other adapters than the policy's, for no-grad use; those are on again when the context ends."""
    activate(denoiser, name)
    try:
        yield denoiser
    finally:
        activate(denoiser, POLICY)


def activate(denoiser: nn.Module, name: str) -> None:
    """Let the adapters of that name act alone; which weights take gradients does not change."""
    with _same_gradients(denoiser):
        for network in networks_of(denoiser):
            network.set_adapter(name)


@contextlib.contextmanager
def _same_gradients(denoiser: nn.Module) -> Iterator[None]:
    """peft marks adapters that are off as frozen, and those that are on as trained. A sharded network must not see that:
    in its first forward it decides which gradients it will reduce."""
    before = [(weight, weight.requires_grad) for weight in denoiser.parameters()]
    yield
    for weight, requires_grad in before:
        weight.requires_grad_(requires_grad)


def save_lora(
    pipeline: Any, parts: Iterable[str], denoiser: nn.Module, weights: dict[str, Tensor], folder: Path
) -> None:
    """Write the adapters of the `parts` for `load_lora_weights`. `weights`: by their names in the denoiser.

    Pipelines of several denoisers load one after the other, so those after the first have a folder of their own.
    """
    first, *_ = parts
    for part, network, own in by_part(denoiser, parts, weights):
        state = get_peft_model_state_dict(network, state_dict=own, adapter_name=POLICY)
        metadata = network.peft_config[POLICY].to_dict()  # from which diffusers knows alpha
        metadata["target_modules"] = sorted(metadata["target_modules"])  # a set: its order differs from run to run
        layers = {
            f"{first}_lora_layers": {name: weight.contiguous() for name, weight in state.items()},
            f"{first}_lora_adapter_metadata": metadata,
        }
        path = folder if part == first else folder / part
        type(pipeline).save_lora_weights(path, safe_serialization=True, **layers)


def read_lora(parts: Iterable[str], denoiser: nn.Module, folder: Path, alpha: float) -> dict[str, Tensor]:
    """The adapters that `save_lora` wrote, by the names that `add_adapters` gives them in the denoiser.

    Raises UserError for a missing or damaged file, or adapters of another alpha, which would act with another strength.
    """
    (first, *_), found = parts, {}
    for part in parts:
        path = (folder if part == first else folder / part) / FILE
        try:
            with safe_open(path, "pt") as file:
                written = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
                weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dictionary
        except (OSError, SafetensorError, ValueError) as error:
            raise UserError(f"{path} cannot be read as the adapters of a run: {error}") from error
        theirs = written.get(f"{first}.lora_alpha", alpha)
        if theirs != alpha:
            raise UserError(f"{path}: these adapters have alpha {theirs:g}; policy.alpha is {alpha:g}: make them equal")
        for key, weight in weights.items():
            name = re.sub(r"\.(lora_[AB])\.", rf".\1.{POLICY}.", key.removeprefix(f"{first}."))
            found[prefix_of(denoiser, part) + name] = weight
    return found


def merge_lora(pipeline: Any, parts: Iterable[str], denoiser: nn.Module, path: str | Path) -> None:
    """Add an adapter, as `save_lora` wrote it, to the denoiser's own weights, which then costs nothing more.

    Raises UserError for an adapter of another model; diffusers alone would warn and continue without it.
    """
    kind, (_, *others) = type(pipeline).__name__, parts
    try:
        pipeline.load_lora_weights(path)
        for part in others:
            # Not as a subfolder: diffusers prefers a file of that name in the folder itself.
            pipeline.load_lora_weights(path, weight_name=f"{part}/{FILE}", **{f"load_into_{part}": True})
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        detail = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{path} does not fit this {kind}: {detail}") from error
    if not any("lora_" in name for name, _ in denoiser.named_parameters()):
        raise UserError(f"the LoRA {path} holds no weight for the denoiser of this {kind}")
    pipeline.fuse_lora(**({"components": list(parts)} if others else {}))
    pipeline.unload_lora_weights()
