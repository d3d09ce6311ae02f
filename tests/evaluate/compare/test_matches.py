import itertools
import json

import pytest
from PIL import Image

from sipo.errors import UserError
from sipo.evaluate.compare.contest import Contest, contest
from sipo.evaluate.compare.files import read_comparison, write_contest
from sipo.evaluate.compare.matches import Side
from sipo.evaluate.scores.files import read_scores
from sipo.evaluate.scores.score import score
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate


class Grey:
    """The grey level of the picture."""

    name = "grey"

    def __call__(self, images, prompts, metadata=None):
        return [float(image.convert("L").getpixel((0, 0))) for image in images]


def folder(path, levels, prompts=None, tags=None, settings=None):
    """A scored folder of plain grey pictures; the scorer reads `levels` back."""
    prompts = prompts or [f"prompt {i}" for i in range(len(levels))]
    tags = tags or [None] * len(levels)
    items = [PromptItem(p, i, {"tag": t} if t else None) for i, (p, t) in enumerate(zip(prompts, tags, strict=True))]
    remaining = iter(levels)
    out = generate(
        lambda texts, seeds: [Image.new("RGB", (8, 8), (next(remaining),) * 3) for _ in texts], items, path,
        settings or {"model": "m"},
    )  # fmt: skip
    score(out, Grey())
    return out


def compare(a, b, **options):
    sides = [Side(name, path, {"grey": read_scores(path, "grey")}) for name, path in (("policy", a), ("base", b))]
    (found,) = contest(sides, ["grey"], **options).comparisons
    return found


def test_wins_ties_losses_and_the_mean_difference(tmp_path):
    a = folder(tmp_path / "a", [50, 60, 70, 80, 90])
    b = folder(tmp_path / "b", [40, 60, 90, 70, 10])
    overall = compare(a, b).overall
    tally = overall.tally
    assert (tally.wins, tally.ties, tally.losses) == (3, 1, 1)
    assert tally.win_rate.value == pytest.approx((3 + 0.5) / 5)
    assert tally.difference.value == pytest.approx((10 + 0 - 20 + 10 + 80) / 5)
    assert overall.means == (70, 54)


def test_all_wins_leave_no_doubt(tmp_path):
    a, b = folder(tmp_path / "a", range(101, 131)), folder(tmp_path / "b", range(30))
    rate = compare(a, b).overall.tally.win_rate
    assert (rate.value, rate.low, rate.high) == (1, 1, 1)


def test_the_other_way_round_is_the_mirror_image(tmp_path):
    a = folder(tmp_path / "a", [(37 * i) % 101 for i in range(40)])
    b = folder(tmp_path / "b", [(53 * i) % 97 for i in range(40)])
    ab, ba = compare(a, b).overall.tally, compare(b, a).overall.tally
    assert ba.win_rate.value == pytest.approx(1 - ab.win_rate.value)
    assert (ba.win_rate.low, ba.win_rate.high) == pytest.approx((1 - ab.win_rate.high, 1 - ab.win_rate.low))
    assert (ba.difference.low, ba.difference.high) == pytest.approx((-ab.difference.high, -ab.difference.low))


def test_a_folder_against_itself_ties(tmp_path):
    a = folder(tmp_path / "a", [10, 20, 30])
    rate = compare(a, a).overall.tally.win_rate
    assert (rate.value, rate.low, rate.high) == (0.5, 0.5, 0.5)


def test_pictures_pair_by_prompt_and_seed_and_the_rest_is_counted(tmp_path):
    """Seeds are 0, 1, 2, ... by position: only the first two positions agree in both prompt and seed."""
    a = folder(tmp_path / "a", [10, 20, 30], ["x", "y", "z"])
    b = folder(tmp_path / "b", [1, 2, 3, 4], ["x", "y", "w", "z"])
    found = compare(a, b)
    assert [(m.verdict.prompt, m.verdict.difference) for m in found.matches] == [("x", 9), ("y", 18)]
    assert found.unpaired == (1, 2)


