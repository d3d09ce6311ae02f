"""Seconds of a step: sipo's in turn with those of a plain loop over diffusers and peft, on the same model, pairs and batch.

    python examples/speed.py [--steps 30] [--batch-size 4]

The plain loop does in a step what the published Diffusion-DPO scripts do (diffusers' research project with LoRA, Salesforce's
train.py with all weights), in one process and float32: a loader decodes the pairs, the VAE and the text encoder run in every
step, the reference is the same network without its adapters, or a frozen copy. The miniature stands for the small networks on
which everything but the three passes counts most.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from torch.utils.data import DataLoader

from sipo.config import parse_config
from sipo.mini import STILL
from sipo.plan.against import median_interval
from sipo.train.opening import open_training
from sipo.train.step import take_step

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
MODES = {  # cached; draws of each pair on which the reference runs once
    "uncached": (False, None),
    "cached": (True, None),
    "cached, reference precomputed": (True, 1),
}
BETA, LEARNING_RATE, RANK, WARM_UP = 1000.0, 1e-4, 16, 3


class PlainTraining:
    """Diffusion-DPO as the scripts write it."""

    def __init__(self, model: Path, pairs: Path, kind: str, batch_size: int):
        pipeline = StableDiffusionPipeline.from_pretrained(model)
        self.tokenizer, self.text_encoder, self.vae = pipeline.tokenizer, pipeline.text_encoder, pipeline.vae
        self.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
        self.unet, self.frozen = pipeline.unet.train(), None
        for network in (self.text_encoder, self.vae):
            network.requires_grad_(False)
        if kind == "lora":
            self.unet.requires_grad_(False)
            self.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
        else:
            self.frozen = UNet2DConditionModel.from_pretrained(model, subfolder="unet").requires_grad_(False)
        self.trained = [weight for weight in self.unet.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE)
        rows = pq.read_table(pairs).to_pylist()
        self.batches = _forever(DataLoader(rows, batch_size, shuffle=True, drop_last=True, collate_fn=self._collate))

    def _collate(self, rows: list[dict]) -> tuple[Tensor, Tensor]:
        """Pixels (2 B, 3, H, W) in [-1, 1], the chosen first, and token ids (B, L)."""
        sides = [
            [row["jpg_0"] if (row["label_0"] == 1) == chosen else row["jpg_1"] for row in rows]
            for chosen in (True, False)
        ]
        pictures = [
            np.asarray(Image.open(io.BytesIO(each)).convert("RGB"), np.float32) for side in sides for each in side
        ]
        texts = [row["caption"] for row in rows]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1, tokens

    def step(self) -> float:
        """One update; returns the loss."""
        pixels, tokens = next(self.batches)
        with torch.no_grad():
            latents = self.vae.encode(pixels).latent_dist.sample() * self.vae.config.scaling_factor
            text = self.text_encoder(tokens)[0].repeat(2, 1, 1)
        noise = torch.randn_like(latents).chunk(2)[0].repeat(2, 1, 1, 1)
        t = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(tokens),)).repeat(2)
        noisy = self.scheduler.add_noise(latents, noise, t)
        policy = self._errors(self.unet, noisy, t, text, noise)
        with torch.no_grad():
            if self.frozen is None:
                self.unet.disable_adapters()
            reference = self._errors(self.frozen or self.unet, noisy, t, text, noise)
            if self.frozen is None:
                self.unet.enable_adapters()
        chosen, rejected = (policy - reference).chunk(2)
        loss = -logsigmoid(-0.5 * BETA * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    @staticmethod
    def _errors(unet: nn.Module, noisy: Tensor, t: Tensor, text: Tensor, noise: Tensor) -> Tensor:
        return (unet(noisy, t, text).sample - noise).pow(2).mean(dim=[1, 2, 3])


def _forever(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def compare(
    kind: str, cached: bool, draws: int | None, num_steps: int, batch_size: int
) -> tuple[list[float], list[float]]:
    """Seconds of `num_steps` steps of the plain loop and of sipo, neighbours in time, after a few that do not count."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        config = parse_config({
            "run": f"{folder}/run",
            "model": {"path": "miniature"},
            "data": {"path": "miniature", "cache": f"{folder}/cache" if cached else None, "workers": 0},
            "loss": {"name": "diffusion_dpo", "beta": BETA / 1000},
            "policy": {"kind": kind, "rank": RANK, "alpha": RANK, **({"target_modules": TARGETS} if kind == "lora" else {})},
            "train": {"num_steps": num_steps + WARM_UP, "batch_size": batch_size, "learning_rate": LEARNING_RATE,
                      "sample_every": 0, "validate_every": 0, "checkpoint_every": 10**6,
                      "reference": {"precompute": draws}},
            "log": {"tensorboard": False},
        })  # fmt: skip
        ours = stack.enter_context(open_training(config, Console(quiet=True)))
        plain = PlainTraining(STILL.weights, STILL.pairs, kind, batch_size)
        seconds: tuple[list[float], list[float]] = ([], [])
        for number in range(1, num_steps + WARM_UP + 1):
            turns: list[tuple[int, Callable[[], object]]] = [
                (0, plain.step), (1, lambda number=number: take_step(ours, number, False))
            ]  # fmt: skip
            for side, take in turns if number % 2 else reversed(turns):
                begin = time.perf_counter()
                take()
                seconds[side].append(time.perf_counter() - begin)
    return seconds[0][WARM_UP:], seconds[1][WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=4)
    chosen = parser.parse_args()
    print("| | plain, s | sipo, s | sipo's speed / the plain loop's | 95% interval |\n|---|---|---|---|---|")
    for kind in ("lora", "full"):
        for mode, (cached, draws) in MODES.items():
            plain, ours = compare(kind, cached, draws, chosen.steps, chosen.batch_size)
            ratios = [a / b for a, b in zip(plain, ours, strict=True)]
            low, high = median_interval(ratios)
            print(
                f"| {kind}, {mode} | {statistics.median(plain):.3f} | {statistics.median(ours):.3f} "
                f"| {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
