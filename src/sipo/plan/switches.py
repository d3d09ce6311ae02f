"""What spares memory, as typed on the command line: the one list that `sipo plan --fit` and out-of-memory errors read."""

from dataclasses import dataclass

from sipo.config import Config, parse_config
from sipo.config.reading import apply_override


@dataclass(frozen=True)
class Switch:
    """change: overrides of the config. why: what it does. same: whether the result stays that of the config, to rounding."""

    change: tuple[str, ...]
    why: str
    same: bool = True

    @property
    def shards(self) -> bool:
        """Whether it needs several GPUs."""
        return self.change == ("train.sharding=full",)

    def __str__(self) -> str:
        return " ".join(self.change)


def switches(config: Config) -> list[Switch]:
    """Those that the config does not have; the ones that leave the result alone first, of either kind what costs least first.

    Some exclude each other, or need one that stands before them: `applied` finds out.
    """
    train, model = config.train, config.model
    full, free = config.policy.kind == "full", model.quantize is None and model.offload is None
    accumulation = train.gradient_accumulation * train.batch_size
    every = [
        (not train.gradient_checkpointing, Switch(
            ("train.gradient_checkpointing=true",), "keeps the blocks' inputs, and runs their forward again")),
        (train.batch_size > 1, Switch(
            ("train.batch_size=1", f"train.gradient_accumulation={accumulation}"), "one pair at a time, the same global batch")),
        (config.data.cache is None, Switch(
            ("data.cache=FOLDER",), "latents and texts are encoded once; no encoder is in memory")),
        (not full and free, Switch(
            ("model.offload=blocks",), "frozen blocks come from the CPU when they run; it needs gradient checkpointing")),
        (full and free and config.runs_reference, Switch(
            ("model.offload=reference",), "the reference's blocks come from the CPU when they run")),
        (train.sharding == "none", Switch(
            ("train.sharding=full",), "weights, gradients and moments are spread over the GPUs")),
        (train.optimizer == "adamw", Switch(
            ("train.optimizer=adamw8bit",), "the optimizer's moments in 8 bits", same=False)),
        (full and config.runs_reference, Switch(
            ("train.reference.precompute=4",), "4 fixed draws of each pair, whose reference is computed once", same=False)),
        (full, Switch(
            ("policy.kind=lora",), "adapters of policy.rank instead of all weights, at a learning rate for adapters", same=False)),
        (free, Switch(
            ("model.quantize=int8",), "the frozen linear layers in 8 bits", same=False)),
        (free, Switch(
            ("model.quantize=nf4",), "the frozen linear layers in 4 bits; needs bitsandbytes", same=False)),
    ]  # fmt: skip
    return [switch for is_open, switch in every if is_open]


def applied(config: Config, chosen: list[Switch]) -> Config:
    """The config with these switches. Raises UsageError where they do not go together."""
    raw = config.to_dict()
    for switch in chosen:
        for override in switch.change:
            apply_override(raw, override)
    return parse_config(raw)
