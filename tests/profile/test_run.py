"""`sipo data profile` as a user meets it: one command, its page and record; killed, it continues; videos; what is refused."""

import json

import pytest
import yaml
from support.command_line import run as command
from support.configs import changed
from support.pictures import pick_a_pic, write_parquet
from support.processes import in_two
from support.videos import noise, video

from sipo.config import parse_config
from sipo.jsonl import read_jsonl
from sipo.profile.run import ProfileRequest, profile
from sipo.samples.folder import read_samples
from sipo.screen import Screen

QUIET = Screen(quiet=True)
SMALL = {"num_pairs": 6, "num_draws": 2, "num_own": 2}


class Brightness:
    name = "brightness"

    def __call__(self, media, prompts, metadata=None):
        return [picture.convert("L").resize((1, 1)).getpixel((0, 0)) / 255 for picture in media]


@pytest.fixture
def pairs(tmp_path):
    columns = pick_a_pic(12, prompts=5) | {"model_0": ["one", "two"] * 6, "model_1": ["two", "one"] * 6}
    columns["caption"][3] = "a photo of a bench"
    columns["jpg_0"][9], columns["jpg_1"][9] = columns["jpg_1"][2], columns["jpg_0"][2]  # the same preference as row 2
    return write_parquet(tmp_path / "pairs.parquet", columns)


@pytest.fixture
def raw(raw_config, pairs):
    return changed(raw_config, f"data.path={pairs}", "data.validation=0.2")


