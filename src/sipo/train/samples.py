"""Sample grids during training: the same prompts and seeds at every step."""

import shutil
import tempfile
from pathlib import Path

from sipo.backbones import Backbone
from sipo.config import Config
from sipo.run import RunDir
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.samples.prompts import read_prompts


def sample_prompts(config: Config, of_pairs: list[str]) -> list[PromptItem]:
    """The prompts of the config's file, else the first distinct ones of the pairs; one seed each."""
    sample = config.sample
    if sample.prompts:
        return read_prompts(sample.prompts, sample.num_prompts, sample.seed)
    distinct = list(dict.fromkeys(of_pairs))[: sample.num_prompts]
    return [PromptItem(prompt, sample.seed + i) for i, prompt in enumerate(distinct)]


def drop_samples_after(run: RunDir, step: int) -> None:
    """Remove the grids of steps that a resumed run has yet to do again."""
    for later in run.sample_steps():
        if later > step or step == 0:
            shutil.rmtree(run.samples / f"{later:06d}")


def write_samples(
    run: RunDir, config: Config, backbone: Backbone, prompts: list[PromptItem], step: int, keep: bool = True
) -> None:
    """Write `samples/<step>/`, anew if it is there.

    Without `keep` the samples are drawn and dropped: the processes of a sharded network compute together or not at all.
    """
    if not keep:
        with tempfile.TemporaryDirectory() as scratch:
            return write_samples(RunDir(Path(scratch)), config, backbone, prompts, step)
    folder, sample = run.samples / f"{step:06d}", config.sample
    shutil.rmtree(folder, ignore_errors=True)
    settings = {"model": config.model.path, "weights": f"step {step}", "guidance_scale": sample.guidance_scale,
                "num_inference_steps": sample.num_inference_steps, **backbone.size.to_dict()}  # fmt: skip
    with backbone.encoders():
        sampler = backbone.sampler(sample.num_inference_steps, sample.guidance_scale)
        generate(sampler, prompts, folder, settings, sample.batch_size)
