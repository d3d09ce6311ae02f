"""Weights are tensors or they are refused; what is wrong with them is named."""

import os
import pickle
import shutil

import pytest
import torch
from transformers import CLIPModel

from sipo.errors import UserError
from sipo.scorers.aesthetic import LaionAesthetic
from sipo.scorers.clip_score import ClipScore
from sipo.scorers.hps import HPSv2
from sipo.scorers.image_reward import ImageReward
from sipo.scorers.open_clip import config_of
from sipo.scorers.pickscore import PickScore
from sipo.scorers.weights import find_file, read_tensors


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def poison(file, traces) -> None:
    torch.save({"state_dict": {"layers.0.weight": Malicious(traces)}}, file)


def test_the_poison_works(tmp_path):
    poison(tmp_path / "x.pt", tmp_path / "ran")
    torch.load(tmp_path / "x.pt", weights_only=False)  # a file of this test's own: the refusals below refuse something
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("scorer", [HPSv2, ImageReward, LaionAesthetic])
def test_a_checkpoint_with_code_is_refused_and_not_run(scorer, tmp_path, pictures):
    poison(tmp_path / "x.pt", tmp_path / "ran")
    with pytest.raises(UserError, match="refused, because it holds more than tensors"):
        scorer(str(tmp_path / "x.pt"), device="cpu")(pictures[:1], ["a"])
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Malicious(tmp_path / "ran"), protocol=2))
    with pytest.raises(UserError):
        scorer(str(tmp_path / "y.pt"), device="cpu")(pictures[:1], ["a"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("scorer", [PickScore, ClipScore, HPSv2])
def test_a_folder_with_code_is_refused_and_not_run(scorer, clip_folder, tmp_path, pictures):
    shutil.copytree(clip_folder, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    poison(tmp_path / "clip" / "pytorch_model.bin", tmp_path / "ran")
    with pytest.raises(UserError, match=r"refused|does not load"):
        scorer(str(tmp_path / "clip"), device="cpu")(pictures[:1], ["a"])
    assert not (tmp_path / "ran").exists()


def test_a_folder_with_a_plain_bin_loads(clip_folder, tmp_path, pictures, prompts):
    shutil.copytree(clip_folder, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    torch.save(CLIPModel.from_pretrained(clip_folder).state_dict(), tmp_path / "clip" / "pytorch_model.bin")
    expected = PickScore(str(clip_folder), device="cpu")(pictures, prompts)
    assert PickScore(str(tmp_path / "clip"), device="cpu")(pictures, prompts) == expected


def test_missing_tensors_are_an_error_not_random_numbers(clip_folder, open_clip_file, tmp_path, pictures):
    shutil.copytree(clip_folder, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").unlink()
    state = CLIPModel.from_pretrained(clip_folder).state_dict()
    del state["visual_projection.weight"]
    torch.save(state, tmp_path / "clip" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"1 of its tensors are missing, visual_projection\.weight first"):
        PickScore(str(tmp_path / "clip"), device="cpu")(pictures[:1], ["a"])

    path, _ = open_clip_file
    state = torch.load(path, weights_only=True)["state_dict"]
    tokenizer = str(path.parent)
    for change, said in [
        (lambda s: s.pop("ln_final.weight"), "missing, text_model.final_layer_norm.weight"),
        (lambda s: s.pop("visual.proj"), "missing or unexpected 'visual.proj'"),
        (lambda s: s.update({"visual.extra": torch.zeros(1)}), "missing or unexpected 'visual.extra'"),
    ]:
        changed = dict(state)
        change(changed)
        torch.save(changed, tmp_path / "x.pt")
        with pytest.raises(UserError, match=said):
            HPSv2(str(tmp_path / "x.pt"), tokenizer=tokenizer, device="cpu")(pictures[:1], ["a"])


def test_prefixes_of_parallel_training_go(open_clip_file, tmp_path):
    state = torch.load(open_clip_file[0], weights_only=True)["state_dict"]
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "x.pt")
    assert read_tensors(tmp_path / "x.pt").keys() == state.keys()


def test_paths_are_named(tmp_path, clip_folder, head_file, pictures):
    for weights, said in [
        (str(tmp_path / "absent.pt"), "there is no"),
        (str(tmp_path), "holds no ImageReward.pt or ImageReward.safetensors"),
        ("nobody/nothing", "neither a local path nor a reachable hub repository with ImageReward.pt"),
    ]:
        with pytest.raises(UserError, match=said):
            ImageReward(weights, device="cpu")(pictures[:1], ["a"])
    with pytest.raises(UserError, match="nobody/nothing does not load as CLIPModel"):
        PickScore("nobody/nothing", device="cpu")(pictures[:1], ["a"])
    with pytest.raises(UserError, match=r"there is no \./absent"):
        PickScore("./absent", device="cpu")(pictures[:1], ["a"])
    for content in (b"", b"no weights", b"PK\x03\x04 cut off"):
        (tmp_path / "x.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.pt"):
            read_tensors(tmp_path / "x.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(UserError, match="not a state dict"):
        read_tensors(tmp_path / "list.pt")
    assert find_file(str(head_file.parent), "a.pth", head_file.name) == head_file


def test_a_head_of_another_clip_is_named(tmp_path, clip_folder, pictures):
    from sipo.scorers.aesthetic import AestheticHead

    torch.save(AestheticHead(768).state_dict(), tmp_path / "head.pth")
    with pytest.raises(UserError, match=r"takes features of width 768, and .* has 24"):
        LaionAesthetic(str(tmp_path / "head.pth"), clip=str(clip_folder), device="cpu")(pictures[:1], ["a"])
    state = AestheticHead(24).state_dict()
    del state["layers.7.bias"]
    torch.save(state, tmp_path / "head.pth")
    with pytest.raises(UserError, match=r"not a linear head: .*layers\.7\.bias"):
        LaionAesthetic(str(tmp_path / "head.pth"), clip=str(clip_folder), device="cpu")(pictures[:1], ["a"])


def test_vit_h_14_is_what_its_shapes_say():
    """Against open_clip's ViT-H-14.json: 1280 wide, 32 layers, heads of 80; 1024 wide, 24 layers, 16 heads; 1024 out."""
    shapes = {
        "visual.conv1.weight": (1280, 3, 14, 14), "visual.positional_embedding": (257, 1280), "visual.proj": (1280, 1024),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": (5120, 1280), "token_embedding.weight": (49408, 1024),
        "positional_embedding": (77, 1024), "transformer.resblocks.0.mlp.c_fc.weight": (4096, 1024),
        **{f"visual.transformer.resblocks.{i}.ln_1.weight": (1280,) for i in range(32)},
        **{f"transformer.resblocks.{i}.ln_1.weight": (1024,) for i in range(24)},
    }  # fmt: skip
    config = config_of({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    with torch.device("meta"):
        model = CLIPModel(config)
    assert sum(p.numel() for p in model.parameters()) == 986_109_441
    assert (config.vision_config.image_size, config.vision_config.num_attention_heads) == (224, 16)
    assert (config.text_config.num_attention_heads, config.text_config.eos_token_id) == (16, 49407)
    assert config.vision_config.hidden_act == config.text_config.hidden_act == "gelu"
