"""Bytes by part on one GPU, and what data-parallel copies or sharding make of them.

Not counted: the CUDA context (0.5 to 1 GB), fragmentation, workspaces of convolutions and matrix products, NCCL's
buffers, gradients of activations in flight, and what sampling and validation need besides (they run without gradients,
but read the encoders back into memory).
"""

from dataclasses import dataclass, fields, replace

BLOCK_8BIT = 256  # bitsandbytes: entries that share one float32 scale
SMALLEST_8BIT = 4096  # bitsandbytes: smaller tensors keep float32 states


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU.

    `weights`: frozen ones in their dtype. `trained`: float32 masters of what is trained. `weight_copies`: the trained
    weights in the autocast dtype, kept from forward to backward. `reference`: the frozen copies of full fine-tuning.
    `gradients`, `optimizer`, `average` (EMA): of the trained weights. `encoders`: VAE and text encoders, without a cache.
    `activations`: of one micro-batch. `communication`: gradient buckets of DDP, or the block that sharding gathers.
    """

    weights: int
    trained: int
    weight_copies: int
    reference: int
    gradients: int
    optimizer: int
    average: int
    encoders: int
    activations: int
    communication: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def adamw_bytes(sizes: list[int]) -> int:
    """State of torch's AdamW: two float32 moments an entry, and a float32 step count a tensor. `sizes`: their entries."""
    return sum(8 * size + 4 for size in sizes)


def adamw8bit_bytes(sizes: list[int]) -> int:
    """State of bitsandbytes' AdamW8bit: two bytes an entry and two scales a block; small tensors stay float32."""
    return sum(
        8 * size if size < SMALLEST_8BIT else 2 * size + 2 * 4 * -(-size // BLOCK_8BIT) for size in sizes
    )  # fmt: skip


def data_parallel(one: Memory, num_gpus: int) -> Memory:
    """Each of N GPUs holds everything; DDP reduces gradients in buckets that are copies of them."""
    return replace(one, communication=one.gradients if num_gpus > 1 else 0)


def sharded(one: Memory, num_gpus: int, block: int) -> Memory:
    """Weights, reference, gradients, optimizer and average divided by N, as FSDP2's `fully_shard` on every block.

    `block`: bytes of the largest block, gathered while it runs (in the compute dtype, with its gradients where it is
    trained); it takes the place of the autocast copies. The next block, which FSDP2 prefetches, is not counted.
    """
    if num_gpus == 1:
        return one
    parts = ("weights", "trained", "reference", "gradients", "optimizer", "average")
    divided = {name: -(-getattr(one, name) // num_gpus) for name in parts}
    return replace(one, **divided, weight_copies=0, communication=block)
