"""FLOPs against a hand count; saved bytes against what a real forward on the CPU saves."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from support.checkpoints import FAMILIES
from torch import nn

from sipo.backbones import load_backbone, read_architecture
from sipo.backbones.meta import meta_backbone
from sipo.config import DataConfig, ModelConfig, PolicyConfig
from sipo.plan.count import AsOnGpu, Saved, count, forward_flops, num_bytes
from sipo.train.policy import make_policy


class Blocks(nn.Module):
    """Two linear layers without bias, in two blocks, as diffusers' networks checkpoint theirs."""

    def __init__(self, width: int = 8, hidden: int = 24):
        super().__init__()
        self.first = nn.Linear(width, hidden, bias=False, device="meta")
        self.second = nn.Linear(hidden, width, bias=False, device="meta")

    def enable_gradient_checkpointing(self, gradient_checkpointing_func):
        self.run = gradient_checkpointing_func

    def forward(self, x):
        return self.run(self.second, self.run(self.first, x))


def test_flops_and_bytes_of_two_linear_layers():
    """Rows 5, widths 8 and 24: a product is 2 * 5 * 8 * 24 FLOPs."""
    product = 2 * 5 * 8 * 24
    network = Blocks()
    full = count(network, lambda: network(torch.empty(5, 8, device="meta")), torch.float32)
    assert (full.forward, full.recomputed) == (2 * product, 2 * product)
    assert full.backward == 3 * product  # both weights' gradients, and the hidden layer's; x needs none
    assert full.activations == 4 * (5 * 8 + 5 * 24)  # the inputs of the two products
    assert (full.kept, full.largest_block) == (4 * (5 * 8 + 5 * 24), 0)  # which are the inputs of the blocks
    assert full.weight_copies == 0


def test_adapters_save_the_gradients_of_frozen_weights():
    product, down, up = 2 * 5 * 8 * 24, 2 * 5 * 24 * 2, 2 * 5 * 2 * 8
    network = Blocks().requires_grad_(False)
    with torch.device("meta"):
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["second"]), network)
    counted = count(network, lambda: network(torch.empty(5, 8, device="meta")), torch.float32)
    assert counted.forward == 2 * product + down + up
    assert counted.backward == down + 2 * up  # B: weight and input; A: weight; nothing below it needs a gradient
    assert counted.activations == 4 * (5 * 24 + 5 * 2)  # the inputs of A and B


def test_half_precision_keeps_copies_of_inputs_and_weights():
    network = Blocks()
    counted = count(network, lambda: network(torch.empty(5, 8, device="meta")), torch.bfloat16)
    assert counted.weight_copies == 2 * 2 * 8 * 24
    assert counted.activations == 2 * (5 * 8 + 5 * 24)


def test_attention_keeps_no_score_matrix():
    q = torch.empty(1, 2, 64, 16, device="meta", requires_grad=True)
    saved = Saved(lambda storage: False)
    with AsOnGpu(torch.float32), saved:
        out = nn.functional.scaled_dot_product_attention(q, q, q)
    assert out.shape == q.shape
    assert num_bytes(saved.storages) < 4 * (2 * q.numel() + 2 * 64) + 64  # q, output, log-sum-exp, seeds
    flops = forward_flops(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert flops == 2 * (2 * 2 * 64 * 64 * 16)  # Q K^T and P V of two heads


def test_autocast_is_torchs():
    """Linear layers and additions, for which autocast on the CPU has the same rules as on a GPU."""
    network = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.SiLU(), nn.Linear(8, 8))
    x = torch.randn(5, 8)
    real = Saved({p.untyped_storage()._cdata for p in network.parameters()}.__contains__)
    with torch.autocast("cpu", torch.bfloat16), real:
        network(x)
    meta = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.SiLU(), nn.Linear(8, 8)).to("meta")
    ours, mode = Saved({p.untyped_storage()._cdata for p in meta.parameters()}.__contains__), AsOnGpu(torch.bfloat16)
    with mode, ours:
        meta(x.to("meta"))
    assert num_bytes(ours.storages) == num_bytes(real.storages)
    copies = sum(copy.nbytes for copy in mode.weight_copies.values())
    assert copies == 2 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("name", FAMILIES)
def test_saved_bytes_are_those_of_a_real_forward(name, kind, tiny_family):
    """A sample for each denoiser in float32 on the CPU, whose attention kernel saves the same tensors but for padding and seeds.

    In CogVideoX and Stable Diffusion 3 a forward on the CPU keeps one more tensor per layer, of the queries' size.
    """
    within = 0.09 if name.startswith(("cogvideox", "sd3")) else 0.02
    model, size = ModelConfig(str(tiny_family(name))), DataConfig("x", **FAMILIES[name][1]).size
    architecture, config = read_architecture(model), PolicyConfig(kind, rank=4)
    planned = meta_backbone(architecture, architecture.size(size))
    meta = make_policy(planned, config, needs_reference=False, seed=0).denoiser
    counted = count(meta, lambda: planned.predict(meta), torch.float32)

    backbone = load_backbone(model, size=size)
    policy = make_policy(backbone, config, needs_reference=False, seed=0)
    t = torch.tensor([*architecture.adapter.boundaries, 500.0])
    xt = torch.randn(len(t), *architecture.adapter.latent_shape(backbone.size))
    prompt = '"' + 2000 * "a" + '"' + 2000 * "a"  # all tokens, of glyphs in quotation marks too
    text = backbone.encode_prompts([prompt] * len(t))
    conditioning = text | backbone.conditioning_of(torch.zeros(len(t), 4))
    own = {tensor.untyped_storage()._cdata for tensor in (*policy.denoiser.parameters(), *policy.denoiser.buffers())}

    def saved() -> int:
        with (collected := Saved(own.__contains__)):
            backbone.predict(policy.denoiser, xt, t, conditioning)
        return num_bytes(collected.storages) / len(t)

    assert counted.activations == pytest.approx(saved(), rel=within)
    policy.denoiser.enable_gradient_checkpointing()
    assert counted.kept == pytest.approx(saved(), rel=within)
    assert counted.kept < counted.checkpointed <= counted.activations
