"""FLOPs against a hand count; saved bytes against what a real forward on the CPU saves."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sipo.backbones.meta import meta_denoiser, meta_inputs, read_architecture
from sipo.config import ModelConfig
from sipo.plan.adapters import add_adapters
from sipo.plan.count import Saved, count, forward_flops, num_bytes
from sipo.plan.mixed import AsOnGpu


class Blocks(nn.Module):
    """Two linear layers without bias, in two blocks, as diffusers' networks checkpoint theirs."""

    def __init__(self, width: int = 8, hidden: int = 24):
        super().__init__()
        self.first = nn.Linear(width, hidden, bias=False, device="meta")
        self.second = nn.Linear(hidden, width, bias=False, device="meta")

    def enable_gradient_checkpointing(self, gradient_checkpointing_func):
        self.run = gradient_checkpointing_func

    def forward(self, x, return_dict=False):
        return (self.run(self.second, self.run(self.first, x)),)


def test_flops_and_bytes_of_two_linear_layers():
    """Rows 5, widths 8 and 24: a product is 2 * 5 * 8 * 24 FLOPs."""
    product = 2 * 5 * 8 * 24
    x = torch.empty(5, 8, device="meta")
    full = count(Blocks(), {"x": x}, torch.float32)
    assert (full.forward, full.recomputed) == (2 * product, 2 * product)
    assert full.backward == 3 * product  # both weights' gradients, and the hidden layer's; x needs none
    assert full.activations == 4 * (5 * 8 + 5 * 24)  # the inputs of the two products
    assert (full.kept, full.largest_block) == (4 * (5 * 8 + 5 * 24), 0)  # which are the inputs of the blocks
    assert full.weight_copies == 0


def test_adapters_save_the_gradients_of_frozen_weights():
    product, down, up = 2 * 5 * 8 * 24, 2 * 5 * 24 * 2, 2 * 5 * 2 * 8
    network = Blocks()
    weights = add_adapters(network, ["second"], rank=2)
    counted = count(network, {"x": torch.empty(5, 8, device="meta")}, torch.float32, weights)
    assert counted.forward == 2 * product + down + up
    assert counted.backward == down + 2 * up  # B: weight and input; A: weight; nothing below it needs a gradient
    assert counted.activations == 4 * (5 * 24 + 5 * 2)  # the inputs of A and B


def test_half_precision_keeps_copies_of_inputs_and_weights():
    counted = count(Blocks(), {"x": torch.empty(5, 8, device="meta")}, torch.bfloat16)
    assert counted.weight_copies == 2 * 2 * 8 * 24
    assert counted.activations == 2 * (5 * 8 + 5 * 24)


def test_attention_keeps_no_score_matrix():
    q = torch.empty(1, 2, 64, 16, device="meta", requires_grad=True)
    saved = Saved(lambda storage: False)
    with AsOnGpu(torch.float32), saved:
        out = nn.functional.scaled_dot_product_attention(q, q, q)
    assert out.shape == q.shape
    assert num_bytes(saved.storages) < 4 * (2 * q.numel() + 2 * 64) + 64  # q, output, log-sum-exp, seeds
    flops = forward_flops(lambda q: nn.functional.scaled_dot_product_attention(q, q, q), {"q": q})
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
@pytest.mark.parametrize("checkpoint", ["tiny_sd", "tiny_sdxl"])
def test_saved_bytes_are_those_of_a_real_forward(checkpoint, kind, request):
    """One sample in float32 on the CPU, whose attention kernel saves the same tensors but for padding and seeds."""
    folder = request.getfixturevalue(checkpoint)
    architecture = read_architecture(ModelConfig(str(folder)))
    real = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").train()
    meta, adapters = meta_denoiser(architecture).train(), []
    if kind == "lora":
        from peft import LoraConfig

        real.requires_grad_(False)
        real.add_adapter(LoraConfig(r=4, target_modules=list(architecture.family.lora_targets)))
        adapters = add_adapters(meta, architecture.family.lora_targets, 4)
    else:
        meta.requires_grad_(True)
    inputs = meta_inputs(architecture, architecture.own_size, 1)
    counted = count(meta, inputs, torch.float32, adapters)
    inputs = {name: _real(value) for name, value in inputs.items()}
    own = {p.untyped_storage()._cdata for p in real.parameters()}

    plain = Saved(own.__contains__)
    with plain:
        real(**inputs)
    assert counted.activations == pytest.approx(num_bytes(plain.storages), rel=0.02)

    real.enable_gradient_checkpointing()
    checkpointed = Saved(own.__contains__)
    with checkpointed:
        real(**inputs)
    assert counted.kept == pytest.approx(num_bytes(checkpointed.storages), rel=0.02)
    assert counted.kept < counted.checkpointed < counted.activations


def _real(value):
    if isinstance(value, dict):
        return {name: _real(inner) for name, inner in value.items()}
    return torch.randn(value.shape)
