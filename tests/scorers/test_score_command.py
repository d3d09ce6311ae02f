"""`sipo score` on runs, media folders, GenEval's layout and folders with a prompt file: resumed, broken files named."""

import json
import math
import sys
from pathlib import Path

import pytest
from support import videos
from support.synthetic_run import draw, prompt_items, sampler
from typer.testing import CliRunner

from sipo.cli import app
from sipo.errors import UsageError, UserError
from sipo.evaluate.scores.score import score
from sipo.evaluate.scores.sources import find_media
from sipo.jsonl import read_jsonl
from sipo.samples.generate import generate
from sipo.scorers.choice import load_scorer


def run(*arguments: str):
    result = CliRunner().invoke(app, ["score", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, (SystemExit, UserError)):
        raise result.exception
    return result


@pytest.fixture
def pickscore(clip_folder) -> list[str]:
    return ["--scorer", "pickscore", "--weights", f"pickscore={clip_folder}", "--device", "cpu"]


@pytest.fixture
def any_folder(tmp_path) -> Path:
    folder = tmp_path / "any"
    folder.mkdir()
    for number in (1, 2, 10, 11):
        draw("red", "circle", number, 5.0).save(folder / f"picture-{number}.png")
    (folder / "prompts.txt").write_text("a red circle\n\na blue star\n")
    return folder


def test_a_media_folder_by_two_scorers(tmp_path, clip_folder, pickscore):
    folder = generate(sampler(5, 0.0), prompt_items(5), tmp_path / "media", {"model": "m"})
    result = run(folder, *pickscore, "--scorer", "clip", "--weights", f"clip={clip_folder}", "--batch-size", "2")
    assert result.exit_code == 0, result.output
    assert "95% interval" in result.output
    for name in ("pickscore", "clip"):
        lines = read_jsonl(folder / f"scores.{name}.jsonl")
        assert [line["file"] for line in lines] == [f"{i:05d}.png" for i in range(5)]
        assert all(math.isfinite(line["score"]) for line in lines)
        assert lines[0]["scorer"]["weights"] == str(clip_folder)


def test_broken_files_are_named_counted_and_in_the_exit_code(any_folder, pickscore):
    (any_folder / "picture-2.png").write_bytes((any_folder / "picture-2.png").read_bytes()[:80])
    result = run(any_folder, *pickscore, "--prompts", any_folder / "prompts.txt")
    assert result.exit_code == 1
    assert "picture-2.png" in result.output
    assert "not scored" in result.output
    lines = {line["file"]: line for line in read_jsonl(any_folder / "scores.pickscore.jsonl")}
    assert lines["picture-2.png"]["score"] is None
    assert lines["picture-2.png"]["error"]
    assert sum(line["score"] is not None for line in lines.values()) == 3
    draw("red", "circle", 2, 5.0).save(any_folder / "picture-2.png")
    assert run(any_folder, *pickscore, "--prompts", any_folder / "prompts.txt").exit_code == 0


def test_a_second_run_scores_nothing_a_torn_one_the_rest(any_folder, pickscore, monkeypatch):
    from sipo.scorers.pickscore import PickScore

    seen, original = [], PickScore._batch
    monkeypatch.setattr(PickScore, "_batch", lambda self, m, p: seen.extend(p) or original(self, m, p))
    arguments = [any_folder, *pickscore, "--prompts", any_folder / "prompts.txt", "--batch-size", "2"]
    assert run(*arguments).exit_code == 0
    assert seen == ["a red circle"] * 2 + ["a blue star"] * 2
    path = any_folder / "scores.pickscore.jsonl"
    whole = path.read_bytes()
    seen.clear()
    assert run(*arguments).exit_code == 0
    assert seen == []
    assert path.read_bytes() == whole
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 20])
    assert run(*arguments).exit_code == 0
    assert seen == ["a blue star"]
    before, after = (list(map(json.loads, text.splitlines())) for text in (whole, path.read_bytes()))
    assert [line["file"] for line in after] == [line["file"] for line in before]
    assert [line["score"] for line in after] == pytest.approx([line["score"] for line in before], rel=1e-5)
    seen.clear()
    assert run(*arguments, "--dtype", "bfloat16").exit_code == 0  # numbers of other settings are not kept
    assert len(seen) == 4


