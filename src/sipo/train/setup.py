"""What stands before the first step: device, pairs, cache, model, policy, the record of how the run was made."""

import json
import os
from typing import Any

import torch
from accelerate import Accelerator

from sipo.backbones import Backbone, load_backbone
from sipo.config import Config
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.losses import resolve_horizon
from sipo.run import RunDir, environment
from sipo.train.batch import Alignment, needs_reference_weight
from sipo.train.optim import make_optimizer
from sipo.train.policy import make_policy
from sipo.train.sharding import is_sharded, shard_policy
from sipo.train.zero import STAGES, ZeroOptimizer, uses_zero

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What accelerate reads to take model, backward and update over; the loop does these itself, and stops before an update.
ENGINES = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_FSDP": "accelerate's FSDP plugin",
           "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}  # fmt: skip


def make_accelerator(config: Config) -> Accelerator:
    """Device and processes.

    Raises UserError for fp16 without a GPU, which would train without a gradient scaler, and for an accelerate config
    that asks for an engine of its own.
    """
    train = config.train
    for variable, engine in ENGINES.items():
        if os.environ.get(variable, "").lower() in ("true", "1", "yes"):
            raise UserError(
                f"the launcher's config asks for {engine} ({variable}), which this loop does not use. To spread a model "
                "over GPUs, launch plain processes (distributed_type: MULTI_GPU) with train.sharding: full, or zero1 or "
                "zero2 for DeepSpeed's optimizer."
            )
    if train.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise UserError("train.mixed_precision: fp16 trains on a CUDA GPU only; use bf16, or no")
    if train.num_threads:
        torch.set_num_threads(train.num_threads)
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return Accelerator(mixed_precision=train.mixed_precision)


def load_model(config: Config, accelerator: Accelerator) -> Backbone:
    """The backbone on this process's device, frozen parts in the compute dtype; with a cache, no encoders in memory.

    What will be sharded stays on the CPU until then.
    """
    dtype = DTYPES[config.train.mixed_precision]
    device = torch.device("cpu") if is_sharded(config, accelerator) else accelerator.device
    return load_backbone(config.model, device, dtype, encoders=config.data.cache is None, size=config.data.size)


def align_of(config: Config, accelerator: Accelerator, backbone: Backbone) -> Alignment:
    """The policy on the backbone, ready to train."""
    train, loss = config.train, resolve_horizon(config.loss, config.num_inference_steps)
    policy = make_policy(backbone, config.policy, loss.needs_reference or needs_reference_weight(config), train.seed)
    if train.gradient_checkpointing:
        policy.denoiser.enable_gradient_checkpointing()
    if train.compile:
        policy.denoiser.compile()
    if is_sharded(config, accelerator):
        policy = shard_policy(policy, accelerator, DTYPES[train.mixed_precision])
        backbone.parts.freeze_encoders()  # where the denoiser is now
        return Alignment(config, backbone, policy, policy.denoiser, loss, accelerator, sharded=True)
    # DDP averages gradients; ZeRO does so itself, on the way to the process that keeps them.
    whole = uses_zero(config, accelerator.num_processes)
    model = policy.denoiser.to(accelerator.device) if whole else accelerator.prepare_model(policy.denoiser)
    return Alignment(config, backbone, policy, model, loss, accelerator)


def optimizer_of(align: Alignment) -> Any:
    """The optimizer over what is trained, or its share of it; clipping is the loop's, or with ZeRO the optimizer's."""
    train, weights = align.config.train, list(align.policy.trainable.values())
    optimizer = make_optimizer(train, weights, align.accelerator.device)
    if uses_zero(align.config, align.accelerator.num_processes):
        return ZeroOptimizer(optimizer, STAGES[train.sharding], train.max_grad_norm)
    return align.accelerator.prepare_optimizer(optimizer)


def record(run: RunDir, config: Config, accelerator: Accelerator, checked: dict[str, Any]) -> None:
    """Write config.yaml, env.json and data.json, once everything that can be checked has been."""
    run.write_config(config)
    write_atomic(run.env, json.dumps(environment(str(accelerator.device), accelerator.num_processes), indent=2))
    write_atomic(run.data, json.dumps(checked, indent=2))
