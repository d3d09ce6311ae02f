"""A training step of every family on torch's fake CUDA device; `make test-fake-cuda` runs it, and needs no GPU."""

from dataclasses import fields, replace

import pytest
import torch
from support.checkpoints import FAMILIES
from support.configs import changed
from support.fake_cuda import GPU, fake_gpu

from sipo.backbones import read_architecture
from sipo.config import parse_config
from sipo.data.batches import Item, collate
from sipo.data.media.load import Member
from sipo.losses import resolve_horizon
from sipo.processes import Processes
from sipo.train.opening import open_backbone, open_policy
from sipo.train.optim import Updater
from sipo.train.record import Clock
from sipo.train.step import accumulate
from sipo.train.training import Training

pytestmark = pytest.mark.fake_cuda
BATCH = 2


@pytest.fixture(autouse=True)
def a_cuda_build():
    assert torch.cuda.is_available(), "needs a CUDA build of torch and the fake driver: make test-fake-cuda"


@pytest.mark.parametrize(
    ("mistake", "complaint"),
    [(lambda gpu, cpu: gpu + cpu, "same device"), (lambda gpu, cpu: gpu @ gpu.half(), "float16, torch.float32"),
     (lambda gpu, cpu: gpu.sum().item(), "_local_scalar_dense"), (lambda gpu, cpu: bool(gpu.isfinite().all()), "_local_scalar")],
    ids=["two devices", "unequal dtypes", "a value read", "a truth read"],
)  # fmt: skip
def test_what_a_gpu_would_refuse_or_wait_for_is_seen(mistake, complaint):
    with fake_gpu() as gpu:
        with pytest.raises(Exception, match=complaint):
            mistake(torch.ones(2, 2, device=GPU), torch.ones(2, 2))
        torch.ones(3).to(GPU, non_blocking=True)
        assert gpu.waits == []
        torch.tensor([1.0, 2.0], device=GPU)
        assert gpu.waits == ["(2,) torch.float32"]


def batch_of(backbone, cached):
    """Zeros as the loader gives them: pixels, or the moments and embeddings of a cache."""
    items, text = [], {}
    if cached:
        shape, frozen = (2, *backbone.adapter.latent_shape(backbone.size)), backbone.model.frozen_dtype(backbone.dtype)
        text = {
            name: (value.shape[1:], value.dtype) for name, value in backbone.adapter.meta_prompts(1, frozen).items()
        }
    else:
        shape = backbone.size.pixel_shape
    for slot in range(BATCH):
        conditioning = {name: torch.zeros(size, dtype=dtype) for name, (size, dtype) in text.items()} or None
        members = [Member(torch.zeros(shape), torch.zeros(4))] * 2
        items.append(Item(f"pair {slot}", slot, "a cat", conditioning, members, 1.0))
    return collate(items)


def open_on_fake_gpu(config, backbone, batch) -> Training:
    processes = Processes(device=GPU)
    engine = open_policy(config, backbone, processes, config.runs_reference)
    moved = dict(engine.policy.denoiser.named_parameters())  # `to` made new ones
    policy = replace(engine.policy, trainable={name: moved[name] for name in engine.policy.trainable})
    parts = {
        "settings": config.train, "processes": processes, "backbone": backbone, "engine": replace(engine, policy=policy),
        "compute": config.train.compute_dtype, "objective": resolve_horizon(config.loss, config.num_inference_steps),
        "label_smoothing": 0.0, "needs_reference": config.needs_reference, "needs_old": config.needs_old,
        "timesteps": config.timesteps, "kernel": config.kernel, "num_inference_steps": config.num_inference_steps,
        "weight": config.weight, "global_batch": BATCH, "batches": iter([batch]), "clock": Clock(torch.device("cpu")),
        "updater": Updater(config.train, list(policy.trainable.values()), GPU), "sample": config.sample,
    }  # fmt: skip
    return Training(**{field.name: parts.get(field.name) for field in fields(Training)})


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_of_one_device_and_equal_dtypes_and_reads_nothing(family_config, family, kind, precision, cached):
    raw = changed(family_config("run", family, kind), f"train.mixed_precision={precision}", f"train.batch_size={BATCH}")
    config = parse_config({**raw, "loss": {"name": "sipo"}})
    if cached:
        config = replace(config, data=replace(config.data, cache="cache"))
    backbone = open_backbone(config, read_architecture(config.model))
    batch = batch_of(backbone, cached)
    with fake_gpu() as gpu, torch.autograd.set_multithreading_enabled(False):
        t = open_on_fake_gpu(config, backbone, batch)
        backbone.schedule.alpha_sigma(torch.zeros(1, dtype=torch.int64, device=GPU))  # its table is copied once a run
        gpu.waits.clear()
        rows, _ = accumulate(t, 1)
    assert all(column.device == GPU for column in rows[0].values())
    grads = [weight.grad for weight in t.engine.local_weights() if weight.grad is not None]
    assert grads
    assert all(grad.device == GPU and grad.dtype == torch.float32 for grad in grads)
    if cached:
        assert gpu.waits == []


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("switch", ["model.quantize=int8", "model.quantize=fp8", "model.offload=blocks"])
@pytest.mark.parametrize("family", FAMILIES)
def test_so_is_one_with_quantised_or_moved_blocks(family_config, family, switch, precision, monkeypatch):
    monkeypatch.setattr("sipo.backbones.offload._pinned", lambda weight: weight)  # of a driver that there is not
    monkeypatch.setattr("torch.cuda.Stream", lambda device: None)
    raw = changed(family_config("run", family, "lora"), f"train.mixed_precision={precision}", f"train.batch_size={BATCH}",
                  "train.gradient_checkpointing=true", switch)  # fmt: skip
    config = parse_config({**raw, "loss": {"name": "sipo"}})
    config = replace(config, data=replace(config.data, cache="cache"))
    backbone = open_backbone(config, read_architecture(config.model))
    batch = batch_of(backbone, True)
    with fake_gpu() as gpu, torch.autograd.set_multithreading_enabled(False):
        t = open_on_fake_gpu(config, backbone, batch)
        backbone.schedule.alpha_sigma(torch.zeros(1, dtype=torch.int64, device=GPU))
        gpu.waits.clear()
        rows, _ = accumulate(t, 1)
    assert all(column.device == GPU for column in rows[0].values())
    grads = [weight.grad for weight in t.engine.local_weights() if weight.grad is not None]
    assert grads
    assert all(grad.device == GPU and grad.dtype == torch.float32 for grad in grads)
    assert gpu.waits == []
