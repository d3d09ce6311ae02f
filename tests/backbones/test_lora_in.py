"""LoRA files of other programs are used in full, as peft or the papers' formulas say, or are refused with a count."""

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sipo.backbones import load_backbone
from sipo.backbones.lora_merge import fit, merge, read_lora_file
from sipo.config import ModelConfig
from sipo.errors import UserError

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
ENDS = {
    "unet": ("to_q", "to_k", "to_v", "to_out.0"),
    "text_encoder": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}


def kohya(pipeline, parts=("unet", "text_encoder"), prefixes=PREFIXES) -> dict[str, torch.Tensor]:
    """A LoRA as kohya's scripts write it: rank 2, alpha 1."""
    draw, tensors = torch.Generator().manual_seed(0), {}
    for part in parts:
        for name, layer in getattr(pipeline, part).named_modules():
            if isinstance(layer, nn.Linear) and name.endswith(ENDS[part]):
                key = prefixes[part] + name.removeprefix("text_model.").replace(".", "_")
                tensors[f"{key}.lora_down.weight"] = torch.randn(2, layer.in_features, generator=draw) * 0.3
                tensors[f"{key}.lora_up.weight"] = torch.randn(layer.out_features, 2, generator=draw) * 0.3
                tensors[f"{key}.alpha"] = torch.tensor(1.0)
    return tensors


@pytest.fixture(scope="module")
def base(tiny_sd):
    return load_backbone(ModelConfig(str(tiny_sd)))


def test_text_encoders_with_and_without_a_cache(tiny_sd, base, tmp_path):
    """Encoders that stay on disk get their part of the LoRA when they are loaded; a cache depends on it."""
    tensors = kohya(base.pipeline)
    save_file(tensors, tmp_path / "style.safetensors")
    model = ModelConfig(str(tiny_sd), lora=str(tmp_path / "style.safetensors"))
    loaded, on_disk = load_backbone(model), load_backbone(model, encoders=False)
    layer = "encoder.layers.0.self_attn.q_proj"
    key = f"lora_te_text_model_{layer.replace('.', '_')}"
    change = tensors[f"{key}.lora_up.weight"] @ tensors[f"{key}.lora_down.weight"] / 2
    find = {n.removeprefix("text_model."): m for n, m in base.pipeline.text_encoder.named_modules()}
    ours = {n.removeprefix("text_model."): m for n, m in loaded.pipeline.text_encoder.named_modules()}
    assert torch.allclose(ours[layer].weight, find[layer].weight + change)
    for _ in range(2):  # every time that they are loaded
        with on_disk.encoders():
            hidden = on_disk.encode_prompts(["a cat"])["encoder_hidden_states"]
        assert torch.equal(hidden, loaded.encode_prompts(["a cat"])["encoder_hidden_states"])
    assert not torch.allclose(hidden, base.encode_prompts(["a cat"])["encoder_hidden_states"])
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.denoiser.parameters(), on_disk.denoiser.parameters(), strict=True)
    )
    assert loaded.fingerprint() == on_disk.fingerprint()
    assert "lora" in loaded.fingerprint()


def test_a_lora_of_the_denoiser_alone_leaves_caches_alone(tiny_sd, base, tmp_path):
    save_file(kohya(base.pipeline, ["unet"]), tmp_path / "a.safetensors")
    model = ModelConfig(str(tiny_sd), lora=str(tmp_path))  # the only file of a folder
    assert load_backbone(model).fingerprint() == base.fingerprint()


def test_dora_is_pefts(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.Conv2d(3, 4, 3))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0", "1"], use_dora=True, init_lora_weights=False)
    model = peft.get_peft_model(network, config)
    for name, weight in model.named_parameters():
        if "magnitude" in name:
            weight.data *= 1.5
    state = peft.get_peft_model_state_dict(model)
    tensors = {key.removeprefix("base_model.model."): value.clone() for key, value in state.items()}
    tensors |= {f"{n}.alpha": torch.tensor(3.0) for n in "01"}
    save_file(tensors, tmp_path / "a.safetensors")
    theirs = model.merge_and_unload()
    ours = nn.Sequential(nn.Linear(6, 5), nn.Conv2d(3, 4, 3))
    ours.load_state_dict(before)
    merge(fit(read_lora_file(tmp_path / "a.safetensors"), {"unet": ours}, {}), {"unet": ours})
    for name, weight in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], weight, atol=1e-5)
        assert torch.equal(weight, before[name]) == name.endswith("bias")