def test_one_command_and_its_page(raw, tmp_path, monkeypatch, capsys):
    """The run, whose name the page's folder has, is a relative path, as in the shipped configs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**raw, "run": "run"}))
    (tmp_path / "mine.txt").write_text("prompt 4\n")
    code, printed, complaints = command(
        monkeypatch, capsys, "data", "profile", tmp_path / "config.yaml", "--num-pairs", 6, "--draws", 2, "--own-samples", 2,
        "--scorer", f"{__name__}:Brightness", "--benchmark", f"mine={tmp_path / 'mine.txt'}",
    )  # fmt: skip
    assert (code, complaints) == (0, "")
    out = tmp_path / "run-profile"
    assert "page: run-profile/profile.html" in printed
    assert "have no score" not in printed
    assert "1 of the 553 prompts of geneval are among the captions, in 1 pairs" in printed
    record, page = json.loads((out / "profile.json").read_text()), (out / "profile.html").read_text()
    assert (record["num_pairs"], record["num_measured"], record["unlike"]["num_own"]) == (12, 6, 2)
    assert record["duplicates"]["repeated"] == [["pairs.parquet:2", "pairs.parquet:9"]]
    assert record["labels"]["models"]["one"]["balance"]["wins"] == 12
    assert record["labels"]["told_by_models"] is None  # 12 meetings of two models are few
    assert record["leaks"]["mine"]["num_pairs"] == 2
    assert (
        record["agreement"]["brightness"]["balance"]["num_pairs"],
        record["agreement"]["brightness"]["num_unscored"],
    ) == (6, 0)
    assert not (tmp_path / "run").exists()
    for text in ("Warnings", "Near-duplicates", "brightness agrees least", "Repeated", "data:image/"):
        assert text in page
    assert 'src="http' not in page


@pytest.mark.slow
def test_a_killed_call_continues(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("sipo.profile.run.write_page", lambda *_: None)
    request = ProfileRequest(parse_config(raw), tmp_path / "out", **SMALL)
    whole = profile(request, QUIET)
    for name in ("marks.jsonl", "pairs.jsonl", "own.jsonl"):
        (file,) = (tmp_path / "out" / "work").rglob(name)
        file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2])
    assert profile(request, QUIET) == whole
    (other,) = (tmp_path / "out" / "work").glob("base-*")
    other_seed = parse_config(changed(raw, "train.seed=1"))
    assert (
        profile(ProfileRequest(other_seed, tmp_path / "out", num_pairs=6, num_draws=2, num_own=0), QUIET)["errors"][
            "chosen"
        ]
        != whole["errors"]["chosen"]
    )
    assert len(list(other.parent.glob("base-*"))) == 2  # nothing of another seed is taken for this one's


def test_videos_on_a_flow_path_and_no_own_samples(raw_config, tiny_family, tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.mp4").write_bytes(video(noise(10, (40, 32), seed=ord(name)), fps=16))
    lines = [
        {"prompt": f"p {a}", "chosen": f"{a}.mp4", "rejected": f"{b}.mp4", "chosen_model": "x"} for a, b in ("ab", "cd")
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    raw = changed(raw_config, f"model.path={tiny_family('wan')}", f"data.path={tmp_path / 'pairs.jsonl'}",
                  "data.resolution=16", "data.num_frames=5")  # fmt: skip
    record = profile(ProfileRequest(parse_config(raw), tmp_path / "out", num_draws=2, num_own=0), QUIET)
    assert (record["unlike"], record["labels"]["position"]) == (None, None)
    assert record["models"]["x"]["num_members"] == 2
    assert len(record["errors"]["rejected"]) == 2
    assert (tmp_path / "out" / "profile.html").read_text().count(
        "<img"
    ) == 4  # the first frame of each member, of a pair at either end


def test_what_cannot_be_profiled_is_refused(raw, tmp_path, monkeypatch, capsys):
    (tmp_path / "sft.jsonl").write_text('{"prompt": "p", "chosen": "a.png"}\n')
    (tmp_path / "a.png").write_bytes(pick_a_pic(1)["jpg_0"][0])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    profile_it = "data", "profile", tmp_path / "config.yaml"
    sft = "data.validation=null", "loss={name: sft}", f"data.path={tmp_path / 'sft.jsonl'}"
    for given, code, message in (
        (sft, 2, "sft.jsonl has no rejected members; a profile compares chosen with rejected"),
        (("--scorer", "nobody"), 2, "'nobody' is none of"),
        (("--benchmark", "geneval=x.txt"), 2, "geneval ships with the package"),
        (("--benchmark", "mine=absent.txt"), 1, "No prompt file at absent.txt"),
    ):
        found, _, complaints = command(monkeypatch, capsys, *profile_it, *given)
        assert (found, message in complaints) == (code, True), complaints


def profiled(processes, raw, out):
    return profile(ProfileRequest(parse_config(raw), out, **SMALL), QUIET, processes)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(raw, tmp_path):
    one = profile(ProfileRequest(parse_config(raw), tmp_path / "one", **SMALL), QUIET)
    assert in_two(profiled, raw, tmp_path / "two") == [one, None]


@pytest.mark.slow
def test_the_miniature_tells_its_own_pictures_from_a_foreign_style(raw_config, tmp_path):
    from sipo.mini.foreign import write_foreign_pairs

    write_foreign_pairs(tmp_path / "foreign.parquet", 48, 0)
    found = {}
    for path in ("miniature", str(tmp_path / "foreign.parquet")):
        raw = changed(raw_config, "model.path=miniature", f"data.path={path}", "sample.num_inference_steps=20",
                      "sample.guidance_scale=4")  # fmt: skip
        request = ProfileRequest(
            parse_config(raw), tmp_path / f"out-{len(found)}", num_pairs=48, num_draws=4, num_own=48
        )
        found[path] = profile(request, QUIET)["unlike"]["chosen"]
    own, foreign = found.values()
    assert own["ratio"]["value"] < 1 < foreign["ratio"]["low"]
    assert own["harder"]["win_rate"]["value"] < 0.5 < foreign["harder"]["win_rate"]["value"]


def test_edits_are_measured_and_the_base_edits_the_sources_of_the_same_pairs(
    raw_config, editing_pairs, tiny_family, tmp_path
):
    raw = changed(
        raw_config, f"data.path={editing_pairs}", f"model.path={tiny_family('flux-kontext')}", "data.resolution=16"
    )
    config = parse_config(raw)
    record = profile(ProfileRequest(config, tmp_path / "out", **SMALL), QUIET)
    assert record is not None
    assert (record["num_pairs"], record["num_measured"], record["unlike"]["num_own"]) == (12, 6, 2)
    (own,) = (tmp_path / "out").rglob("own-*/samples.jsonl")
    prompts = {str(editing_pairs.parent / line["source"]): line["prompt"] for line in read_jsonl(editing_pairs)}
    samples = read_samples(own.parent)
    assert len({sample.source for sample in samples}) == 2
    assert all(prompts[sample.source] == sample.prompt for sample in samples)
    assert [line["source"] for line in read_jsonl(own.parent / "samples-as-pairs.jsonl")] == [s.source for s in samples]