def test_files_pair_with_prompts_in_natural_order(any_folder):
    (found,) = find_media(any_folder, str(any_folder / "prompts.txt"))
    assert [(s.file, s.prompt, s.seed) for s in found.samples] == [
        ("picture-1.png", "a red circle", 0), ("picture-2.png", "a red circle", 1),
        ("picture-10.png", "a blue star", 0), ("picture-11.png", "a blue star", 1),
    ]  # fmt: skip
    (any_folder / "picture-2.png").unlink()
    with pytest.raises(UserError, match=r"holds 3 pictures or videos and .* 2 prompts"):
        find_media(any_folder, str(any_folder / "prompts.txt"))


def test_files_named_by_their_prompts(any_folder, tmp_path):
    lines = [{"prompt": "b", "file": "picture-10.png", "tag": "x"}, {"prompt": "a", "file": "picture-1.png"}]
    named = tmp_path / "named.jsonl"
    named.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = find_media(any_folder, str(named))
    assert [(s.file, s.prompt, s.metadata) for s in found.samples] == [
        ("picture-10.png", "b", {"tag": "x"}), ("picture-1.png", "a", None),
    ]  # fmt: skip
    named.write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[0]) + "\n")
    with pytest.raises(UserError, match="twice"):
        find_media(any_folder, str(named))
    named.write_text(json.dumps(lines[0]) + "\n" + json.dumps({"prompt": "c"}) + "\n")
    with pytest.raises(UserError, match='prompt 2: no text under "file"'):
        find_media(any_folder, str(named))


def test_genevals_layout(tmp_path):
    for number, prompt in enumerate(["a bench", "two dogs"]):
        samples = tmp_path / f"{number:05d}" / "samples"
        samples.mkdir(parents=True)
        metadata = {"tag": "single_object", "include": [{"class": "x", "count": 1}], "prompt": prompt}
        (samples.parent / "metadata.jsonl").write_text(json.dumps(metadata))  # GenEval writes no newline
        for i in range(2):
            draw("red", "circle", i, 0.0).save(samples / f"{i:05d}.png")
        draw("red", "circle", 0, 0.0).save(samples.parent / "grid.png")
    (found,) = find_media(tmp_path)
    assert [(s.file, s.prompt, s.seed) for s in found.samples] == [
        (f"{n:05d}/samples/{i:05d}.png", p, i) for n, p in enumerate(["a bench", "two dogs"]) for i in range(2)
    ]
    assert found.samples[0].metadata["tag"] == "single_object"


def test_a_run_means_its_newest_samples_and_its_evaluations(tmp_path, pickscore):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.yaml").write_text("run: x\n")
    with pytest.raises(UserError, match="no samples yet"):
        find_media(path)
    for folder in ("samples/000000", "samples/000100", "evaluation/held/policy", "evaluation/held/base"):
        generate(sampler(5, 0.0), prompt_items(2), path / folder, {"model": folder})
    found = [str(folder.path.relative_to(path)) for folder in find_media(path)]
    assert found == ["samples/000100", "evaluation/held/base", "evaluation/held/policy"]
    assert run(path, *pickscore).exit_code == 0
    assert len(list(path.rglob("scores.pickscore.jsonl"))) == 3
    refused = run(path, *pickscore, "--out", tmp_path / "out").exception
    assert isinstance(refused, UsageError)
    assert "one folder, and there are 3" in str(refused)


def test_videos_by_frames_and_the_scores_elsewhere(tmp_path, clip_folder, pickscore):
    folder, out = tmp_path / "videos", tmp_path / "scores"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.mp4").write_bytes(videos.video(videos.noise(6, seed=number)))
        draw("red", "circle", number, 0.0).save(folder / f"{number}.png")  # contact sheets do not count
    (folder / "2.mp4").write_bytes((folder / "2.mp4").read_bytes()[:300])
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    result = run(folder, *pickscore, "--prompts", tmp_path / "p.txt", "--frames", "3", "--out", out)
    assert result.exit_code == 1
    assert "2.mp4" in result.output
    assert not list(folder.glob("scores.*"))
    lines = read_jsonl(out / "scores.pickscore.jsonl")
    assert [line["score"] is None for line in lines] == [False, False, True]

    from sipo.data.media.decode_video import read_frames

    frames = [frame.picture() for frame in read_frames(folder / "0.mp4")]
    judge = load_scorer("pickscore", str(clip_folder), "cpu")
    chosen = [frames[0], frames[2], frames[5]]  # round(2.5) is 2
    assert lines[0]["score"] == pytest.approx(sum(judge(chosen, ["a"] * 3)) / 3, rel=1e-5)


