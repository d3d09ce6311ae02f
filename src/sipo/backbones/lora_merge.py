"""LoRA files as people have them, added to a network's own weights: every tensor is used, or the file is refused.

LoRA (Hu et al. 2021):   dW = alpha / r  up down; of a convolution with a core (`mid`), its Tucker form
LoHa (Hyeon-Woo et al. 2022): dW = alpha / r  (w1_a w1_b) * (w2_a w2_b), element by element
LoKr (Yeh et al. 2024):  dW = alpha / r  w1 (x) w2, a Kronecker product of factors that may be products themselves (then r is
                         their inner side; without any, the scale is 1)
DoRA (Liu et al. 2024):  W' = m (W + dW) / |W + dW|, norms by output, or by input where m has that shape
"""

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn

from sipo.backbones.lora_names import Target, names_of_denoiser, names_of_text_encoder
from sipo.backbones.quantize import QuantizedLinear
from sipo.errors import UserError, printable, well_formed
from sipo.files import visible
from sipo.lfs import refuse_pointers
from sipo.tensors import open_tensors

FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it
KINDS = {  # the ends of tensors' names, in every program's spelling
    "down": ("lora_down.weight", "lora_A.weight", "lora_A.default.weight", "lora.down.weight", "lora_linear_layer.down.weight"),
    "up": ("lora_up.weight", "lora_B.weight", "lora_B.default.weight", "lora.up.weight", "lora_linear_layer.up.weight"),
    "mid": ("lora_mid.weight",),
    "alpha": ("alpha",),
    "magnitude": ("dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight"),
    **{name: (f"hada_{name}",) for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"kron_{name}": (f"lokr_{name}",) for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
}  # fmt: skip
ENDS = {f".{end}": kind for kind, ends in KINDS.items() for end in ends} | {
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
}
FACTORS = [({f"kron_w{n}"}, {f"kron_w{n}_a", f"kron_w{n}_b"}) for n in (1, 2)]
NEEDED = ({"down", "up"}, {"w1_a", "w1_b", "w2_a", "w2_b"}, *(one | two for one in FACTORS[0] for two in FACTORS[1]))


@dataclass(frozen=True)
class LoraFile:
    """Tensors by the module that they name and their kind of `KINDS`; `other`: names that are of no kind."""

    path: Path
    modules: dict[str, dict[str, Tensor]]
    other: list[str]
    metadata: dict[str, Any]  # what diffusers wrote of peft's config, by part

    @property
    def num_tensors(self) -> int:
        return len(self.other) + sum(map(len, self.modules.values()))

    def scale(self, module: str) -> float:
        """alpha / rank: of the module's own alpha, else of diffusers' metadata, else 1."""
        tensors = self.modules[module]
        inner = next((tensors[kind] for kind in ("down", "w1_b", "kron_w2_b", "kron_w1_b") if kind in tensors), None)
        if inner is None:  # a product of whole factors
            return 1.0
        rank = inner.shape[0]
        if "alpha" in tensors:
            return float(tensors["alpha"]) / rank
        part, _, name = module.partition(".")
        patterns = self.metadata.get(f"{part}.alpha_pattern") or {}
        found = next((value for key, value in patterns.items() if re.search(rf"(^|\.){key}$", name)), None)
        alpha = found if found is not None else self.metadata.get(f"{part}.lora_alpha", rank)
        return alpha / (math.sqrt(rank) if self.metadata.get(f"{part}.use_rslora") else rank)


def find_lora(path: str | Path) -> Path:
    """The file of a LoRA: itself, or the one in a folder or hub repository. Raises UserError where it is not clear."""
    place = Path(path)
    if not place.exists():
        try:
            place = Path(snapshot_download(str(path), allow_patterns="*.safetensors"))
        except (OSError, ValueError) as error:
            raise UserError(f"model.lora: {path} is neither a file or folder here nor a hub id in reach") from error
    if place.is_file():
        refuse_pointers([place])
        return place
    found = [place / FILE] if (place / FILE).is_file() else visible(place, place.glob("*.safetensors"))
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "none"
        raise UserError(f"model.lora: {path} should hold {FILE} or one .safetensors file; it holds {listed}")
    refuse_pointers(found)
    return found[0]


def read_lora_file(path: Path) -> LoraFile:
    """Raises UserError for a damaged or pickled file."""
    with open_tensors(path) as file, well_formed(f"the LoRA {path}"):
        metadata: dict[str, Any] = dict(json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}")))
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    modules: dict[str, dict[str, Tensor]] = defaultdict(dict)
    other = []
    for key, tensor in tensors.items():
        end = next((end for end in ENDS if key.endswith(end)), None)
        if end is None:
            other.append(key)
        else:
            modules[key.removesuffix(end)][ENDS[end]] = tensor
    return LoraFile(path, dict(modules), other, metadata)


@dataclass(frozen=True)
class Fitted:
    """A file whose every tensor has its place: the target of each of its modules."""

    file: LoraFile
    targets: dict[str, Target]

    def reaches(self, part: str) -> bool:
        return any(target.part == part for target in self.targets.values())


def fit(file: LoraFile, denoisers: dict[str, nn.Module], text_encoders: dict[str, nn.Module]) -> Fitted:
    """Where each module of the file belongs; networks may lie on the meta device.

    Raises UserError with the number of tensors that would be left over, and for those whose shapes do not fit.
    """
    names: dict[str, Target] = {}
    for part, network in text_encoders.items():
        names |= names_of_text_encoder(part, network)
    for part, network in denoisers.items():
        names |= names_of_denoiser(part, network)
    known = {name: tensors for name, tensors in file.modules.items() if name in names and _is_whole(tensors)}
    left = [
        *file.other,
        *(f"{name}.{kind}" for name in file.modules.keys() - known.keys() for kind in file.modules[name]),
    ]
    if left:
        raise UserError(
            f"the LoRA {file.path} does not fit this model: {len(left)} of its {file.num_tensors} tensors would be left over, "
            f"such as {min(left)}. LoRA, DoRA, LoHa and LoKr on linear and convolution layers are read"
        )
    if known and not any(file.scale(name) for name in known):
        raise UserError(f"the LoRA {file.path} would change nothing: its alpha is 0 in every module")
    networks = {**denoisers, **text_encoders}
    targets = {name: names[name] for name in known}
    for name, target in targets.items():
        shape = _stacked_shape(networks[target.part], target)
        try:
            found = delta_shape(known[name], shape)
        except (RuntimeError, IndexError) as error:
            raise UserError(
                f"the LoRA {file.path}: the tensors of {name} do not fit each other ({printable(error)})"
            ) from error
        if found != shape:
            raise UserError(
                f"the LoRA {file.path} does not fit this model: {name} is for a weight of {found}, not {shape}"
            )
    return Fitted(file, targets)


def _is_whole(tensors: dict[str, Tensor]) -> bool:
    kinds = set(tensors) - {"alpha", "magnitude", "mid", "t1", "t2", "kron_t2"}
    return kinds in NEEDED


def _stacked_shape(network: nn.Module, target: Target) -> tuple[int, ...]:
    shapes = [_weight(network, module).shape for module in target.modules]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _weight(network: nn.Module, module: str) -> Tensor:
    found: Any = network.get_submodule(module)
    layer = getattr(found, "base_layer", found)
    if isinstance(layer, QuantizedLinear):
        raise UserError(f"{module} is quantised, and no LoRA is merged into it: merge into the model as it was loaded")
    return layer.weight


def delta_shape(tensors: dict[str, Tensor], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the weight that the tensors change, read as that of a linear layer where that is the weight's."""
    if "up" in tensors:
        rows, columns = tensors["up"].shape[0], tensors["down"].shape[1:]
        core = tensors["mid"].shape[2:] if "mid" in tensors else columns[1:]
        found = (rows, columns[0], *core)
    elif "w1_a" not in tensors:
        found = tuple(_kronecker({kind: tensor.to("meta") for kind, tensor in tensors.items()}).shape)
    elif "t1" in tensors:
        found = (tensors["w1_a"].shape[1], tensors["w1_b"].shape[1], *tensors["t1"].shape[2:])
    else:
        found = (tensors["w1_a"].shape[0], tensors["w1_b"].shape[1])
    flat = (found[0], math.prod(found[1:]))
    return shape if flat == (shape[0], math.prod(shape[1:])) else found


def delta(tensors: dict[str, Tensor], scale: float, weight: Tensor) -> Tensor:
    """dW in float32, in the shape of `weight`, from tensors in its dtype, as peft computes it."""
    low = {kind: tensor.to(weight.dtype).float() for kind, tensor in tensors.items() if kind != "alpha"}
    if "up" in low and "mid" in low:
        up, down = low["up"].flatten(1), low["down"].flatten(1)
        found = torch.einsum("or,rshw,si->oihw", up, low["mid"], down)
    elif "up" in low:
        found = low["up"].flatten(1) @ low["down"].flatten(1)
    elif "w1_a" not in low:
        found = _kronecker(low)
    elif "t1" in low:
        one, two = (torch.einsum("rshw,si,ro->oihw", low[f"t{n}"], low[f"w{n}_b"], low[f"w{n}_a"]) for n in (1, 2))
        found = one * two
    else:
        found = (low["w1_a"] @ low["w1_b"]) * (low["w2_a"] @ low["w2_b"])
    return found.reshape(weight.shape) * scale


def _kronecker(low: dict[str, Tensor]) -> Tensor:
    """w1 (x) w2 of LoKr (LyCORIS: functional/lokr.py)."""
    one = low["kron_w1"] if "kron_w1" in low else low["kron_w1_a"] @ low["kron_w1_b"]
    if "kron_w2" in low:
        two = low["kron_w2"]
    elif "kron_t2" in low:
        two = torch.einsum("rshw,si,ro->oihw", low["kron_t2"], low["kron_w2_b"], low["kron_w2_a"]).contiguous()
    else:
        two = low["kron_w2_a"] @ low["kron_w2_b"]
    return torch.kron(one.reshape(*one.shape, *[1] * (two.ndim - one.ndim)), two)


@torch.no_grad()
def merge(fitted: Fitted, networks: dict[str, nn.Module]) -> None:
    """Change the weights of those `networks`; targets in other parts are passed over."""
    for name, target in fitted.targets.items():
        if target.part not in networks:
            continue
        tensors = fitted.file.modules[name]
        weights = [_weight(networks[target.part], module) for module in target.modules]
        whole = torch.cat([weight.data for weight in weights]) if len(weights) > 1 else weights[0].data
        change = delta(tensors, fitted.file.scale(name), whole)
        magnitude = tensors.get("magnitude")
        changed = whole + change.to(whole.dtype) if magnitude is None else _with_magnitude(whole, change, magnitude)
        for weight, rows in zip(weights, changed.split([len(weight) for weight in weights]), strict=True):
            weight.data.copy_(rows)


def _with_magnitude(weight: Tensor, change: Tensor, magnitude: Tensor) -> Tensor:
    """DoRA: each output's row (or, of LyCORIS' older files, each input's column) scaled to its magnitude."""
    summed = weight.float() + change
    by_input = (
        magnitude.ndim > 1 and magnitude.shape[0] == 1 and magnitude.shape[1] == weight.shape[1] != weight.shape[0]
    )
    flat = summed.transpose(0, 1).flatten(1) if by_input else summed.flatten(1)
    norms = flat.norm(dim=1)
    shape = [1] * weight.ndim
    shape[1 if by_input else 0] = -1
    return (summed * (magnitude.float().flatten() / norms).view(shape)).to(weight.dtype)
