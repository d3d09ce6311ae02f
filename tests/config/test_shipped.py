"""The shipped configs say what the paper says, or are its settings on newer models: one experiment a stem, three objectives each."""

from pathlib import Path

import pytest
import yaml

from sipo.backbones import read_architecture
from sipo.config import Config, differences, load_config
from sipo.kernels import DDIM
from sipo.losses import DPOCM, SFT, SIPO, DiffusionDPO
from sipo.terms import ImportanceWeight
from sipo.timesteps import Uniform

CONFIGS = Path(__file__).parents[2] / "configs"
OBJECTIVES = {"dpo": DiffusionDPO, "dpo-cm": DPOCM, "sipo": SIPO}

# Where the paper reports it, its medium, and our precision: the paper has fp16 throughout (Table A1).
EXPERIMENTS = {
    "cogvideox-2b": ("Table 1", "video", "fp16"),
    "cogvideox-5b": ("Table 1", "video", "bf16"),
    "wan-1.3b": ("Table 1", "video", "bf16"),
    "sd15-pickapic": ("Table 2", "image", "fp16"),
    "flux-geneval": ("Table 3", "image", "bf16"),
    "sdxl-pickapic": ("Table A2", "image", "fp16"),
}

# The paper's settings on models that it does not have, and what they are trained at: side or (height, width, frames, rate).
NEWER = {
    "sd35-medium": 1024, "sd35-large": 1024, "qwen-image": 1024, "z-image": 1024, "flux2-klein-base-4b": 1024,
    "flux-kontext": 1024, "qwen-image-edit": 1024, "wan2.2-5b": (704, 1280, 121, 24), "wan2.2-14b": (480, 832, 81, 16),
    "wan2.2-5b-i2v": (704, 1280, 121, 24), "wan2.1-i2v-14b": (480, 832, 81, 16), "wan2.2-i2v-14b": (480, 832, 81, 16), "hunyuan-video-1.5": (480, 848, 121, 24), "ltx-2": (512, 768, 121, 24),
}  # fmt: skip
SMALLER_BATCH = {
    "wan2.2-5b": 2,
    "wan2.2-14b": 1,
    "wan2.2-5b-i2v": 1,
    "wan2.1-i2v-14b": 1,
    "wan2.2-i2v-14b": 1,
    "hunyuan-video-1.5": 1,
}  # of which more are accumulated, so that 80 GB hold it

# Table A1, and the clip range and the threshold of Appendix F.1. Adam is AdamW without weight decay.
TABLE_A1 = {
    "video": {"batch_size": 4, "gradient_accumulation": 8, "beta": {"dpo": 2.0, "dpo-cm": 0.02, "sipo": 0.02}},
    "image": {"batch_size": 1, "gradient_accumulation": 64, "beta": {"dpo": 5.0, "dpo-cm": 1.0, "sipo": 1.0}},
}
LEARNING_RATE, GPUS, CLIP_RANGE, PRUNE_THRESHOLD = 2e-5, 16, 0.1, 0.9

# Height, width, frames and rate that the models were made for.
VIDEO_SIZES = {"cogvideox-2b": (480, 720, 49, 8), "cogvideox-5b": (480, 720, 49, 8), "wan-1.3b": (480, 832, 81, 16)}