def test_categories_partition_the_pairs(tmp_path):
    tags = ["one", "two", "one", "two", "one", None]
    a, b = folder(tmp_path / "a", [9, 9, 9, 1, 1, 9], tags=tags), folder(tmp_path / "b", [5] * 6, tags=tags)
    categories = compare(a, b).categories
    assert {name: (c.tally.wins, c.tally.losses) for name, c in categories.items()} == {"one": (2, 1), "two": (1, 1)}


def test_the_interval_is_over_prompts_not_pictures(tmp_path):
    """Two prompts with many pictures each, one all wins, one all losses: all that is known is 0, 1/2 or 1."""
    prompts = ["x"] * 20 + ["y"] * 20
    a = folder(tmp_path / "a", [9] * 20 + [1] * 20, prompts)
    rate = compare(a, folder(tmp_path / "b", [5] * 40, prompts)).overall.tally.win_rate
    assert (rate.low, rate.high) == (0, 1)


def test_a_picture_that_cannot_be_read_drops_its_pair_and_is_named(tmp_path):
    a, b = folder(tmp_path / "a", [10, 20, 30]), folder(tmp_path / "b", [1, 2, 3])
    (b / "00001.png").write_bytes(b"broken")
    score(b, Grey())
    found = compare(a, b)
    assert found.overall.tally.num_pairs == 2
    assert [s.sample.file for s in found.unscored] == ["00001.png"]


def test_scores_within_the_margin_tie(tmp_path):
    a, b = folder(tmp_path / "a", [10, 20, 30]), folder(tmp_path / "b", [11, 15, 30])
    assert [compare(a, b, tie_margin=m).overall.tally.ties for m in (0, 1, 5)] == [1, 2, 3]


def test_nothing_in_common_is_an_error(tmp_path):
    a, b = folder(tmp_path / "a", [1], ["x"]), folder(tmp_path / "b", [1], ["y"])
    with pytest.raises(UserError, match=r"Nothing to compare by 'grey': 0 samples agree .* \(policy 1, base 1\)"):
        compare(a, b)


def test_a_prompt_and_seed_twice_is_an_error(tmp_path):
    a = folder(tmp_path / "a", [1, 2])
    lines = (a / "samples.jsonl").read_text().splitlines()
    (a / "samples.jsonl").write_text("\n".join([lines[0], lines[0].replace("00000.png", "00001.png")]) + "\n")
    score(a, Grey())
    with pytest.raises(UserError, match=r"two samples of seed 0 .*: 00000\.png and 00001\.png"):
        compare(a, a)


def test_files_say_it_all_and_move_with_their_folder(tmp_path):
    old = tmp_path / "old"
    prompts = ['<b>bold</b> & "quoted" </figure><script>alert(1)</script>', "a dog"]
    a = folder(old / "policy", [10, 20], prompts, settings={"model": "m", "weights": "w", "guidance_scale": 4})
    b = folder(old / "base", [1, 30], prompts, settings={"model": "m", "weights": None, "guidance_scale": 7})
    page = write_contest(Contest((compare(a, b),)), old).read_text()
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold" in page
    assert "different settings: guidance_scale" in page
    old.rename(tmp_path / "new")
    (record,) = read_comparison(tmp_path / "new")["comparisons"]
    assert record["folders"] == ["policy", "base"]
    assert (tmp_path / "new" / record["folders"][0] / record["pairs"][0]["sides"][0]["file"]).exists()
    assert json.dumps(record, allow_nan=False)


def test_the_page_shows_the_largest_differences_both_ways_first(tmp_path):
    levels = [100 + (-1) ** i * i for i in range(60)]
    a, b = folder(tmp_path / "a", levels), folder(tmp_path / "b", [100] * 60)
    page = write_contest(Contest((compare(a, b),)), tmp_path).read_text()
    order = [page.index(f">prompt {i}<") for i in (58, 56, 54, 59, 57, 55)]
    assert all(x < y for x, y in itertools.pairwise(order))
    assert page.index("Where policy gains most") < order[0] < page.index("Where policy loses most") < order[3]
