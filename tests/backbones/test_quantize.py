"""Quantised layers against transcriptions of their formulas, against plain layers of the same numbers, and against the libraries."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sipo.backbones import load_backbone
from sipo.backbones.lora import add_adapters
from sipo.backbones.quantize import QuantizedLinear, num_entries, quantize, quantized_bytes
from sipo.config import ModelConfig
from sipo.errors import UserError

ROWS, COLUMNS = 24, 32
KINDS = ["int8", "fp8", pytest.param("nf4", marks=pytest.mark.nf4)]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(COLUMNS, ROWS), nn.Linear(ROWS, COLUMNS, bias=False)
        self.requires_grad_(False)

    def forward(self, x):
        return self.two(F.silu(self.one(x)))


def quantized(kind: str, compute=torch.float32) -> Network:
    network = Network().to(compute)
    quantize(network, kind, compute)
    return network


def error(kind: str, compute=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    weight = Network().one.weight.to(compute)
    return weight.float(), quantized(kind, compute).one.dequantized(compute).float()


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16, torch.float16])
def test_int8_is_within_half_a_step_of_each_row(compute):
    weight, found = error("int8", compute)
    step = weight.abs().amax(1, keepdim=True) / 127.5
    assert ((found - weight).abs() <= step * 0.55 + weight.abs() * 2 * torch.finfo(compute).eps).all()
    assert len(found[0].unique()) > COLUMNS / 2  # no coarser than that


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16, torch.float16])
def test_fp8_has_four_significant_bits(compute):
    weight, found = error("fp8", compute)
    smallest = weight.abs().amax(1, keepdim=True) / 448 * 2**-9  # the step below e4m3's normal numbers
    assert ((found - weight).abs() <= weight.abs() * 2**-4 * 1.05 + smallest).all()
    assert ((found - weight).abs() > weight.abs() * 2**-6).any()


def test_int8_and_fp8_are_the_numbers_of_torchao():
    quantization = pytest.importorskip("torchao.quantization", reason="an independent implementation")
    configs = {"int8": quantization.Int8WeightOnlyConfig(), "fp8": quantization.Float8WeightOnlyConfig()}
    for kind, config in configs.items():
        theirs = Network()
        quantization.quantize_(theirs, config)
        ours = quantized(kind)
        for layer in ("one", "two"):
            own, other = getattr(ours, layer), getattr(theirs, layer).weight
            apart = own.weight.view(own.stored).float() != other.qdata.float()
            assert apart.sum() <= 0.01 * apart.numel()  # at ties: they multiply by 1 / s
            assert torch.allclose(own.scale, other.scale, rtol=1e-6, atol=0)


@pytest.mark.nf4
def test_nf4_is_the_nearest_of_sixteen_values_of_each_block():
    """QLoRA, appendix E; the scale of a block is in 8 bits itself, which moves it by less than 4% of the largest."""
    table = torch.tensor([
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
        -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ])  # fmt: skip
    weight, found = error("nf4")
    blocks = weight.view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = table[(blocks / scale).unsqueeze(-1).sub(table).abs().argmin(-1)] * scale
    assert (found.view(-1, 64) - nearest).abs().max() < 0.04 * scale.max()


@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward_are_those_of_a_plain_layer_with_the_same_numbers(kind):
    ours, plain = quantized(kind), Network()
    for layer in ("one", "two"):
        getattr(plain, layer).weight.copy_(getattr(ours, layer).dequantized(torch.float32))
    inputs = [torch.randn(3, 5, COLUMNS, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    outputs = [network(x) for network, x in zip((ours, plain), inputs, strict=True)]
    assert outputs[0].equal(outputs[1])
    for out in outputs:
        out.square().sum().backward()
    assert inputs[0].grad.equal(inputs[1].grad)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_computes_in_its_dtype(kind):
    ours, x = quantized(kind, torch.bfloat16), torch.randn(3, COLUMNS).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(x)
        same = F.linear(F.silu(F.linear(x, ours.one.dequantized(torch.bfloat16), ours.one.bias)),
                        ours.two.dequantized(torch.bfloat16))  # fmt: skip
    assert out.dtype == torch.bfloat16
    assert out.equal(same)
    out.float().sum().backward()
    assert x.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_no_dequantised_weight_is_kept_for_the_backward(kind):
    """What torchao's own layers do, and why they are not used."""
    ours, x, saved = quantized(kind), torch.randn(3, COLUMNS).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        ours(x)
    assert max(saved) <= 3 * COLUMNS  # activations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [16, 384])  # of nf4 one scale of scales, and several
def test_bytes_are_those_that_are_stored(kind, rows):
    network = nn.Sequential(nn.Linear(100, rows, bias=False)).requires_grad_(False)
    quantize(network, kind, torch.bfloat16)
    layer = network[0]
    stored = sum(weight.nbytes for weight in layer.parameters())
    if kind == "nf4":
        state = layer.state
        parts = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
        stored += sum(part.nbytes for part in parts)
    assert quantized_bytes(kind, rows, 100, torch.bfloat16) == stored


def test_what_a_network_keeps_in_float32_stays(tiny_family):
    """Wan's `time_embedder`, as diffusers leaves it."""
    model = ModelConfig(str(tiny_family("wan")), quantize="int8")
    backbone = load_backbone(model)
    entries = num_entries(backbone.denoiser)
    backbone.quantize()
    linear = {name: module for name, module in backbone.denoiser.named_modules() if isinstance(module, nn.Linear)}
    plain = {name for name, module in linear.items() if not isinstance(module, QuantizedLinear)}
    assert plain == {"condition_embedder.time_embedder.linear_1", "condition_embedder.time_embedder.linear_2"}
    assert len(linear) > 20
    assert (
        num_entries(backbone.denoiser) == entries == sum(w.numel() for w in load_backbone(model).denoiser.parameters())
    )


def test_no_lora_is_merged_into_quantised_weights(tiny_sd, tmp_path):
    backbone = load_backbone(ModelConfig(str(tiny_sd), quantize="int8"))
    backbone.save_lora(tmp_path, add_adapters(backbone.denoiser, backbone.lora_targets, 2, 2.0))
    other = load_backbone(ModelConfig(str(tiny_sd), quantize="int8"))
    other.merge_lora(tmp_path)
    other.quantize()
    with pytest.raises(UserError, match="merge into the model as it was loaded"):
        other.merge_lora(tmp_path)


def test_nf4_without_bitsandbytes_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(UserError, match=r"sipo\[8bit\]"):
        quantized("nf4")
