"""Named GPUs: peak dense matrix throughput and memory.

TFLOP/s are the vendor's data-sheet peaks without sparsity, at the boost clock, with float32 accumulation: `half` on
tensor cores in float16 (and bfloat16 where `bf16`), `single` in float32 outside of them, as torch multiplies float32 by
default (TF32 is off). Memory is what the driver reports, in GiB. `bandwidth` is the same sheets' of the memory, `pcie` that of
PCI Express with 16 lanes of its generation in one direction (3: 16, 4: 32, 5: 64), both in GB/s.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from sipo.errors import UsageError

Precision = Literal["no", "fp16", "bf16"]


@dataclass(frozen=True)
class Gpu:
    """`half`, `single`: TFLOP/s; `memory`: GiB; `bandwidth`, `pcie`: GB/s; `bf16`: whether its tensor cores take bfloat16."""

    name: str
    half: float
    single: float
    memory: float
    bandwidth: float
    pcie: float
    bf16: bool = True

    def peak(self, mixed_precision: Precision) -> float:
        """FLOP/s at a compute dtype. Raises UsageError for bfloat16 where tensor cores do not take it."""
        if mixed_precision == "bf16" and not self.bf16:
            raise UsageError(f"{self.name} has no bfloat16 tensor cores; plan with train.mixed_precision=fp16")
        return 1e12 * (self.single if mixed_precision == "no" else self.half)


_TABLE = (
    Gpu("b200", 2250.0, 75.0, 179.1, 8000, 64),  # NVIDIA Blackwell architecture technical brief, HGX B200, per GPU
    Gpu("h200", 989.4, 66.9, 140.4, 4800, 64),  # NVIDIA H200 data sheet, SXM (the sheet's 1,979 is with sparsity)
    Gpu("h100", 989.4, 66.9, 79.6, 3350, 64),  # NVIDIA H100 Tensor Core GPU Architecture, table 2, SXM5
    Gpu("h100-pcie", 756.4, 51.2, 79.6, 2000, 64),  # the same table, PCIe
    Gpu("a100-80", 312.0, 19.5, 80.0, 2039, 32),  # NVIDIA A100 data sheet, 80 GB
    Gpu("a100-40", 312.0, 19.5, 40.0, 1555, 32),  # the same, 40 GB
    Gpu("l40s", 362.1, 91.6, 45.0, 864, 32),  # NVIDIA L40S data sheet (733 with sparsity)
    Gpu("l4", 121.0, 30.3, 22.5, 300, 32),  # NVIDIA L4 data sheet (242 with sparsity)
    Gpu("a6000", 154.8, 38.7, 48.0, 768, 32),  # NVIDIA Ampere GA102 whitepaper, RTX A6000
    Gpu("a10", 125.0, 31.2, 22.5, 600, 32),  # NVIDIA A10 data sheet
    Gpu("rtx4090", 165.2, 82.6, 24.0, 1008, 32),  # NVIDIA Ada GPU architecture whitepaper, FP16 with FP32 accumulation
    Gpu("rtx3090", 71.0, 35.6, 24.0, 936, 32),  # NVIDIA Ampere GA102 whitepaper, FP16 with FP32 accumulation
    Gpu("v100-32", 125.0, 15.7, 32.0, 900, 16, bf16=False),  # NVIDIA V100 data sheet, SXM2
    Gpu("v100-16", 125.0, 15.7, 16.0, 900, 16, bf16=False),  # the same, 16 GB
    Gpu("t4", 65.0, 8.1, 15.0, 320, 16, bf16=False),  # NVIDIA T4 data sheet
)
GPUS = {gpu.name: gpu for gpu in _TABLE}


def named_gpu(name: str) -> Gpu:
    """The GPU of that name. Raises UsageError that names the nearest one."""
    key = name.lower().replace(" ", "").replace("_", "-")
    if key in GPUS:
        return GPUS[key]
    starting = [known for known in GPUS if known.startswith(key) or key.startswith(known)]
    near = starting[:1] or difflib.get_close_matches(key, GPUS, n=1, cutoff=0.4)
    hint = f" did you mean {near[0]}?" if near else ""
    raise UsageError(f"--gpu: {name!r} is not known;{hint} known are {', '.join(GPUS)}")
