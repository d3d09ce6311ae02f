"""`sipo mini build`: a miniature from nothing, in stages, each of which resumes where it was stopped."""

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from sipo.files import held, write_atomic
from sipo.mini.evaluation import category_scores
from sipo.mini.networks import Autoencoder
from sipo.mini.prompts import sample_prompts
from sipo.mini.recipe import Flaws
from sipo.mini.stages import Stages
from sipo.registry import Miniature

GLANCE = 60
"""Media sampled for the score at each snapshot."""


@dataclass(frozen=True)
class Kind:
    """How one miniature is built: its recipe (a dataclass, with a `Schedule` for each stage), and what each stage does.

    prompts: all of its world, by category; held_out: how many of each are for evaluation alone.
    stages: the recipe's fields that each stage adds to those of the stages before it. The functions take what `build` passes;
    `make_networks` includes those that `train_text` returns, `assemble` gives the diffusers pipeline.
    """

    miniature: Miniature
    prompts: Callable[[], dict[str, list[dict]]]
    held_out: Mapping[str, int]
    recipe: Callable[[], Any]
    stages: Mapping[str, tuple[str, ...]]
    train_vae: Callable[..., Autoencoder]
    train_text: Callable[..., nn.ModuleDict]
    encode_pool: Callable[..., dict[str, Tensor]]
    make_networks: Callable[[int, str], nn.ModuleDict]
    train_denoiser: Callable[..., nn.ModuleDict]
    assemble: Callable[[Autoencoder, nn.ModuleDict], Any]


def build(
    kind: Kind,
    out: Path,
    work: Path | None = None,
    recipe: Any = None,
    device: str = "cpu",
    bf16: bool = True,
    compiled: bool = False,
    snapshot_every: int = 500,
    num_scored: int = 1020,
    console: Console | None = None,
) -> dict:
    """Train all stages and write the pipeline (fp16) and record.json into `out`; returns the record.

    `work` (default: `out` with ".build" added) has one folder for each stage, with its checkpoint, its log and, for the
    denoiser, its pool of pictures, scores and a snapshot. The same call resumes from it. A call with another recipe is
    a `UserError`, unless the stages that differ have been removed; the numbers of steps may change. So is one while another
    process builds there. `bf16` computes in bfloat16 under autocast (weights stay float32), `compiled` as `train_jointly`.
    """
    out, recipe, console = Path(out), recipe or kind.recipe(), console or Console()
    work = Path(work or out.with_name(out.name + ".build"))
    stages = Stages(work, recipe, kind.stages, console)
    with held(work, "build"):
        return _build(kind, stages, out, device, bf16, compiled, snapshot_every, num_scored)


def _build(
    kind: Kind, stages: Stages, out: Path, device: str, bf16: bool, compiled: bool, snapshot_every: int, num_scored: int
) -> dict:
    recipe, console = stages.recipe, stages.console
    vae = kind.train_vae(recipe, *stages.open("vae"), device, bf16)
    reader = kind.train_text(recipe, *stages.open("text"), device, bf16)
    networks = kind.make_networks(recipe.seed, device)
    networks.load_state_dict(reader.state_dict(), strict=False)  # all but the denoiser
    trained = {}
    for name, flaws in (("clean", Flaws()), ("noisy", recipe.noisy_data)):
        folder, log = stages.open(name)
        pool = kind.encode_pool(folder / "pool.safetensors", vae, recipe, flaws, device, bf16)
        snapshot = _snapshots(kind, folder, vae, bf16, snapshot_every, console)
        schedule, guided = getattr(recipe, name), name == "clean"
        networks = kind.train_denoiser(networks, recipe, schedule, pool, folder, log, bf16, snapshot, guided, compiled)
        trained[name] = networks
    export(kind, vae, networks, out)
    record = _record(kind, stages, vae, trained, device, bf16, num_scored)
    write_atomic(out / "record.json", json.dumps(record, indent=2) + "\n")
    console.print(f"{out}: {_line(record['scores'])}")
    return record


def _snapshots(
    kind: Kind, folder: Path, vae: Autoencoder, bf16: bool, every: int, console: Console
) -> Callable[[int, nn.ModuleDict], None]:
    """Writes the pipeline of a denoiser in training, and prints its scores on a few prompts, at regular steps."""

    def snapshot(step: int, average: nn.ModuleDict) -> None:
        if step % every == 0:
            prompts = sample_prompts(GLANCE, seed=step, split="heldout", miniature=kind.miniature)
            scores = category_scores(kind.miniature, kind.assemble(vae, average), prompts, bf16)
            console.print(f"step {step}: {_line(scores)}")
            write_atomic(folder / f"scores-{step:06}.json", json.dumps(scores) + "\n")
            export(kind, vae, average, folder / "snapshot")

    return snapshot


def export(kind: Kind, vae: Autoencoder, networks: nn.ModuleDict, out: Path) -> None:
    """Write the pipeline in the diffusers layout, fp16 safetensors; the networks given stay unchanged."""
    small = [copy.deepcopy(each).to("cpu", torch.float16) for each in (vae, networks)]
    kind.assemble(*small).save_pretrained(out, safe_serialization=True)
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)
    for path in out.glob("text_encoder*/config.json"):
        _load_in_float32(path)


def _load_in_float32(path: Path) -> None:
    """Let plain diffusers open all parts alike: transformers would load half-precision weights as such, diffusers not."""
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    write_atomic(path, json.dumps(config, indent=2) + "\n")


def _record(
    kind: Kind,
    stages: Stages,
    vae: Autoencoder,
    trained: dict[str, nn.ModuleDict],
    device: str,
    bf16: bool,
    num_scored: int,
) -> dict:
    """What was done and how good it is; the clean stage's scores show what the model knew before the flaws."""
    started, miniature = time.monotonic(), kind.miniature
    prompts = sample_prompts(num_scored, seed=0, split="heldout", miniature=miniature)
    scores = {
        name: category_scores(miniature, kind.assemble(vae, each), prompts, bf16) for name, each in trained.items()
    }
    account = stages.account()
    account["seconds"]["scoring"] = round(time.monotonic() - started)
    steps, guidance = miniature.num_inference_steps, miniature.guidance_scale
    return {
        "recipe": asdict(stages.recipe),
        "device": device,
        "bf16": bf16,
        "torch": torch.__version__,
        "scaling_factor": vae.config.scaling_factor,
        **account,
        "sampling": {"num_inference_steps": steps, "guidance_scale": guidance},
        "pictures_scored": num_scored,
        "scores": scores["noisy"],
        "scores_before_noise": scores["clean"],
        "notes": [],
    }


def _line(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