def load(experiment: str, objective: str) -> Config:
    return load_config(CONFIGS / f"{experiment}-{objective}.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_it_parses_and_writes_into_a_run_of_its_own_name(path):
    assert load_config(path).run == f"runs/{path.stem}"


def test_every_experiment_has_its_configs():
    found = {path.stem for path in CONFIGS.glob("*.yaml") if not path.stem.startswith(("demo", "miniature"))}
    assert found == {f"{experiment}-{objective}" for experiment in (*EXPERIMENTS, *NEWER) for objective in OBJECTIVES}


@pytest.mark.parametrize("experiment", [*EXPERIMENTS, *NEWER, "miniature"])
def test_the_objectives_of_an_experiment_differ_in_nothing_but_run_and_loss(experiment):
    first, *others = (load(experiment, objective).to_dict() for objective in OBJECTIVES)
    for other in others:
        changed = {key.split(".")[0] for key, _, _ in differences(first, other)}
        assert changed == {"run", "loss"}


def test_the_baseline_of_the_miniature_differs_in_the_same():
    changed = differences(load("miniature", "dpo").to_dict(), load("miniature", "sft").to_dict())
    assert {key.split(".")[0] for key, _, _ in changed} == {"run", "loss"}
    assert load("miniature", "sft").loss == SFT()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("experiment", [*EXPERIMENTS, *NEWER])
def test_table_a1(experiment, objective):
    medium, precision = EXPERIMENTS[experiment][1:] if experiment in EXPERIMENTS else (newer_medium(experiment), "bf16")
    paper, config = TABLE_A1[medium], load(experiment, objective)
    fields = {} if objective == "dpo" else {"clip_range": CLIP_RANGE, "prune_threshold": PRUNE_THRESHOLD}
    # All else stands at its default, which is the paper's.
    assert config.loss == OBJECTIVES[objective](beta=paper["beta"][objective], **fields)
    train = config.train
    assert train.batch_size == SMALLER_BATCH.get(experiment, paper["batch_size"])
    assert train.batch_size * train.gradient_accumulation == paper["batch_size"] * paper["gradient_accumulation"]
    assert (train.learning_rate, train.lr_scheduler) == (LEARNING_RATE, "constant")
    assert (train.optimizer, train.weight_decay) == ("adamw", 0.0)
    assert train.mixed_precision == precision
    assert (config.weight, config.kernel, config.num_inference_steps) == (ImportanceWeight(), DDIM(), 50)
    assert config.timesteps == Uniform()


def newer_medium(experiment: str) -> str:
    return "image" if isinstance(NEWER[experiment], int) else "video"


@pytest.mark.parametrize("experiment", NEWER)
def test_newer_models_train_at_their_own_size(experiment):
    data, architecture = load(experiment, "sipo").data, read_architecture(load(experiment, "sipo").model)
    own, sides = architecture.sizes.native, NEWER[experiment]
    expected = (sides, sides, 1, None) if isinstance(sides, int) else sides
    found = architecture.size(data.size)
    assert (found.height, found.width, found.num_frames, found.fps) == expected
    assert (found.num_frames, found.fps) == (own.num_frames, own.fps)
    head = (CONFIGS / f"{experiment}-sipo.yaml").read_text()
    assert "the paper has no experiment on it" in head.splitlines()[0]
    train = load(experiment, "sipo").train
    assert f"(batch {train.batch_size} x {train.gradient_accumulation} accumulated x 16 = " in head


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_comments_say_where_it_stands_in_the_paper(experiment, objective):
    """A comment can go stale unseen; these state what the tables above know: the table, the pairs a step, the precision."""
    table, medium, precision = EXPERIMENTS[experiment]
    paper, text = TABLE_A1[medium], (CONFIGS / f"{experiment}-{objective}.yaml").read_text()
    head, *rest = text.splitlines()
    assert table in head
    pairs = paper["batch_size"] * paper["gradient_accumulation"] * GPUS
    assert f"x {GPUS} = {pairs:,} pairs a step" in text
    (line,) = (line for line in rest if line.strip().startswith("mixed_precision"))
    assert ("[paper]" in line) if precision == "fp16" else ("[ours]" in line and "the paper has fp16" in line)


@pytest.mark.parametrize("experiment", [*EXPERIMENTS, *NEWER])
def test_every_value_says_where_it_comes_from(experiment):
    lines = (CONFIGS / f"{experiment}-sipo.yaml").read_text().splitlines()
    values = [line for line in lines if ": " in line.partition("#")[0]]
    theirs = [line for line in values if not line.strip().startswith(("run:", "model:", "path:"))]  # the user's own
    assert len(theirs) > 20
    marks = ("[paper]", "[reference]", "[ours]", *(("[model]", "[diffusers]") if experiment in NEWER else ()))
    assert [line for line in theirs if not any(mark in line for mark in marks)] == []


@pytest.mark.parametrize(("experiment", "warmup"), [("sd15-pickapic", 500), ("sdxl-pickapic", 200)])
def test_what_pick_a_pic_takes_from_the_reference_implementation(experiment, warmup):
    """`launchers/sd15.sh` and `sdxl.sh` of SalesforceAIResearch/DiffusionDPO, and the defaults of its train.py."""
    data, train = load(experiment, "sipo").data, load(experiment, "sipo").train
    assert (data.crop, data.flip, data.ties, data.prompt_dropout) == ("center", True, "drop", 0.2)
    assert (train.num_steps, train.warmup_steps, train.max_grad_norm, train.betas) == (2000, warmup, 1.0, (0.9, 0.999))


@pytest.mark.parametrize("experiment", VIDEO_SIZES)
def test_video_sizes(experiment):
    data = load(experiment, "sipo").data
    assert (*data.resolution, data.num_frames, data.fps) == VIDEO_SIZES[experiment]


def test_cogvideox_2b_keeps_both_steps_of_table_1():
    train = load("cogvideox-2b", "sipo").train
    kept = range(train.checkpoint_every, train.num_steps + 1, train.checkpoint_every)[-train.keep_checkpoints :]
    assert {500, 1000} <= set(kept)


def test_a_cache_is_shared_within_an_experiment_and_by_no_other():
    caches = {experiment: load(experiment, "sipo").data.cache for experiment in (*EXPERIMENTS, *NEWER)}
    named = [cache for cache in caches.values() if cache]
    assert len(named) == len(set(named)) == 4 + len(NEWER)


def test_no_key_is_given_twice():
    """YAML would let it pass, and take the last."""
    for path in CONFIGS.glob("*.yaml"):
        nodes = [yaml.compose(path.read_text())]
        while nodes:
            node = nodes.pop()
            if isinstance(node, yaml.MappingNode):
                keys = [key.value for key, _ in node.value]
                assert len(keys) == len(set(keys)), path.name
                nodes += [value for _, value in node.value]
