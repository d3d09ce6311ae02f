"""Composed prompts against GenEval's own lines, the miniature's wording, and the judge that will check pictures of them."""

import itertools
import json

import pytest

from sipo.errors import UsageError, UserError
from sipo.geneval.compose import compose, every_prompt
from sipo.geneval.rules import Detection, judge
from sipo.geneval.run import ComposeRequest, compose_prompts
from sipo.geneval.vocabulary import COLORS, GENEVAL, World
from sipo.mini.wording import WORLD, parse
from sipo.samples.metadata import CATEGORIES
from sipo.samples.prompts import read_prompts

SMALL = World(("bench", "umbrella", "computer mouse", "skis"), ("red", "orange"), (3,), colorless=("skis",))
OFFICIAL = [  # lines of djghosh13/geneval: prompts/evaluation_metadata.jsonl (MIT)
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "single_object", "include": [{"class": "umbrella", "count": 1}], "prompt": "a photo of an umbrella"},
    {"tag": "two_object", "include": [{"class": "bench", "count": 1}, {"class": "computer mouse", "count": 1}],
     "prompt": "a photo of a bench and a computer mouse"},
    {"tag": "counting", "include": [{"class": "bench", "count": 3}], "exclude": [{"class": "bench", "count": 4}],
     "prompt": "a photo of three benchs"},
    {"tag": "counting", "include": [{"class": "skis", "count": 3}], "exclude": [{"class": "skis", "count": 4}],
     "prompt": "a photo of three skises"},
    {"tag": "colors", "include": [{"class": "umbrella", "count": 1, "color": "orange"}],
     "prompt": "a photo of an orange umbrella"},
    {"tag": "position", "include": [{"class": "computer mouse", "count": 1},
                                    {"class": "bench", "count": 1, "position": ["left of", 0]}],
     "prompt": "a photo of a bench left of a computer mouse"},
    {"tag": "color_attr", "include": [{"class": "umbrella", "count": 1, "color": "red"},
                                      {"class": "bench", "count": 1, "color": "orange"}],
     "prompt": "a photo of a red umbrella and an orange bench"},
]  # fmt: skip
SIZES = {"single_object": 4, "two_object": 12, "counting": 4, "colors": 6, "position": 48, "color_attr": 12}


def everything(world: World) -> list[dict]:
    return compose(sum(SIZES.values()), 0, world)


@pytest.mark.parametrize("line", OFFICIAL, ids=lambda line: line["prompt"])
def test_wording_and_metadata_are_genevals(line):
    assert line in everything(SMALL)


def test_every_prompt_of_a_world_comes_once_and_then_no_more():
    found = everything(SMALL)
    assert {tag: sum(line["tag"] == tag for line in found) for tag in CATEGORIES} == SIZES
    assert len({line["prompt"] for line in found}) == len(found)
    with pytest.raises(UserError, match=r"There are 86 different prompts of these categories, and 87 are needed"):
        compose(87, 0, SMALL)


def test_the_miniature_draws_every_prompt_of_its_world_and_parses_it_back():
    """The composer writes prompts, and the parser reads them: they agree on all 1,400."""
    listed = {line["prompt"]: line for line in itertools.chain(*every_prompt(WORLD).values())}
    assert len(listed) == 5 + 20 + 135 + 40 + 80 + 1120
    found = compose(len(listed), 0, WORLD)
    assert {line["prompt"]: line for line in found} == listed
    assert all(parse(line["prompt"]) == line for line in found)


def test_the_seed_decides():
    assert compose(300, 7) == compose(300, 7)
    assert compose(300, 7) != compose(300, 8)
    assert compose(300, 7)[:100] == compose(100, 7)


def test_categories_come_in_equal_numbers_until_one_is_spent():
    found = compose(1_200, 0)
    counts = [sum(line["tag"] == tag for line in found) for tag in CATEGORIES]
    assert counts[0] == len(GENEVAL.objects)  # there are no more objects
    assert max(counts[1:]) - min(counts[1:]) <= 1
    assert sum(counts) == 1_200


def test_objects_and_colours_come_about_equally_often():
    """1,000 coloured pairs: each of ten colours is expected 200 times, standard deviation about 13."""
    clauses = [clause for line in compose(1_000, 0, tags=["color_attr"]) for clause in line["include"]]
    counts = [sum(clause["color"] == color for clause in clauses) for color in COLORS]
    assert all(140 < count < 260 for count in counts)
    assert not any(clause["class"] == "person" for clause in clauses)


def perfect_picture(line: dict) -> dict[str, list[Detection]]:
    """What a detector finds in a picture that shows just what the prompt says: boxes far from each other."""
    places = {"left of": (-300, 0), "right of": (300, 0), "above": (0, -300), "below": (0, 300)}
    found: dict[str, list[Detection]] = {}
    for number, clause in enumerate(line["include"]):
        x, y = places[clause["position"][0]] if "position" in clause else (0 if number == 0 else 150, 0)
        for copy in range(clause["count"]):
            box = (500 + x + 30 * copy, 500 + y, 520 + x + 30 * copy, 520 + y)
            found.setdefault(clause["class"], []).append(Detection(box, 0.99, clause.get("color")))
    return found


def test_the_judge_accepts_what_was_asked_for_and_refuses_less_and_more():
    for line in compose(240, 3):
        picture = perfect_picture(line)
        assert judge(line, picture).correct, line
        for name, found in picture.items():
            assert not judge(line, picture | {name: found[1:]}).correct, line
            if line["tag"] == "counting":
                assert not judge(line, picture | {name: [*found, Detection((900, 900, 920, 920), 0.99)]}).correct, line


def test_prompts_to_avoid_do_not_come(tmp_path):
    avoided = [line["prompt"] for line in compose(60, 0, SMALL)]
    (tmp_path / "test.txt").write_text("\n".join(f"  {prompt.replace(' ', '  ')} " for prompt in avoided))
    rest = compose(26, 0, SMALL, avoid=[item.prompt for item in read_prompts(tmp_path / "test.txt")])
    assert not {line["prompt"] for line in rest} & set(avoided)
    with pytest.raises(UserError, match="There are 26 different"):
        compose(27, 0, SMALL, avoid=avoided)


def test_the_miniatures_held_out_prompts_never_come(tmp_path):
    out = tmp_path / "prompts.jsonl"
    counts = compose_prompts(ComposeRequest(out, 400, 0, "miniature"))
    found = read_prompts(out)
    assert len(found) == 400 == sum(counts.values())
    assert {item.metadata["tag"] for item in found} == set(CATEGORIES)
    assert not {item.prompt for item in found} & {item.prompt for item in read_prompts("miniature")}


def test_the_file_is_what_generate_and_geneval_read(tmp_path):
    out = tmp_path / "prompts.jsonl"
    counts = compose_prompts(ComposeRequest(out, 12, tags=["counting", "colors"]))
    assert counts == {tag: 6 if tag in ("counting", "colors") else 0 for tag in CATEGORIES}
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{"prompt": item.prompt, **item.metadata} for item in read_prompts(out)] == lines


def test_mistakes(tmp_path):
    with pytest.raises(UsageError, match=r"no prompts of the category 'shapes'; there are single_object, two_object"):
        compose(1, tags=["shapes"])
    with pytest.raises(UsageError, match="--world: 'mars' is none of geneval, miniature"):
        compose_prompts(ComposeRequest(tmp_path / "p.jsonl", 1, world="mars"))
    with pytest.raises(UsageError, match=r"p\.txt should end in \.jsonl"):
        compose_prompts(ComposeRequest(tmp_path / "p.txt", 1))
