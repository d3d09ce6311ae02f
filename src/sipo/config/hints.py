"""What an unknown key probably means: a near one of its section, another tool's name for one, or a key of another section."""

import dataclasses
import difflib
import typing
from typing import Any

from sipo.config.sections import COMPONENTS, Config

FOREIGN = {  # of diffusers' scripts, TRL, kohya and SalesforceAIResearch/DiffusionDPO
    "loss": {"beta_dpo": "beta", "dpo_beta": "beta", "temperature": "beta", "type": "name", "loss_type": "name",
             "clip": "clip_range", "epsilon": "clip_range", "threshold": "prune_threshold", "tau": "prune_threshold"},
    "kernel": {"steps": "num_inference_steps", "num_steps": "num_inference_steps", "k": "num_inference_steps"},
    "timesteps": {"min": "low", "max": "high", "min_timestep": "low", "max_timestep": "high", "start": "low", "end": "high"},
    "policy": {"r": "rank", "lora_r": "rank", "lora_rank": "rank", "network_dim": "rank", "dim": "rank", "type": "kind",
               "lora_alpha": "alpha", "network_alpha": "alpha", "modules": "target_modules"},
    "sample": {"steps": "num_inference_steps", "num_steps": "num_inference_steps", "cfg": "guidance_scale",
               "cfg_scale": "guidance_scale", "prompt_file": "prompts"},
    "train": {"lr": "learning_rate", "steps": "num_steps", "max_steps": "num_steps", "max_train_steps": "num_steps",
              "epochs": "num_steps", "num_train_epochs": "num_steps", "max_train_epochs": "num_steps", "iterations": "num_steps",
              "train_batch_size": "batch_size", "per_device_train_batch_size": "batch_size", "bs": "batch_size",
              "gradient_accumulation_steps": "gradient_accumulation", "accumulate": "gradient_accumulation",
              "lr_warmup_steps": "warmup_steps", "warmup": "warmup_steps", "scheduler": "lr_scheduler",
              "lr_scheduler_type": "lr_scheduler", "adam_beta1": "betas", "adam_beta2": "betas", "adam_epsilon": "epsilon",
              "eps": "epsilon", "adam_weight_decay": "weight_decay", "wd": "weight_decay", "grad_clip": "max_grad_norm",
              "clip_grad": "max_grad_norm", "use_8bit_adam": "optimizer", "precision": "mixed_precision", "fp16": "mixed_precision",
              "bf16": "mixed_precision", "use_ema": "ema_decay", "ema": "ema_decay", "threads": "num_threads",
              "checkpointing_steps": "checkpoint_every", "save_every": "checkpoint_every", "save_steps": "checkpoint_every",
              "checkpoints_total_limit": "keep_checkpoints", "save_total_limit": "keep_checkpoints",
              "validation_steps": "validate_every", "eval_steps": "validate_every", "logging_steps": "sample_every",
              "precompute_ref_log_probs": "reference.precompute"},
    "data": {"res": "resolution", "size": "resolution", "image_size": "resolution", "dataset": "path", "dataset_name": "path",
             "train_data_dir": "path", "frames": "num_frames", "num_workers": "workers", "dataloader_num_workers": "workers",
             "max_train_samples": "max_pairs", "limit": "max_pairs", "random_flip": "flip", "center_crop": "crop",
             "random_crop": "crop", "cache_dir": "cache", "proportion_empty_prompts": "prompt_dropout"},
    "model": {"name": "path", "pretrained_model_name_or_path": "path", "model_name_or_path": "path", "base": "path",
              "pretrained_vae_model_name_or_path": "vae", "torch_dtype": "dtype", "guidance_scale": "guidance"},
    "log": {"report_to": "tensorboard", "wandb_project": "wandb", "project": "wandb"},
    "": {"output_dir": "run", "out": "run", "name": "run", "objective": "loss", "scheduler": "timesteps", "dataset": "data",
         "lora": "policy", "network": "policy", "training": "train", "optimizer": "train", "logging": "log", "sampling": "sample"},
}  # fmt: skip


def hint(section: str, key: object, known: list[str]) -> str:
    """The end of a message about an unknown key of `section` ("" for the top level), whose keys are `known`."""
    name = str(key)
    elsewhere = _every_key()
    if f"{section}.{name}" in elsewhere:  # of a component that was not chosen
        return (
            f"; another {section} has it, this one has: {', '.join(known) or 'no keys'} "
            f"({section}='{{name: NAME}}' replaces the whole section)"
        )
    equal = [path for path in elsewhere if path.rpartition(".")[2] == name]
    if here := FOREIGN.get(section, {}).get(name.lower()) or (None if equal else _near(name, known)):
        return f"; did you mean {here}?"
    foreign = [f"{other}.{names[name.lower()]}" for other, names in FOREIGN.items() if other and name.lower() in names]
    found = equal or foreign
    if not found:
        nearest = _near(name, [path.rpartition(".")[2] for path in elsewhere], 0.8)
        found = [path for path in elsewhere if path.rpartition(".")[2] == nearest]
    if found:
        return f"; did you mean {' or '.join(dict.fromkeys(found[:2]))}?"
    return f"; known: {', '.join(known)}"


def _near(name: str, known: list[str], cutoff: float = 0.6) -> str | None:
    """The most similar name, else the one that `name` abbreviates."""
    if close := difflib.get_close_matches(name, known, n=1, cutoff=cutoff):
        return close[0]
    short = [each for each in known if len(name) > 2 and (each.startswith(name) or name in each.split("_"))]
    return short[0] if len(short) == 1 else None


def _every_key() -> list[str]:
    """All keys of all sections, those of the package's own components included, as section.key."""
    found = []
    for section, kind in typing.get_type_hints(Config).items():
        kinds: Any = COMPONENTS[section].own().values() if section in COMPONENTS else [kind]
        found += [
            f"{section}.{f.name}" for each in kinds if dataclasses.is_dataclass(each) for f in dataclasses.fields(each)
        ]
    return list(dict.fromkeys([*found, "kernel.num_inference_steps"]))
