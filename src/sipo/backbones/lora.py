"""Low-rank adapters on a denoiser, by peft: put on, switched off, merged, and written for plain diffusers."""

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from sipo.backbones.denoisers import by_part, networks_of, prefix_of
from sipo.backbones.lora_merge import FILE, Fitted, find_lora, fit, merge, read_lora_file
from sipo.backbones.lora_names import Form
from sipo.backbones.lora_write import own_form, write_lora
from sipo.errors import UserError

POLICY = "default"  # the adapters that are trained, by peft's own name for the first ones
_LAYERS: WeakKeyDictionary[nn.Module, list[BaseTunerLayer]] = WeakKeyDictionary()


def add_adapters(
    denoiser: nn.Module, targets: Sequence[str], rank: int, alpha: float, name: str = POLICY
) -> dict[str, nn.Parameter]:
    """Add y = W x + alpha / rank B A x to every target module, where B = 0 at first; the adapters' weights by name.

    The adapters are active from now on. The draws of A are torch's global ones; on the meta device there are none.
    Raises UserError for targets that the network does not have, or that cannot be adapted.
    """
    _LAYERS.pop(denoiser, None)
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

    Adapters that are still off at `backward()` would silently give zero gradients. The switch of peft's layers is set
    directly: its own methods walk through all modules and weights, which took a tenth of a small step.
    """
    layers = _adapted(denoiser)
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield denoiser
    finally:
        for layer in layers:
            layer._disable_adapters = False


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


def _adapted(denoiser: nn.Module) -> list[BaseTunerLayer]:
    """The layers with adapters, found once."""
    if denoiser not in _LAYERS:
        _LAYERS[denoiser] = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]
    return _LAYERS[denoiser]


@contextlib.contextmanager
def _same_gradients(denoiser: nn.Module) -> Iterator[None]:
    """peft marks adapters that are off as frozen, and those that are on as trained. A sharded network must not see that:
    in its first forward it decides which gradients it will reduce."""
    before = [(weight, weight.requires_grad) for weight in denoiser.parameters()]
    yield
    for weight, requires_grad in before:
        weight.requires_grad_(requires_grad)


def save_lora(
    parts: Iterable[str], denoiser: nn.Module, weights: dict[str, Tensor], folder: Path, form: Form | None = None
) -> None:
    """Write the adapters of the `parts`. `weights`: by their names in the denoiser.

    form: whose names (see `sipo.backbones.lora_write`); None for those that diffusers and, for U-Nets, ComfyUI and kohya's
    scripts read alike. Pipelines of several denoisers load one after the other, so those after the first have a folder of
    their own. Raises UserError for a form that has no names for this network.
    """
    first, *_ = parts
    for part, network, own in by_part(denoiser, parts, weights):
        state = get_peft_model_state_dict(network, state_dict=own, adapter_name=POLICY)
        metadata = network.peft_config[POLICY].to_dict()  # from which diffusers knows alpha
        metadata["target_modules"] = sorted(metadata["target_modules"])  # a set: its order differs from run to run
        path = folder if part == first else folder / part
        path.mkdir(parents=True, exist_ok=True)
        write_lora(path / FILE, first, network, state, metadata, form or own_form(network, state))


def read_lora(parts: Iterable[str], denoiser: nn.Module, folder: Path, alpha: float) -> dict[str, Tensor]:
    """The adapters that `save_lora` wrote, by the names that `add_adapters` gives them in the denoiser.

    Raises UserError for a missing or damaged file, or adapters of another alpha, which would act with another strength.
    """
    (first, *_), found = parts, {}
    for part, network in zip(parts, networks_of(denoiser), strict=True):
        path = (folder if part == first else folder / part) / FILE
        file = fit(read_lora_file(path), {first: network}, {})
        for name, target in file.targets.items():
            tensors, (module, *others) = file.file.modules[name], target.modules
            theirs = file.file.scale(name) * tensors["down"].shape[0]
            if not math.isclose(theirs, alpha):
                raise UserError(
                    f"{path}: these adapters have alpha {theirs:g}; policy.alpha is {alpha:g}: make them equal"
                )
            if others:
                raise UserError(f"{path}: {name} stands for several modules of the network: start from RUN/weights")
            for kind, letter in (("down", "A"), ("up", "B")):
                found[f"{prefix_of(denoiser, part)}{module}.lora_{letter}.{POLICY}.weight"] = tensors[kind]
    return found


def fit_lora(
    path: str | Path, parts: Iterable[str], denoiser: nn.Module, text_encoders: dict[str, nn.Module]
) -> list[tuple[str, Fitted]]:
    """The files of a LoRA, a part each (the first file may change text encoders too), and where their tensors belong.

    Those of later denoisers lie in folders named like the parts, beside the first one's file, as `save_lora` writes them.
    Raises UserError for a LoRA of another model, with the number of tensors that it has no place for, and for one that
    lacks the file of a denoiser.
    """
    first, *others = parts
    networks = dict(zip(parts, networks_of(denoiser), strict=True))
    file = find_lora(path)
    found = [(first, fit(read_lora_file(file), {first: networks[first]}, text_encoders))]
    for part in others:
        place = file.parent / part / FILE
        if not place.is_file():
            raise UserError(
                f"model.lora: {path} has {file.name} for the {first}, and lacks {part}/{FILE} beside it: each of this model's "
                f"{1 + len(others)} denoisers takes a LoRA of its own"
            )
        found.append((part, fit(read_lora_file(place), {first: networks[part]}, {})))
    if not any(fitted.reaches(first) for _, fitted in found):
        raise UserError(f"the LoRA {path} holds no weight for the denoiser of this model")
    return found


def merge_lora(found: list[tuple[str, Fitted]], parts: Iterable[str], denoiser: nn.Module) -> None:
    """Add a LoRA that fits to the denoiser's own weights, which then costs nothing more."""
    (first, *_), networks = parts, dict(zip(parts, networks_of(denoiser), strict=True))
    for part, fitted in found:
        merge(fitted, {first: networks[part]})
