"""`sipo compare`, `sipo label` and `sipo prompts compose` as a user meets them, on pictures and scores made by hand."""

import csv
import json
import sys
from itertools import chain

import numpy as np
import pytest
from PIL import Image
from support.synthetic_run import draw
from typer.testing import CliRunner

from sipo.cli import app, main
from sipo.data.pairs.check import check_pairs
from sipo.evaluate.scores.files import content_hash, scores_path
from sipo.samples.folder import PromptItem, read_samples
from sipo.samples.generate import generate

PROMPTS = [
    PromptItem(f"prompt {i // 3}", i, {"tag": "odd" if i // 3 % 2 else "even"}) for i in range(30)
]  # three seeds each


def picture(prompts, seeds):
    return [draw("red", "circle", seed, 10, 16) for seed in seeds]


def video(prompts, seeds):
    return [[draw("red", "circle", seed + t, 0, 32) for t in range(4)] for seed in seeds]


@pytest.fixture
def model(tmp_path):
    """name, {scorer: mean} -> a folder with scores of 30 pictures (or videos); nothing needs to be scored any more."""

    def make(name, sampler=picture, items=PROMPTS, **means):
        out = generate(sampler, items, tmp_path / name, {"model": name} | ({"fps": 8} if sampler is video else {}))
        for scorer, mean in means.items():
            values = np.random.default_rng([len(name), *name.encode()]).normal(mean, 0.2, len(items))
            lines = [{"file": s.file, "hash": content_hash(out, s), "score": float(v)}
                     for s, v in zip(read_samples(out), values, strict=True)]  # fmt: skip
            scores_path(out, scorer).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return out

    return make


def sipo(*arguments) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def fails(monkeypatch, capsys, code, *arguments) -> str:
    """What the command says on stderr when it exits with `code`, and that it says it without a traceback."""
    monkeypatch.setattr(sys, "argv", ["sipo", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    said = " ".join(capsys.readouterr().err.split())
    assert exit.value.code == code, said
    assert "Traceback" not in said
    return said


def test_three_models_by_four_scorers(model, tmp_path):
    means = {"pickscore": 21.0, "imagereward": 0.5, "aesthetic": 5.8, "hpsv2": 0.27}
    folders = [
        model(n, **{k: v + d for k, v in means.items()}) for n, d in (("ours", 1.0), ("dpo", 0.95), ("base", 0.0))
    ]
    options = list(chain(*(("--scorer", name) for name in means)))
    said = sipo("compare", *folders, *options, "--out", tmp_path / "out").splitlines()
    assert said[0].split() == ["Model", "HPS", "Aesthetic", "ImageReward", "PickScore", "Average"]
    assert [line.split()[0] for line in said[1:4]] == ["ours", "dpo", "base"]
    assert sum(line.startswith("ours wins") for line in said) == 8
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").open()))
    wholes = [row for row in rows if not row["category"]]
    assert [(row["against"], row["scorer"]) for row in wholes] == [(b, s) for b in ("dpo", "base") for s in means]
    assert all(float(row["p_mean_holm"]) < 0.01 and float(row["win_rate"]) > 0.9 for row in wholes[4:])
    assert all(float(row["p_mean_holm"]) >= float(row["p_mean"]) for row in wholes)
    assert {row["category"] for row in rows} == {"", "odd", "even"}
    assert (tmp_path / "out" / "comparison.html").read_text().count("<img") == 4 * (8 + 8 + 8) * 2
    # four scorers; eight pairs that ours wins and eight that it loses against dpo, eight that it wins against base


def test_files_of_scores_need_no_media(tmp_path):
    files = [tmp_path / "ours.jsonl", tmp_path / "base.jsonl", tmp_path / "clip" / "scores.clip.jsonl"]
    files[2].parent.mkdir()
    for file, shift in zip(files, (1.0, 0.0, 0.0), strict=True):
        lines = [{"prompt": f"p{i}", "score": i % 5 + shift, "metadata": {"style": "photo"}} for i in range(20)]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "ours wins 100.0% against base by score" in sipo("compare", *files[:2], "--out", tmp_path / "out")
    (record,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["comparisons"]
    assert record["categories"].keys() == {"photo"}
    assert "<img" not in (tmp_path / "out" / "comparison.html").read_text()
    said = sipo("compare", files[0], files[2], "--scorer", "clip", "--out", tmp_path / "out")
    assert "ours wins 100.0% against clip by clip" in said
    with pytest.raises(AssertionError, match=r"scores\.clip\.jsonl holds scores by 'clip' alone, and votes"):
        sipo("compare", files[0], files[2], "--scorer", "votes", "--out", tmp_path / "out")


def test_videos_are_compared_and_shown(model, tmp_path):
    items = PROMPTS[:4]
    folders = [model(name, video, items, videoreward=mean) for name, mean in (("a", 1.0), ("b", 0.0))]
    said = sipo("compare", *folders, "--scorer", "videoreward", "--out", tmp_path / "out")
    assert "a wins 100.0% against b by videoreward" in said
    assert (tmp_path / "out" / "comparison.html").read_text().count("data:video/mp4;base64,") == 2 * 4


@pytest.mark.parametrize(("ending", "sampler"), [("parquet", picture), ("jsonl", picture), ("jsonl", video)])
def test_label_makes_pairs_that_train_reads(model, tmp_path, ending, sampler):
    """Thirty samples of ten prompts: ten pairs, best against worst; chosen and rejected by the scores."""
    folder = model("policy", sampler, votes=0.0)
    out, best = tmp_path / f"pairs.{ending}", tmp_path / "best.jsonl"
    said = sipo("label", folder, "--scorer", "votes", "--out", out, "--sft", best)
    assert "30 samples of 10 prompts" in said
    assert f"10 pairs: {out}" in said
    assert f"10 best samples: {best}" in said
    assert [check_pairs(str(path)).num_usable for path in (out, best)] == [10, 10]
    if ending == "jsonl":
        score_of = {
            s["file"]: s["score"] for s in map(json.loads, scores_path(folder, "votes").read_text().splitlines())
        }
        for line in map(json.loads, out.read_text().splitlines()):
            values = [score_of[line[side].split("/")[-1]] for side in ("chosen", "rejected")]
            assert values[0] - values[1] == pytest.approx(line["score_gap"])
            assert line["score_gap"] > 0


def test_label_across_models_with_a_margin(model, tmp_path):
    """Of two models that are two apart the better one's samples are chosen, and all 9 contrasts of a prompt pass."""
    folders = [model(name, votes=mean) for name, mean in (("good", 2.0), ("bad", 0.0))]
    out = tmp_path / "pairs.jsonl"
    said = sipo("label", *folders, "--scorer", "votes", "--mode", "all", "--margin", "1.2", "--out", out)
    assert "60 samples of 10 prompts" in said
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all("/good/" in f"/{line['chosen']}" and "/bad/" in f"/{line['rejected']}" for line in lines)
    assert 80 <= len(lines) <= 90


def test_compose(tmp_path):
    said = sipo(
        "prompts", "compose", "--world", "miniature", "--num", 12, "--tag", "counting", "--out", tmp_path / "p.jsonl"
    )
    assert f"12 prompts in {tmp_path / 'p.jsonl'}: 12 counting" in said
    sipo("prompts", "compose", "--world", "miniature", "--num", 12, "--tag", "counting", "--out", tmp_path / "q.jsonl")
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "q.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["compare", "A"], 1, "A is no run directory"),
        (["compare", "A", "B", "--base"], 1, "A is no run directory"),
        (["compare", "A", "--base"], 2, "a run alone is compared with its base already"),
        (["compare", "A", "nowhere", "--scorer", "votes"], 1, "There is no folder nowhere"),
        (["compare", "A", "B", "--scorer", "beauty"], 2, "'beauty' is none of pickscore"),
        (["compare", "A", "B", "--scorer", "votes", "--weights", "clip=x"], 2, "clip is not among the scorers"),
        (["compare", "A", "B", "--scorer", "votes", "--weights", "clip"], 2, "'clip' should be NAME=VALUE"),
        (["compare", "A", "B", "--scorer", "votes="], 2, "'votes=' should be NAME or NAME=VALUE, each name once"),
        (["compare", "A", "B", "--scorer", "votes", "--category", "style"], 1, "no prompt has the metadata key 'style'; the prompts have tag"),
        (["compare", "A", "C", "--scorer", "votes"], 1, "0 samples agree in prompt and seed"),
        (["label", "A", "--scorer", "votes", "--out", "pairs.csv"], 2, "--out: pairs.csv should end in .parquet or .jsonl"),
        (["label", "A", "--scorer", "votes", "--out", "p.jsonl", "--sft", "b.csv"], 2, "--sft: b.csv should end in .jsonl"),
        (["label", "A", "--scorer", "votes", "--out", "p.jsonl", "--mode", "some"], 2, "'some' is none of best-worst, all"),
        (["label", "A", "--scorer", "votes", "--out", "p.jsonl", "--margin", "9"], 1, "There is no pair to write"),
        (["label", "run", "--out", "p.jsonl"], 2, "run is a run, whose samples are of its held-out prompts"),
        (["label", "nowhere", "--out", "p.jsonl"], 1, "There is no folder nowhere"),
        (["prompts", "compose", "--out", "p.txt"], 2, "p.txt should end in .jsonl"),
        (["prompts", "compose", "--out", "p.jsonl", "--tag", "x"], 2, "no prompts of the category 'x'"),
        (["prompts", "compose", "--out", "p.jsonl", "--avoid", "gone.txt"], 1, "No prompt file at gone.txt"),
        (["prompts", "compose", "--out", "p.jsonl", "--world", "miniature", "--tag", "colors", "--num", "99"], 1,
         "different prompts of these categories, and 99 are needed"),
    ],
)  # fmt: skip
def test_mistakes_are_a_message_and_an_exit_code(model, tmp_path, monkeypatch, capsys, arguments, code, message):
    model("A", items=PROMPTS[:6], votes=0.0)
    model("B", items=PROMPTS[:6], votes=1.0)
    model("C", items=[PromptItem("another", 0)], votes=1.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("run: run\n")
    monkeypatch.chdir(tmp_path)
    assert message.lower() in fails(monkeypatch, capsys, code, *arguments).lower()


def test_a_folder_of_the_users_is_never_removed(tmp_path):
    """Pictures that lie where a comparison would draw its own, but beside no comparison: an error, not a loss."""
    from rich.console import Console

    from sipo.errors import UserError
    from sipo.evaluate.compare.run import CompareRequest, PromptChoice, compare_models
    from sipo.scorers.choice import ScorerChoice

    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("run: run\nmodel: {path: miniature}\nloss: {name: sipo}\n")
    for folder in ("a-run", "base"):
        generate(picture, PROMPTS[:1], tmp_path / "out" / folder, {"model": "mine"})
    choice = PromptChoice("miniature", 1, 1, 0)
    with pytest.raises(UserError):
        compare_models(
            CompareRequest([run, run], choice, ScorerChoice(), tmp_path / "out", with_base=True), Console(quiet=True)
        )
    assert Image.open(tmp_path / "out" / "a-run" / "00000.png").size == (16, 16)
    assert Image.open(tmp_path / "out" / "base" / "00000.png").size == (16, 16)
