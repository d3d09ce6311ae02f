"""`sipo mini build`: the image miniature from nothing, in stages, each of which resumes where it was stopped."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from sipo.files import write_atomic
from sipo.mini.evaluation import category_scores
from sipo.mini.networks import Autoencoder, make_vae
from sipo.mini.pictures import encode_pool
from sipo.mini.pipeline import GUIDANCE_SCALE, NUM_INFERENCE_STEPS, assemble
from sipo.mini.prompts import sample_prompts
from sipo.mini.recipe import Flaws, Recipe
from sipo.mini.stages import Stages
from sipo.mini.train_text import train_text
from sipo.mini.train_unet import make_networks, train_unet
from sipo.mini.train_vae import train_vae

GLANCE = 60
"""Pictures sampled for the score at each snapshot."""

STAGES = {
    "vae": ("seed", "mixture", "vae", "kl", "vae_degraded"),
    "text": ("seed", "text"),
    "clean": (
        *("clean", "snr_gamma", "snr_power", "t_power", "prompt_dropout", "guide_weight", "lookup_heads", "pool_size"),
    ),
    "noisy": ("noisy", "noisy_data"),
}
"""The recipe's fields that each stage adds to those of the stages before it."""


def build(
    out: Path,
    work: Path | None = None,
    recipe: Recipe | None = None,
    device: str = "cpu",
    bf16: bool = True,
    snapshot_every: int = 500,
    num_scored: int = 1020,
    console: Console | None = None,
) -> dict:
    """Train all stages and write the pipeline (fp16) and record.json into `out`; returns the record.

    `work` (default: `out` with ".build" added) has one folder for each stage, with its checkpoint, its log and, for the
    denoiser, its pool of pictures, scores and a snapshot. The same call resumes from it. A call with another recipe is
    a `UserError`, unless the stages that differ have been removed; the numbers of steps may change. `bf16` computes in
    bfloat16 under autocast (weights stay float32).
    """
    out, recipe, console = Path(out), recipe or Recipe(), console or Console()
    stages = Stages(Path(work or out.with_name(out.name + ".build")), recipe, STAGES, console)
    vae = train_vae(recipe, *stages.open("vae"), device, bf16)
    reader = train_text(recipe, *stages.open("text"), device, bf16)
    networks = make_networks(recipe.seed, device)
    networks.load_state_dict(reader.state_dict(), strict=False)  # all but the denoiser
    trained = {}
    for name, flaws in (("clean", Flaws()), ("noisy", recipe.noisy_data)):
        folder, log = stages.open(name)
        pool = encode_pool(folder / "pool.safetensors", vae, recipe, flaws, device, bf16)
        snapshot = _snapshots(folder, vae, bf16, snapshot_every, console)
        networks = train_unet(
            networks, recipe, getattr(recipe, name), pool, folder, log, bf16, snapshot, name == "clean"
        )
        trained[name] = networks
    export(vae, networks, out)
    record = _record(stages, vae, trained, device, bf16, num_scored)
    write_atomic(out / "record.json", json.dumps(record, indent=2) + "\n")
    console.print(f"{out}: {_line(record['scores'])}")
    return record


def _snapshots(
    folder: Path, vae: Autoencoder, bf16: bool, every: int, console: Console
) -> Callable[[int, nn.Module], None]:
    """Writes the pipeline of a denoiser in training, and prints its scores on a few prompts, at regular steps."""

    def snapshot(step: int, average: nn.Module) -> None:
        if step % every == 0:
            pipeline = assemble(vae, average.get_submodule("unet"), average.get_submodule("text_encoder"))
            scores = category_scores(pipeline, sample_prompts(GLANCE, seed=step, split="heldout"), bf16)
            console.print(f"step {step}: {_line(scores)}")
            write_atomic(folder / f"scores-{step:06}.json", json.dumps(scores) + "\n")
            export(vae, average, folder / "snapshot")

    return snapshot


def export(vae: Autoencoder, networks: nn.Module, out: Path) -> None:
    """Write the pipeline in the diffusers layout, fp16 safetensors; the networks given stay unchanged."""
    copies = make_networks(0, "cpu")
    copies.load_state_dict(networks.state_dict())
    small_vae = make_vae()
    small_vae.load_state_dict(vae.state_dict())
    small_vae.register_to_config(scaling_factor=vae.config.scaling_factor)
    assemble(small_vae.half(), copies["unet"].half(), copies["text_encoder"].half()).save_pretrained(
        out, safe_serialization=True
    )
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)
    _load_in_float32(out / "text_encoder" / "config.json")


def _load_in_float32(path: Path) -> None:
    """Let plain diffusers open all parts alike: transformers would load half-precision weights as such, diffusers not."""
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    write_atomic(path, json.dumps(config, indent=2) + "\n")


def _record(
    stages: Stages, vae: Autoencoder, trained: dict[str, nn.ModuleDict], device: str, bf16: bool, num_scored: int
) -> dict:
    """What was done and how good it is; the clean stage's scores show what the model knew before the flaws."""
    started = time.monotonic()
    prompts = sample_prompts(num_scored, seed=0, split="heldout")
    scores = {
        name: category_scores(assemble(vae, each["unet"], each["text_encoder"]), prompts, bf16)
        for name, each in trained.items()
    }
    account = stages.account()
    account["seconds"]["scoring"] = round(time.monotonic() - started)
    return {
        "recipe": stages.recipe.to_dict(),
        "device": device,
        "bf16": bf16,
        "torch": torch.__version__,
        "scaling_factor": vae.config.scaling_factor,
        **account,
        "sampling": {"num_inference_steps": NUM_INFERENCE_STEPS, "guidance_scale": GUIDANCE_SCALE},
        "pictures_scored": num_scored,
        "scores": scores["noisy"],
        "scores_before_noise": scores["clean"],
        "notes": [],
    }


def _line(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