@pytest.mark.parametrize("tucker", [False, True])
def test_loha_is_its_formula(tmp_path, tucker):
    torch.manual_seed(0)
    network = nn.ModuleDict({"a": nn.Conv2d(3, 4, 3)})
    before = network["a"].weight.detach().clone()
    rank, tensors = 2, {"lora_unet_a.alpha": torch.tensor(1.0)}
    for n in (1, 2):
        columns = 3 if tucker else 27
        tensors[f"lora_unet_a.hada_w{n}_a"] = torch.randn(rank, 4) if tucker else torch.randn(4, rank)
        tensors[f"lora_unet_a.hada_w{n}_b"] = torch.randn(rank, columns)
        if tucker:
            tensors[f"lora_unet_a.hada_t{n}"] = torch.randn(rank, rank, 3, 3)
    change = 1.0
    for n in (1, 2):
        a, b = tensors[f"lora_unet_a.hada_w{n}_a"], tensors[f"lora_unet_a.hada_w{n}_b"]
        if tucker:  # LyCORIS, functional/loha.py
            change = change * torch.einsum("i j k l, j r, i p -> p r k l", tensors[f"lora_unet_a.hada_t{n}"], b, a)
        else:
            change = change * (a @ b).reshape(4, 3, 3, 3)
    save_file(tensors, tmp_path / "a.safetensors")
    merge(fit(read_lora_file(tmp_path / "a.safetensors"), {"unet": network}, {}), {"unet": network})
    assert torch.allclose(network["a"].weight, before + change / rank, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 64])
@pytest.mark.parametrize("both", [False, True])
def test_lokr_is_pefts(tmp_path, rank, both):
    """With a large rank the second factor is whole, with `both` the first one is a product too."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 36), nn.Conv2d(8, 12, 3))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    config = peft.LoKrConfig(r=rank, alpha=3 * rank, target_modules=["0", "1"], init_weights=False, decompose_both=both,
                             decompose_factor=4, use_effective_conv2d=False)  # fmt: skip
    model = peft.get_peft_model(network, config)
    state = peft.get_peft_model_state_dict(model)
    tensors = {key.removeprefix("base_model.model."): value.clone() for key, value in state.items()}
    for name in "01":  # LyCORIS scales products alone
        product = any(f"{name}.lokr_{factor}_b" in tensors for factor in ("w1", "w2"))
        tensors[f"{name}.alpha"] = torch.tensor(3.0 * rank)
        if not product:
            tensors[f"{name}.lokr_w1"] *= 3.0
    save_file({f"lora_unet_{key}": value for key, value in tensors.items()}, tmp_path / "a.safetensors")
    merged = model.merge_and_unload().state_dict()
    fresh = nn.Sequential(nn.Linear(16, 36), nn.Conv2d(8, 12, 3))
    fresh.load_state_dict(before)
    merge(fit(read_lora_file(tmp_path / "a.safetensors"), {"unet": fresh}, {}), {"unet": fresh})
    for name, weight in fresh.state_dict().items():
        torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-5)
        assert name.endswith("bias") or not torch.allclose(weight, before[name])


def test_lokr_with_a_core_is_its_formula(tmp_path):
    """LyCORIS: dW = kron(w1, w2), w2 = einsum of the core with both factors."""
    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("a", nn.Conv2d(6, 8, 3))
    before, rank = network.a.weight.clone(), 2
    tensors = {
        "w1": torch.randn(2, 3),
        "t2": torch.randn(rank, rank, 3, 3),
        "w2_a": torch.randn(rank, 4),
        "w2_b": torch.randn(rank, 2),
    }
    save_file({f"lora_unet_a.lokr_{key}": value for key, value in tensors.items()} | {"lora_unet_a.alpha": torch.tensor(1.0)},
              tmp_path / "a.safetensors")  # fmt: skip
    merge(fit(read_lora_file(tmp_path / "a.safetensors"), {"unet": network}, {}), {"unet": network})
    two = torch.einsum("i j k l, j r, i p -> p r k l", tensors["t2"], tensors["w2_b"], tensors["w2_a"])
    change = torch.stack([
        torch.cat([tensors["w1"][a, b] * two for b in range(3)], dim=1) for a in range(2)
    ]).flatten(0, 1) / rank  # fmt: skip
    torch.testing.assert_close(network.a.weight, before + change)


def test_a_lora_that_would_change_nothing_is_refused(base, tmp_path):
    tensors = {k: torch.zeros(()) if k.endswith("alpha") else v for k, v in kohya(base.pipeline, ["unet"]).items()}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="would change nothing: its alpha is 0 in every module"):
        load_backbone(ModelConfig(base.model.path, lora=str(tmp_path / "a.safetensors")))


def test_factors_that_do_not_fit_each_other_are_named(tmp_path):
    network = nn.Sequential()
    network.add_module("a", nn.Linear(6, 8))
    tensors = {"w1": torch.randn(2, 3), "w2_a": torch.randn(4, 2), "w2_b": torch.randn(3, 2)}
    save_file({f"lora_unet_a.lokr_{key}": value for key, value in tensors.items()}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="the tensors of lora_unet_a do not fit each other"):
        fit(read_lora_file(tmp_path / "a.safetensors"), {"unet": network}, {})


def test_convolutions_with_a_core(tmp_path):
    """LoCon's Tucker form: a 1 x 1 down, a core, a 1 x 1 up, one after the other, are the convolution."""
    torch.manual_seed(0)
    network = nn.ModuleDict({"a": nn.Conv2d(3, 4, 3, bias=False)})
    before = network["a"].weight.detach().clone()
    down, mid, up = torch.randn(2, 3, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(4, 2, 1, 1)
    names = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up}
    save_file({f"lora_unet_a.{key}": value for key, value in names.items()}, tmp_path / "a.safetensors")
    merge(fit(read_lora_file(tmp_path / "a.safetensors"), {"unet": network}, {}), {"unet": network})
    x = torch.randn(1, 3, 8, 8)
    conv = torch.nn.functional.conv2d
    expected = conv(x, before) + conv(conv(conv(x, down), mid), up)
    assert torch.allclose(network["a"](x), expected, atol=1e-4)


