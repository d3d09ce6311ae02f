"""VBench's prompts, the names and numbers of its videos, and the results its package writes."""

import json

import pytest

from sipo.errors import UserError
from sipo.samples.generate import generate
from sipo.vbench import files
from sipo.vbench.run import results_table
from sipo.vbench.totals import DIMENSIONS

SUITES = {  # prompts/README.md: the table of dimensions and their prompt suites
    "subject_consistency": "subject_consistency", "background_consistency": "scene",
    "temporal_flickering": "temporal_flickering", "motion_smoothness": "subject_consistency",
    "dynamic_degree": "subject_consistency", "aesthetic_quality": "overall_consistency",
    "imaging_quality": "overall_consistency", "object_class": "object_class", "multiple_objects": "multiple_objects",
    "human_action": "human_action", "color": "color", "spatial_relationship": "spatial_relationship",
    "scene": "scene", "temporal_style": "temporal_style", "appearance_style": "appearance_style",
    "overall_consistency": "overall_consistency",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """prompts_per_dimension with two prompts a suite; one prompt stands in two suites, as VBench has it."""
    path = tmp_path / "prompts_per_dimension"
    path.mkdir()
    for suite in sorted(set(SUITES.values())):
        (path / f"{suite}.txt").write_text(f"{suite} one\n{suite} two\n")
    (path / "appearance_style.txt").write_text("The bund Shanghai, oil painting\nappearance_style two")
    (path / "overall_consistency.txt").write_text("overall_consistency one\r\nThe bund Shanghai, oil painting \n\n")
    return path


@pytest.fixture
def info(tmp_path, folder):
    """The same as VBench_full_info.json gives it: an entry a suite and prompt."""
    entries = [
        {"prompt_en": line.strip(), "dimension": [d for d, suite in SUITES.items() if suite == path.stem]}
        for path in sorted(folder.iterdir())
        for line in path.read_text().splitlines()
        if line.strip()
    ]
    (tmp_path / "VBench_full_info.json").write_text(json.dumps(entries))
    return tmp_path / "VBench_full_info.json"


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_each_dimension_has_the_prompts_of_its_suite(folder, dimension):
    prompts = [entry.prompt for entry in files.read_suite(folder, [dimension])]
    expected = [line.strip() for line in (folder / f"{SUITES[dimension]}.txt").read_text().splitlines() if line.strip()]
    assert prompts == expected


def test_the_json_and_the_folder_say_the_same(folder, info):
    assert files.read_suite(info) == files.read_suite(folder)
    for dimension in DIMENSIONS:
        chosen = [entry.prompt for entry in files.read_suite(info, [dimension])]
        assert chosen == [entry.prompt for entry in files.read_suite(folder, [dimension])]


def test_a_prompt_of_two_suites_is_made_once(folder):
    suite = files.read_suite(folder)
    assert len(suite) == len({entry.prompt for entry in suite}) == 2 * 11 - 1
    (bund,) = [entry for entry in suite if entry.prompt.startswith("The bund")]
    assert set(bund.dimensions) == {"appearance_style", "overall_consistency", "aesthetic_quality", "imaging_quality"}


def test_five_videos_a_prompt_and_twenty_five_for_flickering(folder):
    items, names = files.plan_videos(files.read_suite(folder), seed=100)
    assert len(names) == len(set(names)) == 19 * 5 + 2 * 25
    assert [item.seed for item in items] == list(range(100, 100 + len(items)))
    assert {n for n in names if n.startswith("color one")} == {f"color one-{i}.mp4" for i in range(5)}
    assert {n for n in names if n.startswith("temporal_flickering two")} == {
        f"temporal_flickering two-{i}.mp4" for i in range(25)
    }
    assert all(name.rsplit("-", 1)[0] == item.prompt for item, name in zip(items, names, strict=True))


def test_rewritten_prompts_keep_the_official_names(tmp_path, info):
    entries = json.loads(info.read_text())
    (tmp_path / "long.txt").write_text("".join(f"rewritten {i}\n" for i in range(len(entries))))
    items, names = files.plan_videos(files.read_suite(info, ["color"], tmp_path / "long.txt"))
    first = [entry["prompt_en"] for entry in entries].index("color one")
    assert [item.prompt for item in items] == [f"rewritten {first}"] * 5 + [f"rewritten {first + 1}"] * 5
    assert names[0] == "color one-0.mp4"
    assert items[0].metadata == {"prompt": "color one", "dimensions": ["color"]}
    (tmp_path / "long.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"holds 1 lines, .* 22 prompts"):
        files.read_suite(info, rewritten=tmp_path / "long.txt")


def test_prompts_that_cannot_be_used(tmp_path, folder, info):
    with pytest.raises(UserError, match="no dimension colour; it has subject_consistency"):
        files.read_suite(folder, ["colour"])
    with pytest.raises(UserError, match="line by line: pass that file"):
        files.read_suite(folder, rewritten=info)
    with pytest.raises(UserError, match=r"There is no .*gone\.json"):
        files.read_suite(tmp_path / "gone.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no prompt file of VBench"):
        files.read_suite(tmp_path / "empty")
    for content in ("{", "[1]", '[{"prompt": "x"}]', "{}x"):
        info.write_text(content)
        with pytest.raises(UserError, match="expected a list of objects with prompt_en and dimension"):
            files.read_suite(info)
    (folder / "color.txt").write_text("red/blue\n")
    with pytest.raises(UserError, match="'red/blue' cannot name a file"):
        files.read_suite(folder)


@pytest.fixture
def made(tmp_path):
    """A media folder of two videos, named."""
    from PIL import Image

    suite = [files.VideoPrompt("a cat", ("color",), "a cat, long")]
    items, names = files.plan_videos(suite)
    frames = [Image.new("RGB", (16, 16), (40 * i, 0, 0)) for i in range(3)]
    out = generate(lambda prompts, seeds: [frames] * len(prompts), items, tmp_path / "made", {"fps": 8})
    return out, names


def test_videos_get_their_names_in_a_folder_of_their_own(made):
    out, names = made
    for _ in range(2):  # again is the same
        files.name_videos(out, names, out / "videos")
        assert sorted(path.name for path in (out / "videos").iterdir()) == names
    assert (out / "videos/a cat-3.mp4").read_bytes() == (out / "00003.mp4").read_bytes()


def test_what_a_folder_was_made_for(tmp_path, made):
    out, names = made
    assert files.made_for(tmp_path) == list(DIMENSIONS)  # made by others
    files.name_videos(out, names, out / "videos")
    assert files.made_for(out) == ["color"]
    (out / "videos/a cat-2.mp4").unlink()
    with pytest.raises(UserError, match="holds 4 videos of 5: generate the rest first"):
        files.made_for(out)


def results(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"results_{name}_eval_results.json").write_text(content)


def test_results_are_gathered_from_all_files_below(tmp_path):
    per_video = [{"video_path": "x-0.mp4", "video_results": 0.1}]
    results(tmp_path / "scene", "2026-01-01-10:00:00", json.dumps({"scene": [0.5, per_video]}))
    results(tmp_path / "a" / "b", "2026-01-02-10:00:00", json.dumps({"color": [0.25, []], "human_action": [1, []]}))
    (tmp_path / "scene" / "results_full_info.json").write_text("[]")
    assert files.read_results(tmp_path) == {"color": 0.25, "human_action": 1.0, "scene": 0.5}


def test_results_that_disagree_or_are_damaged_are_named(tmp_path):
    results(tmp_path, "1", '{"scene": [0.5, []]}')
    results(tmp_path, "2", '{"scene": [0.5, []]}')
    assert files.read_results(tmp_path) == {"scene": 0.5}
    results(tmp_path, "3", '{"scene": [0.6, []]}')
    with pytest.raises(UserError, match=r"results_3_eval_results.json has 0.6 for scene, another file 0.5"):
        files.read_results(tmp_path)
    for content in ("{", "[]", '{"scene": 0.5}', '{"scene": []}', '{"scene": ["high"]}', '{"scene": null}',
                    '{"scene": ["0.5"]}', '{"scene": [true]}', f'{{"scene": [1{"0" * 400}]}}', "[" * 100_000):  # fmt: skip
        results(tmp_path, "3", content)
        with pytest.raises(UserError, match=r"results_3_.*expected dimensions with a list each"):
            files.read_results(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        files.read_results(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("scene", "NaN", "nan for scene, expected a number from 0 to 1"),
        ("scene", "Infinity", "inf for scene"),
        ("imaging_quality", "68.3", "68.3 for imaging_quality, expected a number from 0 to 1"),
        ("dynamic_degree", "-0.1", "-0.1 for dynamic_degree"),
        ("temporal_style", "-1.5", "-1.5 for temporal_style, expected a number from -1 to 1"),
    ],
)
def test_results_outside_their_range_are_refused(tmp_path, name, value, expected):
    results(tmp_path, "1", f'{{"{name}": [{value}, []], "color": [0.5, []]}}')
    with pytest.raises(UserError, match=f"results_1_eval_results.json: {expected}"):
        files.read_results(tmp_path)


def test_a_cosine_may_be_negative(tmp_path):
    results(tmp_path, "1", '{"temporal_style": [-0.01, []], "scene": [0, []], "color": [1, []]}')
    assert files.read_results(tmp_path) == {"temporal_style": -0.01, "scene": 0.0, "color": 1.0}


def test_the_table_shows_every_dimension_and_totals_only_where_all_are_there():
    whole = dict.fromkeys(DIMENSIONS, 0.75)
    lines = results_table({"a": whole, "b": {"scene": 0.5}}).splitlines()
    assert len(lines) == 2 + 3 + 16
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["scene (semantic)"] == ["75.00", "50.00"]
    assert cells["color (semantic)"] == ["75.00", "–"]
    assert cells["**Total**"][1] == "–"
    quality, semantic = (float(cells[f"**{name}**"][0]) for name in ("Quality", "Semantic"))
    assert float(cells["**Total**"][0]) == pytest.approx((4 * quality + semantic) / 5, abs=0.01)
