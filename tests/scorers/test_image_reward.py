"""ImageReward against salesforce/BLIP's own forward, written out on the checkpoint's own names."""

import math

import pytest
import torch
from torch.nn.functional import conv2d, gelu, layer_norm, linear
from transformers import BertTokenizer

from sipo.errors import UserError
from sipo.scorers.image_reward import ImageReward
from sipo.scorers.preprocess import crop_pixels


def plain_reward(state: dict, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> float:
    """One picture (1, 3, 32, 32), one prompt (1, 35). Heads are 64 wide; norms have 1e-6 (picture) and 1e-12 (text)."""

    def dense(x, name):
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name, eps):
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(q, k, v, bias):
        split = lambda x: x.view(1, x.shape[1], -1, 64).transpose(1, 2)  # noqa: E731
        weights = (split(q) @ split(k).transpose(-1, -2) / math.sqrt(64) + bias).softmax(-1)
        return (weights @ split(v)).transpose(1, 2).reshape(q.shape)

    eye = "blip.visual_encoder"
    x = conv2d(pixels, state[f"{eye}.patch_embed.proj.weight"], state[f"{eye}.patch_embed.proj.bias"], stride=8)
    x = torch.cat([state[f"{eye}.cls_token"], x.flatten(2).transpose(1, 2)], dim=1) + state[f"{eye}.pos_embed"]
    for i in range(2):
        block = f"{eye}.blocks.{i}"
        x = x + dense(
            attend(*dense(norm(x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv").chunk(3, -1), 0), f"{block}.attn.proj"
        )
        inner = gelu(dense(norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"))
        x = x + dense(inner, f"{block}.mlp.fc2")
    x = norm(x, f"{eye}.norm", 1e-6)

    pen = "blip.text_encoder"
    y = state[f"{pen}.embeddings.word_embeddings.weight"][ids]
    y = y + state[f"{pen}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    y = norm(y, f"{pen}.embeddings.LayerNorm", 1e-12)
    hidden = (1 - mask[:, None, None].float()) * -10000
    for i in range(2):
        layer = f"{pen}.encoder.layer.{i}"
        for name, source, bias in ((f"{layer}.attention", None, hidden), (f"{layer}.crossattention", x, 0)):
            seen = y if source is None else source
            mixed = attend(
                dense(y, f"{name}.self.query"), dense(seen, f"{name}.self.key"), dense(seen, f"{name}.self.value"), bias
            )
            y = norm(dense(mixed, f"{name}.output.dense") + y, f"{name}.output.LayerNorm", 1e-12)
        inner = gelu(dense(y, f"{layer}.intermediate.dense"))
        y = norm(dense(inner, f"{layer}.output.dense") + y, f"{layer}.output.LayerNorm", 1e-12)
    z = y[:, 0]
    for number in (0, 2, 4, 6, 7):
        z = dense(z, f"mlp.layers.{number}")
    return float((z[0, 0] - 0.16717362830052426) / 1.0333394966054072)


def test_the_reward_is_blips_reading_of_prompt_and_picture(image_reward_folder, pictures, prompts):
    state = torch.load(image_reward_folder / "ImageReward.pt", weights_only=True)
    tokenizer = BertTokenizer.from_pretrained(image_reward_folder)
    expected = []
    for picture, prompt in zip(pictures, prompts, strict=True):
        tokens = tokenizer(prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
        expected.append(plain_reward(state, crop_pixels(picture, 32)[None], tokens.input_ids, tokens.attention_mask))
    found = torch.tensor(ImageReward(str(image_reward_folder), device="cpu")(pictures, prompts))
    assert torch.tensor(expected).std() > 0.1
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_prompt_and_picture_both_matter(image_reward_folder, pictures, prompts):
    scorer = ImageReward(str(image_reward_folder / "ImageReward.pt"), device="cpu")
    assert len({round(value, 4) for value in scorer([pictures[0]] * 3, prompts[:3])}) == 3
    assert len({round(value, 4) for value in scorer(pictures[:3], [prompts[0]] * 3)}) == 3


def test_the_published_architecture_is_what_its_shapes_say():
    from sipo.scorers.blip import configs_of

    shapes = {
        "blip.visual_encoder.pos_embed": (1, 197, 1024), "blip.visual_encoder.patch_embed.proj.weight": (1024, 3, 16, 16),
        "blip.visual_encoder.blocks.0.mlp.fc1.weight": (4096, 1024),
        **{f"blip.visual_encoder.blocks.{i}.norm1.weight": (1024,) for i in range(24)},
        "blip.text_encoder.embeddings.word_embeddings.weight": (30524, 768),
        "blip.text_encoder.embeddings.position_embeddings.weight": (512, 768),
        "blip.text_encoder.encoder.layer.0.crossattention.self.key.weight": (768, 1024),
        **{f"blip.text_encoder.encoder.layer.{i}.intermediate.dense.weight": (3072, 768) for i in range(12)},
    }  # fmt: skip
    vision, text = configs_of({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert (vision.image_size, vision.patch_size, vision.num_hidden_layers) == (224, 16, 24)
    assert (vision.num_attention_heads, vision.layer_norm_eps, vision.intermediate_size) == (16, 1e-6, 4096)
    assert (text.num_attention_heads, text.num_hidden_layers, text.encoder_hidden_size) == (12, 12, 1024)
    assert (text.vocab_size, text.layer_norm_eps, text.hidden_act) == (30524, 1e-12, "gelu")


def test_another_checkpoint_is_named(image_reward_folder, tmp_path, pictures):
    state = torch.load(image_reward_folder / "ImageReward.pt", weights_only=True)
    for change, said in [
        ({"strange.weight": torch.zeros(1)}, "unexpected 'strange.weight'"),
        ({"mlp.layers.0.weight": torch.zeros(3)}, "not a linear head"),
    ]:
        path = tmp_path / "other.pt"
        torch.save(state | change, path)
        with pytest.raises(UserError, match=said):
            ImageReward(str(path), tokenizer=str(image_reward_folder), device="cpu")(pictures[:1], ["a"])
    torch.save({k: v for k, v in state.items() if "crossattention.output.dense" not in k}, path)
    with pytest.raises(UserError, match=r"tensors are missing, encoder\.layer\.0\.crossattention"):
        ImageReward(str(path), tokenizer=str(image_reward_folder), device="cpu")(pictures[:1], ["a"])