def foreign(kind: str, tensors: dict) -> tuple[dict, int]:
    """The tensors with a foreign part, and how many those are."""
    if kind == "second text encoder":
        more = {
            f"lora_te2_text_model_x.{end}": torch.zeros(2, 2) for end in ("lora_down.weight", "lora_up.weight", "alpha")
        }
    elif kind == "another model's blocks":
        more = {
            f"lora_unet_double_blocks_0_img_attn_qkv.{end}": torch.zeros(2, 2)
            for end in ("lora_down.weight", "lora_up.weight")
        }
    elif kind == "lokr":
        more = {f"{next(iter(tensors)).split('.')[0]}x.lokr_w{n}": torch.zeros(2, 2) for n in (1, 2)}
    elif kind == "half a pair":
        more = {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(2, 32)}
    else:
        more = {"bundle_emb.word.string_to_param.*": torch.zeros(1)}
    return tensors | more, len(more)


@pytest.mark.parametrize("kind", ["second text encoder", "another model's blocks", "lokr", "half a pair", "embedding"])
@pytest.mark.parametrize("encoders", [True, False])
def test_what_would_be_left_over_is_counted(tiny_sd, base, tmp_path, kind, encoders):
    tensors, number = foreign(kind, kohya(base.pipeline))
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=f"{number} of its {len(tensors)} tensors would be left over"):
        load_backbone(ModelConfig(str(tiny_sd), lora=str(tmp_path / "a.safetensors")), encoders=encoders)


def test_two_text_encoders(tiny_sdxl, tmp_path):
    pipeline = load_backbone(ModelConfig(str(tiny_sdxl))).pipeline
    tensors = kohya(pipeline, ["unet", "text_encoder"], {**PREFIXES, "text_encoder": "lora_te1_text_model_"})
    second = {k.replace("lora_te1_", "lora_te2_"): v.clone() for k, v in tensors.items() if k.startswith("lora_te1_")}
    save_file(tensors | second, tmp_path / "a.safetensors")
    merged = load_backbone(ModelConfig(str(tiny_sdxl), lora=str(tmp_path / "a.safetensors"))).pipeline
    for part in ("text_encoder", "text_encoder_2"):
        changed = [
            not torch.equal(a, b)
            for a, b in zip(getattr(merged, part).parameters(), getattr(pipeline, part).parameters(), strict=True)
        ]
        assert sum(changed) == len(second) // 3
