"""`sipo mini build`: the miniature from nothing, in stages, each of which goes on where it was stopped."""

import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from rich.console import Console

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.mini.evaluation import category_scores
from sipo.mini.pipeline import GUIDANCE_SCALE, NUM_INFERENCE_STEPS, assemble
from sipo.mini.prompts import sample_prompts
from sipo.mini.recipe import MIXTURE, Recipe
from sipo.mini.train_unet import Networks, encode_pool, make_networks, train_unet
from sipo.mini.train_vae import train_vae
from sipo.mini.training import Log, load_state

GLANCE = 60
"""Pictures sampled for the score at each snapshot."""


def build(
    out: Path,
    work: Path | None = None,
    recipe: Recipe | None = None,
    device: str = "cpu",
    bf16: bool = True,
    snapshot_every: int = 500,
    num_scored: int = 520,
    console: Console | None = None,
) -> dict:
    """Train the autoencoder, then denoiser and text encoder, and write the pipeline (fp16) and record.json into `out`.

    `work` (default: `out` with ".build" added) holds checkpoints, the encoded pool, the logs and snapshots; the same
    call again resumes from it, and a call with another recipe is a `UserError`, except that the number of UNet steps
    may change. `bf16` computes in bfloat16 under autocast (weights stay float32). Returns the record. About 80 minutes
    on two cores that have AMX.
    """
    recipe, out = recipe or Recipe(), Path(out)
    work = Path(work or out.with_name(out.name + ".build"))
    work.mkdir(parents=True, exist_ok=True)
    _claim(work, recipe)
    console = console or Console()
    console.print(f"Stage 1, autoencoder: {recipe.vae.num_steps} steps of {recipe.vae.batch_size} pictures")
    vae = train_vae(recipe, work, device, bf16, Log(work / "vae.jsonl", recipe.vae.num_steps, console))
    console.print(f"Encoding {recipe.unet.pool_size} pictures")
    pool = encode_pool(recipe, vae, work, device, bf16)
    console.print(f"Stage 2, denoiser and text encoder: {recipe.unet.num_steps} steps of {recipe.unet.batch_size}")

    def snapshot(step: int, average: Networks) -> None:
        if step % snapshot_every == 0 and step < recipe.unet.num_steps:
            pipeline = assemble(vae, average.unet, average.text_encoder)
            scores = category_scores(pipeline, sample_prompts(GLANCE, seed=step, split="heldout"), bf16)
            console.print(f"step {step}: {_line(scores)}")
            export(vae, average, work / "snapshot")

    log = Log(work / "unet.jsonl", recipe.unet.num_steps, console)
    average = train_unet(recipe, pool, work, device, bf16, log, snapshot)
    export(vae, average, out)
    record = _record(recipe, vae, average, work, device, bf16, num_scored)
    write_atomic(out / "record.json", json.dumps(record, indent=2) + "\n")
    console.print(f"{out}: {_line(record['scores'])}")
    return record


def export(vae: AutoencoderKL, networks: Networks, out: Path) -> None:
    """Write the pipeline in the diffusers layout, fp16 safetensors; the networks given stay as they are."""
    copies = make_networks(0, "cpu")
    copies.load(networks.state())
    small_vae = AutoencoderKL.from_config(vae.config)
    small_vae.load_state_dict(vae.state_dict())
    for part in (small_vae, copies.unet, copies.text_encoder):
        part.half()
    assemble(small_vae, copies.unet, copies.text_encoder).save_pretrained(out, safe_serialization=True)
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)
    _load_in_float32(out / "text_encoder" / "config.json")


def _load_in_float32(path: Path) -> None:
    """Let plain diffusers open all parts alike: transformers would load half-precision weights as such, diffusers not."""
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    write_atomic(path, json.dumps(config, indent=2) + "\n")


def _claim(work: Path, recipe: Recipe) -> None:
    """Hold the work folder to one recipe."""
    path = work / "recipe.json"
    same_but_steps = replace(recipe, unet=replace(recipe.unet, num_steps=0)).to_dict()
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != same_but_steps:
        raise UserError(f"{path} was written for another recipe: remove {work} to build anew, or give another folder.")
    write_atomic(path, json.dumps(same_but_steps, indent=2) + "\n")


def _record(recipe: Recipe, vae, average: Networks, work: Path, device: str, bf16: bool, num_scored: int) -> dict:
    started = time.monotonic()
    prompts = sample_prompts(num_scored, seed=0, split="heldout")
    scores = category_scores(assemble(vae, average.unet, average.text_encoder), prompts, bf16)
    stages = {name: load_state(work / f"{name}.pt") for name in ("vae", "unet")}
    return {
        "recipe": recipe.to_dict(),
        "mixture": MIXTURE,
        "device": device,
        "bf16": bf16,
        "torch": torch.__version__,
        "scaling_factor": vae.config.scaling_factor,
        "steps": {name: state["step"] for name, state in stages.items()},
        "seconds": {name: round(state["seconds"]) for name, state in stages.items()}
        | {"scoring": round(time.monotonic() - started)},
        "losses": {name: Log.tail(work / f"{name}.jsonl") for name in stages},
        "sampling": {"num_inference_steps": NUM_INFERENCE_STEPS, "guidance_scale": GUIDANCE_SCALE},
        "pictures_scored": num_scored,
        "scores": scores,
    }


def _line(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
