"""Whole rounds on a tiny pipeline: what each leaves, how they chain, and that a kill in any phase changes nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.configs import changed
from support.online import PHASES, play, play_in_process, play_in_two

from sipo.config import parse_config
from sipo.errors import UsageError, UserError
from sipo.evaluate.scores.files import read_scores
from sipo.jsonl import read_jsonl
from sipo.rounds.config import items_of_round, parse_online, prompts_of_round
from sipo.run import RunDir
from sipo.samples.folder import read_samples, read_settings


def weights_of(path, number: int) -> dict[str, torch.Tensor]:
    (file,) = (path / f"round-{number:03d}" / "run" / "weights").glob("*.safetensors")
    return load_file(file)


def brightness(file) -> float:
    return float(np.asarray(Image.open(file).convert("L")).mean()) / 255


@pytest.fixture(scope="module")
def unbroken_at():
    return {}


@pytest.fixture
def unbroken(raw_online, unbroken_at, tmp_path_factory):
    """Two rounds without a kill, played once."""
    if not unbroken_at:
        path = tmp_path_factory.mktemp("unbroken") / "online"
        raw = changed(raw_online, f"run={path}")
        assert play_in_process(raw) == 0
        unbroken_at["path"] = path
    return unbroken_at["path"]


def test_a_round_trains_on_the_best_and_worst_of_its_own_samples(raw_online, unbroken):
    path = unbroken
    config = parse_online(raw_online)
    for number in (1, 2):
        folder = path / f"round-{number:03d}"
        samples = read_samples(folder / "samples" / "1-of-1")
        assert [(s.prompt, s.seed) for s in samples] == [
            (i.prompt, i.seed) for i in items_of_round(config.rounds, number)
        ]
        pairs = read_jsonl(folder / "pairs.jsonl")
        assert len(pairs) == 4  # noise pictures do not tie
        seeds = {f"samples/1-of-1/{s.file}": s.seed for s in samples}
        for pair in pairs:
            assert brightness(folder / pair["chosen"]) > brightness(folder / pair["rejected"])
            assert [pair["chosen_seed"], pair["rejected_seed"]] == [seeds[pair["chosen"]], seeds[pair["rejected"]]]
            assert pair["chosen_sampler"] == read_settings(folder / "samples" / "1-of-1")
            assert {s.prompt for s in samples if folder / "samples/1-of-1" / s.file in
                    (folder / pair["chosen"], folder / pair["rejected"])} == {pair["prompt"]}  # fmt: skip
        record = json.loads((folder / "round.json").read_text())
        assert (record["num_pairs"], record["step"]) == (4, 4)  # 2 epochs of 4 pairs, 2 a step
        scores = read_scores(folder / "samples" / "1-of-1", "brightness")
        assert record["samples"]["score"] == pytest.approx(np.mean([each.value for each in scores]))
    one, two = (prompts_of_round(config.rounds, number) for number in (1, 2))
    assert len({item.prompt for item in one}) == 4
    assert [item.prompt for item in one] != [item.prompt for item in two]


def test_each_round_starts_from_the_last_ones_weights_which_drew_its_samples(unbroken):
    path = unbroken
    first, second = (RunDir(path / f"round-00{number}" / "run") for number in (1, 2))
    assert parse_config(first.read_config()).policy.start is None
    config = parse_config(second.read_config())
    assert config.policy.start == str(first.weights)
    assert config.train.seed != parse_config(first.read_config()).train.seed
    line = second.read_metrics("train")[0]
    assert line["tie"] == 0.0  # the reference is still the model
    assert line["w_chosen"] == line["w_rejected"] == 1.0  # p_old is the policy itself at the first step
    settings = [read_settings(path / f"round-00{n}" / "samples/1-of-1")["weights"] for n in (1, 2)]
    assert settings[0] == "base"
    assert settings[1].startswith("round 1 ")
    held = [read_settings(path / f"round-00{n}" / "held-out/1-of-1")["weights"] for n in (0, 1)]
    assert held == settings


def test_the_previous_iterate_as_reference_starts_every_round_at_a_tie(raw_online):
    path = play(changed(raw_online, "rounds.reference=previous"))
    for number in (1, 2):
        line = RunDir(path / f"round-00{number}" / "run").read_metrics("train")[0]
        assert line["tie"] == 1.0


@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_and_resumed_it_ends_the_same(raw_online, tmp_path, unbroken, phase):
    killed = changed(raw_online, f"run={tmp_path / 'killed'}")
    shutil.copytree(unbroken, killed["run"])  # as a call leaves it that was killed after the first round
    shutil.rmtree(tmp_path / "killed" / "round-002")
    raw = {**killed, "rounds": {**killed["rounds"], "num_rounds": 2}}
    assert play_in_process(raw, PHASES[phase]) == -9
    assert not (tmp_path / "killed" / "round-002" / "round.json").exists()
    assert play_in_process(raw) == 0
    for name in ("pairs.jsonl", "round.json"):
        mine, theirs = ((folder / "round-002" / name).read_text() for folder in (tmp_path / "killed", unbroken))
        assert mine == theirs
    mine, theirs = weights_of(tmp_path / "killed", 2), weights_of(unbroken, 2)
    assert mine.keys() == theirs.keys()
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def test_two_processes_share_every_phase_and_end_as_one_does(raw_online, tmp_path):
    raw = changed(raw_online, "rounds.num_rounds=1", "train.checkpoint_every=1")
    one = play(changed(raw, f"run={tmp_path / 'one'}"))
    two = changed(raw, f"run={tmp_path / 'two'}", "train.batch_size=1")
    assert play_in_two(two) == [0, 0]
    for folder in ("round-000/held-out", "round-001/samples"):
        parts = [tmp_path / "two" / folder / part for part in ("1-of-2", "2-of-2")]
        found = [
            (part / s.file, s) for part in parts if part.joinpath("samples.jsonl").is_file() for s in read_samples(part)
        ]
        expected = read_samples(one / folder / "1-of-1")
        assert [(s.prompt, s.seed) for _, s in found] == [(s.prompt, s.seed) for s in expected]
        for (file, _), theirs in zip(found, expected, strict=True):
            assert file.read_bytes() == (one / folder / "1-of-1" / theirs.file).read_bytes()
    assert {part.joinpath("samples.jsonl").is_file() for part in parts} == {True}
    records = [json.loads((path / "round-001" / "round.json").read_text()) for path in (one, tmp_path / "two")]
    assert records[0]["samples"] == records[1]["samples"]
    pairs = [read_jsonl(path / "round-001" / "pairs.jsonl") for path in (one, tmp_path / "two")]
    assert [pair["score_gap"] for pair in pairs[0]] == [pair["score_gap"] for pair in pairs[1]]
    mine, theirs = weights_of(tmp_path / "two", 1), weights_of(one, 1)
    changed_by = max(weight.abs().max() for name, weight in theirs.items() if "lora_up" in name)
    assert all((mine[name] - theirs[name]).abs().max() < 0.02 * changed_by for name in theirs)


def test_more_rounds_continue_and_other_changes_are_refused(raw_online):
    path = play(changed(raw_online, "rounds.num_rounds=1"))
    before = (path / "round-001" / "round.json").stat().st_mtime_ns
    play(raw_online)
    assert (path / "round-001" / "round.json").stat().st_mtime_ns == before
    assert (path / "round-002" / "round.json").is_file()
    with pytest.raises(UsageError, match=r"loss.beta: 1.0 in the folder, 2.0 now"):
        play(changed(raw_online, "loss.beta=2.0"))


@pytest.mark.slow
def test_self_play_sets_chosen_media_against_the_policys_own_samples(raw_online, tiny_pairs):
    """SPIN-Diffusion: every pair is (the data set's winner, a sample of the previous iterate) of one prompt."""
    raw = changed(
        raw_online, f"rounds.chosen={tiny_pairs}", "rounds.prompts=null", "rounds.samples_per_prompt=1",
        "rounds.reference=previous", "loss={name: diffusion_dpo, beta: 2.0}", "weight.denominator=posterior",
    )  # fmt: skip
    path = play(raw)
    import pyarrow.parquet as pq

    rows = pq.read_table(tiny_pairs).to_pylist()
    for number in (1, 2):
        folder = path / f"round-00{number}"
        pairs = read_jsonl(folder / "pairs.jsonl")
        assert len(pairs) == 4
        for pair, sample in zip(pairs, read_samples(folder / "samples/1-of-1"), strict=True):
            content = (folder / pair["chosen"]).read_bytes()
            (row,) = (row for row in rows if row["jpg_0" if row["label_0"] == 1.0 else "jpg_1"] == content)
            assert row["caption"] == pair["prompt"] == sample.prompt
            assert pair["rejected"].endswith(f"samples/1-of-1/{sample.file}")
        assert RunDir(folder / "run").read_metrics("train")[0]["tie"] == 1.0  # the reference is the previous iterate


def test_the_page_shows_scores_and_pictures_of_every_round(unbroken):
    path = unbroken
    page = (path / "online.html").read_text()
    records = [json.loads((path / f"round-00{n}" / "round.json").read_text()) for n in range(3)]
    for record in records:
        assert f"{record['held_out']['score']:.4f}" in page
    assert page.count("<img ") == 2 * 3  # held-out prompts by rounds
    assert (path / "plots" / "held-out-score.png").is_file()
    assert "<script" not in page


def test_a_round_without_a_pair_says_why(raw_online):
    with pytest.raises(UserError, match=r"round 1 has no pair: of 4 prompts, 4 comparisons tied"):
        play(changed(raw_online, "rounds.scorer='support.scorers:Constant'"))
