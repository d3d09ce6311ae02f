"""Low-rank adapters on a denoiser, by peft: put on, switched off, merged, and written for plain diffusers."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import SafetensorError
from torch import Tensor, nn

from sipo.backbones.denoisers import by_part, networks_of
from sipo.errors import UserError

FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it


def add_adapters(denoiser: nn.Module, targets: Sequence[str], rank: int, alpha: float) -> None:
    """Freeze the denoiser and add y = W x + alpha / rank B A x to every target module, where B = 0 at first.

    The draws of A are torch's global ones; on the meta device there are none. Raises UserError for targets that the
    network does not have, or that cannot be adapted.
    """
    denoiser.requires_grad_(False)
    for network in networks_of(denoiser):
        on_meta = next(network.parameters()).is_meta
        try:
            with torch.device("meta") if on_meta else contextlib.nullcontext():
                scale: Any = alpha  # peft declares an int and takes any number
                network.add_adapter(LoraConfig(r=rank, lora_alpha=scale, target_modules=list(targets)))
        except ValueError as error:
            raise UserError(f"policy.target_modules: {error}") from error


@contextlib.contextmanager
def without_adapters(denoiser: nn.Module, trainable: Iterable[nn.Parameter]) -> Iterator[nn.Module]:
    """The denoiser as it was before training, for no-grad use; the adapters are on again when the context ends.

    Adapters that are still off at `backward()` would silently give zero gradients.
    """
    for network in networks_of(denoiser):
        network.disable_adapters()
    # peft marks adapters that are off as frozen. A sharded network must not see that: in its first forward it decides
    # which gradients it will reduce.
    for weight in trainable:
        weight.requires_grad_(True)
    try:
        yield denoiser
    finally:
        for network in networks_of(denoiser):
            network.enable_adapters()


def save_lora(
    pipeline: Any, parts: Iterable[str], denoiser: nn.Module, weights: dict[str, Tensor], folder: Path
) -> None:
    """Write the adapters of the `parts` for `load_lora_weights`. `weights`: by their names in the denoiser.

    Pipelines of several denoisers load one after the other, so those after the first have a folder of their own.
    """
    first, *_ = parts
    for part, network, own in by_part(denoiser, parts, weights):
        state = get_peft_model_state_dict(network, state_dict=own, adapter_name="default")
        metadata = network.peft_config["default"].to_dict()  # from which diffusers knows alpha
        metadata["target_modules"] = sorted(metadata["target_modules"])  # a set: its order differs from run to run
        layers = {
            f"{first}_lora_layers": {name: weight.contiguous() for name, weight in state.items()},
            f"{first}_lora_adapter_metadata": metadata,
        }
        path = folder if part == first else folder / part
        type(pipeline).save_lora_weights(path, safe_serialization=True, **layers)


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
