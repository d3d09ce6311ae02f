"""`sipo mini build`: the image miniature from nothing, in stages, each of which resumes where it was stopped."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.mini.evaluation import category_scores
from sipo.mini.networks import Autoencoder, make_vae
from sipo.mini.pictures import encode_pool
from sipo.mini.pipeline import GUIDANCE_SCALE, NUM_INFERENCE_STEPS, assemble
from sipo.mini.prompts import sample_prompts
from sipo.mini.recipe import MIXTURE, Flaws, Recipe, Schedule
from sipo.mini.train_text import train_text
from sipo.mini.train_unet import make_networks, train_unet
from sipo.mini.train_vae import train_vae
from sipo.mini.training import Log, load_state

GLANCE = 60
"""Pictures sampled for the score at each snapshot."""

STAGES = {
    "vae": ("seed", "vae", "kl", "vae_degraded"),
    "text": ("seed", "text"),
    "clean": ("clean", "snr_gamma", "snr_power", "prompt_dropout", "pool_size"),
    "noisy": ("noisy", "noisy_data"),
}
"""The recipe's fields that each stage adds to those of the stages before it."""


@dataclass(frozen=True)
class Workshop:
    """Where a build keeps its stages, and how it computes. `bf16`: bfloat16 under autocast, weights in float32."""

    work: Path
    recipe: Recipe
    device: str = "cpu"
    bf16: bool = True
    snapshot_every: int = 500
    console: Console = field(default_factory=Console)

    def stage(self, name: str) -> tuple[Path, Log]:
        """The stage's folder, held to its part of the recipe, and its log. Raises `UserError` for another recipe."""
        folder, schedule = self.work / name, getattr(self.recipe, name)
        _claim(folder / "recipe.json", _part(self.recipe, name))
        self.console.print(f"{name}: {schedule.num_steps} steps of {schedule.batch_size}")
        return folder, Log(folder / "log.jsonl", schedule.num_steps, self.console)

    def snapshots(self, name: str, vae: Autoencoder) -> Callable[[int, nn.Module], None]:
        """Writes the pipeline of a denoiser in training, and prints its scores on a few prompts."""

        def snapshot(step: int, average: nn.Module) -> None:
            if step % self.snapshot_every == 0:
                pipeline = assemble(vae, average.get_submodule("unet"), average.get_submodule("text_encoder"))
                scores = category_scores(pipeline, sample_prompts(GLANCE, seed=step, split="heldout"), self.bf16)
                self.console.print(f"step {step}: {_line(scores)}")
                write_atomic(self.work / name / f"scores-{step:06}.json", json.dumps(scores) + "\n")
                export(vae, average, self.work / name / "snapshot")

        return snapshot


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
    a `UserError`, unless the stages that differ have been removed; the numbers of steps may change.
    """
    out = Path(out)
    work = Path(work or out.with_name(out.name + ".build"))
    shop = Workshop(work, recipe or Recipe(), device, bf16, snapshot_every, console or Console())
    folder, log = shop.stage("vae")
    vae = train_vae(shop.recipe, folder, device, bf16, log)
    folder, log = shop.stage("text")
    networks = make_networks(shop.recipe.seed, device)
    reader = train_text(shop.recipe, folder, device, bf16, log)
    networks["text_encoder"].load_state_dict(reader["text_encoder"].state_dict())
    clean = _denoise(shop, "clean", networks, vae, Flaws())
    noisy = _denoise(shop, "noisy", clean, vae, shop.recipe.noisy_data)
    export(vae, noisy, out)
    record = _record(shop, vae, {"clean": clean, "noisy": noisy}, num_scored)
    write_atomic(out / "record.json", json.dumps(record, indent=2) + "\n")
    shop.console.print(f"{out}: {_line(record['scores'])}")
    return record


def _denoise(shop: Workshop, name: str, start: nn.ModuleDict, vae: Autoencoder, flaws: Flaws) -> nn.ModuleDict:
    """One stage of the denoiser, from `start`, on a pool of its own."""
    folder, log = shop.stage(name)
    recipe, device, bf16 = shop.recipe, shop.device, shop.bf16
    pool = encode_pool(folder / "pool.safetensors", vae, recipe.pool_size, recipe.seed, flaws, device, bf16)
    schedule: Schedule = getattr(recipe, name)
    return train_unet(start, recipe, schedule, pool, folder, bf16, log, shop.snapshots(name, vae))


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


def _part(recipe: Recipe, stage: str) -> dict:
    """What of the recipe this stage and those before it depend on, numbers of steps aside."""
    names = list(STAGES)[: list(STAGES).index(stage) + 1]
    stepless = replace(recipe, **{name: replace(getattr(recipe, name), num_steps=0) for name in names}).to_dict()
    return {key: stepless[key] for name in names for key in STAGES[name]}


def _claim(path: Path, part: dict) -> None:
    """Bind the stage's folder to its part of the recipe."""
    if path.is_file() and (made := json.loads(path.read_text(encoding="utf-8"))) != part:
        changed = ", ".join(key for key in part if made.get(key) != part[key])
        raise UserError(
            f"{path} was written for another recipe (changed: {changed}): remove {path.parent} to train this stage anew, "
            "or give another folder."
        )
    write_atomic(path, json.dumps(part, indent=2) + "\n")


def _record(shop: Workshop, vae: Autoencoder, networks: dict[str, nn.ModuleDict], num_scored: int) -> dict:
    """What was done and how good it is; the clean stage's scores show what the model knew before the flaws."""
    started = time.monotonic()
    prompts = sample_prompts(num_scored, seed=0, split="heldout")
    scores = {
        name: category_scores(assemble(vae, each["unet"], each["text_encoder"]), prompts, shop.bf16)
        for name, each in networks.items()
    }
    stages = {name: load_state(shop.work / name / "state.pt") or {} for name in STAGES}
    return {
        "recipe": shop.recipe.to_dict(),
        "mixture": MIXTURE,
        "device": shop.device,
        "bf16": shop.bf16,
        "torch": torch.__version__,
        "scaling_factor": vae.config.scaling_factor,
        "steps": {name: state["step"] for name, state in stages.items()},
        "seconds": {name: round(state["seconds"]) for name, state in stages.items()}
        | {"scoring": round(time.monotonic() - started)},
        "losses": {name: Log.tail(shop.work / name / "log.jsonl") for name in stages},
        "sampling": {"num_inference_steps": NUM_INFERENCE_STEPS, "guidance_scale": GUIDANCE_SCALE},
        "pictures_scored": num_scored,
        "scores": scores["noisy"],
        "scores_before_noise": scores["clean"],
    }


def _line(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
