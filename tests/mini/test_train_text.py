"""The text stage asks for what the scene holds, and its encoder learns the order of words."""

import numpy as np
import pytest
import torch

from sipo.mini.cells import AFTER, GRID, KINDS, NOTHING, what_stands_where
from sipo.mini.pictures import draw_scene
from sipo.mini.recipe import Recipe, Schedule
from sipo.mini.scenes import sample_scene
from sipo.mini.tokenizer import make_tokenizer, tokenize
from sipo.mini.train_text import train_text
from sipo.mini.wording import all_prompts, parse
from sipo.mini.world import Scene, Thing


def test_cells_name_the_thing_that_covers_their_centre():
    red, blue = Thing("star", "red", 56.0, 8.0, 9.0), Thing("cross", "blue", 16.0, 40.0, 9.0)
    cells = what_stands_where(Scene((red, blue), (0, 0, 0))).reshape(GRID, GRID)
    expected = np.full((GRID, GRID), NOTHING)
    expected[0, 3] = KINDS.index(("star", "red"))
    expected[2, 0] = expected[2, 1] = KINDS.index(("cross", "blue"))  # between two centres, 8 pixels from each
    np.testing.assert_array_equal(cells, expected)


def test_every_thing_of_a_scene_is_in_some_cell():
    rng = np.random.default_rng(0)
    for group in all_prompts().values():
        for prompt in group[:40]:
            scene = sample_scene(prompt, rng)
            kinds = {KINDS.index((thing.shape, thing.color)) for thing in scene.things}
            assert kinds == set(what_stands_where(scene)) - {NOTHING}, prompt["prompt"]


def test_the_tokens_that_answer_follow_every_caption():
    rng = np.random.default_rng(0)
    prompts = [prompt["prompt"] for group in all_prompts().values() for prompt in group]
    prompts += [draw_scene(rng)[1]["prompt"] for _ in range(1000)]
    tokens = tokenize(make_tokenizer(), prompts)
    end = make_tokenizer().eos_token_id
    assert tokens.shape[1] >= AFTER + GRID**2
    assert bool((tokens[:, AFTER:] == end).all())
    assert bool((tokens[:, AFTER - 1] != end).any())  # the longest caption has its last word there


def shares_of_the_first_shape(reader, prompt):
    """(4, 4): the probability that the prompt's first shape stands in a cell, over all cells 1."""
    with torch.no_grad():
        states = reader["text_encoder"](tokenize(make_tokenizer(), [prompt])).last_hidden_state
        logits = reader["head"](states)[0, AFTER : AFTER + GRID**2]
    shape = parse(prompt)["include"][-1]["class"]
    columns = [k for k, (name, _) in enumerate(KINDS) if name == shape]
    share = logits.softmax(-1)[:, columns].sum(-1).view(GRID, GRID)
    return share / share.sum()


@pytest.mark.slow
def test_the_encoder_learns_where_things_stand(tmp_path):
    """From captions and scenes alone it tells "left of" from "right of", and which shape is meant, for any two."""
    reader = train_text(Recipe(text=Schedule(900, 64)), tmp_path, lambda step, metrics: None, "cpu", False)
    for first, second in [("star", "circle"), ("circle", "star"), ("cross", "square"), ("triangle", "star")]:
        of = {
            relation: shares_of_the_first_shape(reader, f"a photo of a {first} {relation} a {second}")
            for relation in ("left of", "right of", "above", "below")
        }
        assert of["left of"][:, :2].sum() > 0.8
        assert of["right of"][:, 2:].sum() > 0.8
        assert of["above"][:2].sum() > 0.8
        assert of["below"][2:].sum() > 0.8