def test_a_worker_scores_files_and_its_details_are_kept(any_folder, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\nrequests, scores = sys.argv[2], sys.argv[4]\nwith open(scores, 'w') as out:\n"
        "    for line in map(json.loads, open(requests)):\n"
        "        answer = {'id': line['id'], 'score': len(line['prompt']), 'TA': 2}\n"
        "        if line['file'].endswith('picture-1.png'): answer = {'id': line['id'], 'error': 'too red'}\n"
        "        out.write(json.dumps(answer) + '\\n')\n"
    )
    command = f"reward={sys.executable} {script}"
    result = run(any_folder, "--worker", command, "--prompts", any_folder / "prompts.txt")
    assert result.exit_code == 1
    assert "too red" in result.output
    lines = read_jsonl(any_folder / "scores.reward.jsonl")
    assert [line["score"] for line in lines] == [None, 12.0, 11.0, 11.0]
    assert lines[1]["TA"] == 2


def test_a_silent_worker_is_ended_when_patience_is(any_folder, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("import time\nprint('loading', flush=True)\ntime.sleep(600)\n")
    command = f"reward={sys.executable} {script}"
    result = run(any_folder, "--worker", command, "--patience", 2, "--prompts", any_folder / "prompts.txt")
    assert "neither output nor an answer for 2 seconds:\nloading" in str(result.exception)


def test_the_miniatures_scorer_too(tmp_path):
    from sipo.samples.folder import PromptItem

    items = [PromptItem("a photo of a red circle", 1), PromptItem("a photo of a red circle", 2)]
    images = lambda prompts, seeds: [draw("red", "circle", seed, 1.0) for seed in seeds]  # noqa: E731
    folder = generate(images, items, tmp_path / "m", {})
    assert run(folder, "--scorer", "miniature").exit_code == 0
    assert "scorer" not in read_jsonl(folder / "scores.miniature.jsonl")[0]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ([], UsageError, "name at least one"),
        (["--scorer", "beauty"], UsageError, "none of pickscore, hpsv2"),
        (["--scorer", "clip", "--weights", "pickscore=x"], UsageError, "pickscore is not among"),
        (["--scorer", "clip", "--weights", "x"], UsageError, "NAME=VALUE"),
        (["--scorer", "miniature", "--weights", "miniature=x"], UsageError, "takes no weights"),
        (["--scorer", "clip", "--worker", "clip=x"], UsageError, "choose another name"),
        (["--scorer", "clip"], UserError, "name a file of its prompts"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, error, said):
    result = CliRunner().invoke(app, ["score", str(tmp_path), *arguments])
    assert isinstance(result.exception, error)
    assert said in str(result.exception)


def test_half_a_batch_is_on_disk_when_the_rest_dies(any_folder, clip_folder):
    judge = load_scorer("pickscore", str(clip_folder), "cpu")
    samples = find_media(any_folder, str(any_folder / "prompts.txt"))[0].samples

    class Dying:
        name, num_frames = judge.name, judge.num_frames
        settings = judge.settings

        def __call__(self, media, prompts, metadata=None):
            if prompts[0] == "a blue star":
                raise RuntimeError("killed")
            return judge(media, prompts)

    with pytest.raises(RuntimeError, match="killed"):
        score(any_folder, Dying(), 2, samples=samples)
    assert len(read_jsonl(any_folder / "scores.pickscore.jsonl")) == 2
    assert all(s.error is None for s in score(any_folder, judge, 2, samples=samples))


def test_compare_takes_these_scorers_too(tmp_path, clip_folder):
    a, b = (
        generate(sampler(noise, 0.0), prompt_items(4), tmp_path / name, {}) for name, noise in (("a", 5), ("b", 30))
    )
    arguments = ["compare", str(a), str(b), "--scorer", f"pickscore={clip_folder}", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.exception
    assert "a wins" in result.output
    assert len(read_jsonl(b / "scores.pickscore.jsonl")) == 4
