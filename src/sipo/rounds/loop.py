"""The rounds, one after the other: sample, score, pair, train, and score on held-out prompts.

RUN/online.yaml               the config
RUN/round-001/samples/        the round's samples and their scores (`sipo.rounds.samples`)
              pairs.jsonl     the pairs that they make
              run/            the training, a run directory
              held-out/       samples of held-out prompts by the weights of that run, and their scores
              round.json      the record, written last
RUN/round-000/held-out/       the same of the model, before any round
RUN/online.html               the report

Each step finds what an earlier, killed call has left, and continues there.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sipo.backbones import read_architecture
from sipo.backbones.opening import Opened, open_weights
from sipo.backbones.trajectory import trajectory_sampler
from sipo.data.media.kinds import media_kind
from sipo.errors import UserError
from sipo.evaluate.label.files import seeds_of, source_of, write_pairs
from sipo.evaluate.label.label import Candidate, label
from sipo.evaluate.scores.files import Score
from sipo.evaluate.statistics.bootstrap import bootstrap_mean
from sipo.files import write_atomic
from sipo.jsonl import dump_jsonl, read_json, read_jsonl
from sipo.losses import D3PO
from sipo.processes import Processes, join_processes
from sipo.rounds.config import (
    OnlineConfig,
    held_out_items,
    items_of_round,
    open_chosen,
    prompts_of_round,
    require_prompts_for,
    require_ready,
    require_same,
)
from sipo.rounds.report import record_of, report, round_folder
from sipo.rounds.samples import Drawn, sample, score_all
from sipo.run import RunDir
from sipo.samples.folder import PICTURE, VIDEO
from sipo.samples.trajectory import read_times, trajectory_settings
from sipo.scorers.choice import choose_one
from sipo.train.loop import train

Scored = Sequence[tuple[Path, Score]]  # folder and score of each sample


def run_rounds(config: OnlineConfig, console: Console) -> Path:
    """Run the rounds that are missing; returns the folder. The same call resumes, in the middle of a round too.

    Raises UserError and UsageError for what the user can fix, all that can be checked before the first sample.
    """
    with join_processes() as processes, contextlib.ExitStack() as stack:
        with processes.main_first():  # the others find what the first one checked
            require_ready(config)
            require_prompts_for(config, read_architecture(config.training.model))
        if processes.is_main:
            stack.enter_context(RunDir(config.path).lock())
            require_same(config)
        else:
            console = Console(quiet=True)
        for number in range(config.rounds.num_rounds + 1):
            done = processes.gather_objects(record_of(config.path, number) is not None)[0]
            if not done:
                play(config, number, processes, console)
    return config.path


def play(config: OnlineConfig, number: int, processes: Processes, console: Console) -> None:
    """One round, from wherever it stands; round 0 only scores the model."""
    folder, record = round_folder(config.path, number), {"round": number}
    if number > 0:
        console.rule(f"round {number} of {config.rounds.num_rounds}", align="left")
        scored = samples_of(config, number, folder / "samples", processes, console)
        pairs = folder / "pairs.jsonl"
        if processes.is_main and not pairs.is_file():
            write_pairs_of(config, number, scored, pairs)
        processes.barrier()
        num_pairs, per_pair = len(read_jsonl(pairs)), steps_of(config, scored)
        begun = RunDir(folder / "run").config
        before = RunDir(folder / "run").read_config()["train"]["num_steps"] if begun.is_file() else None
        processes.barrier()  # the first process writes that config when it trains
        steps = before or config.num_steps(num_pairs * per_pair, processes.world)
        run = train(config.round_config(number, pairs, folder, weights_before(config, number), steps), console)
        record |= {"samples": mean_of(scored), "num_pairs": num_pairs} | read_json(run.weights / "sipo.json")
    held_out = score_held_out(config, number, folder / "held-out", processes, console)
    if processes.is_main:
        write_atomic(folder / "round.json", json.dumps(record | {"held_out": mean_of(held_out)}, indent=1))
        console.print(f"report: {report(config.path)}", highlight=False, soft_wrap=True)
    processes.barrier()


def samples_of(config: OnlineConfig, number: int, folder: Path, processes: Processes, console: Console) -> Scored:
    """The round's samples, of the policy that the round before has left, with their scores."""
    items, batch = items_of_round(config.rounds, number), at_once(config)
    open_it = open_with_trajectories if isinstance(config.training.loss, D3PO) else open_policy
    sample(items, folder, lambda: open_it(config, number - 1), batch, processes, console)
    return score_all(folder, choose_one(config.rounds.scorer, config.rounds.worker), processes, console)


def score_held_out(config: OnlineConfig, number: int, folder: Path, processes: Processes, console: Console) -> Scored:
    """Samples of the held-out prompts by the policy after the round, with their scores."""
    items, batch = held_out_items(config.rounds), at_once(config)
    sample(items, folder, lambda: open_policy(config, number), batch, processes, console)
    return score_all(folder, choose_one(config.rounds.scorer, config.rounds.worker), processes, console)


def at_once(config: OnlineConfig) -> int:
    """Samples that are made at once."""
    training = config.training
    return training.sample.batch_size or read_architecture(training.model).size(training.data.size).at_once


def write_pairs_of(config: OnlineConfig, number: int, scored: Scored, out: Path) -> None:
    """The round's pairs: of its samples by their scores, or in self-play of chosen media against its samples.

    Raises UserError where there is none.
    """
    rounds, by = config.rounds, f"round {number - 1}"
    if rounds.chosen is None:
        candidates = [Candidate(folder / each.sample.file, each, by) for folder, each in scored]
        labels = label(candidates, rounds.mode, rounds.margin, rounds.only_right)
        if not labels.preferences.pairs:
            raise UserError(
                f"round {number} has no pair: of {labels.num_prompts} prompts, {labels.preferences.num_ties} comparisons "
                f"tied and {labels.preferences.num_wrong} had no right sample. More samples a prompt, or a lower margin?"
            )
        write_pairs(labels.preferences.pairs, out)
        return
    (source, _), lines, count = open_chosen(rounds.chosen), [], rounds.samples_per_prompt
    for place, item in enumerate(prompts_of_round(rounds, number)):
        chosen = source[item.seed].chosen  # an item's seed is its row
        if isinstance(chosen, bytes):
            suffix = VIDEO if media_kind(chosen) == "video" else PICTURE
            content, chosen = chosen, out.parent / "chosen" / f"{item.seed:06d}{suffix}"
            write_atomic(chosen, content)
        for folder, each in scored[place * count : (place + 1) * count]:
            rejected = folder / each.sample.file
            lines.append({"prompt": item.prompt, "chosen": str(chosen.resolve()), "rejected": str(rejected.resolve()),
                          **source_of(Path(each.sample.source) if each.sample.source else None, out.parent),
                          "rejected_model": by, **seeds_of(chosen, rejected)})  # fmt: skip
    write_atomic(out, dump_jsonl(lines))


def after_round(config: OnlineConfig, number: int) -> Opened:
    """The policy after a round; after round 0 it is the model."""
    weights = weights_before(config, number + 1)
    return open_weights(config.training, config.training.model, weights, f"round {number}")


def open_policy(config: OnlineConfig, number: int) -> Drawn:
    """The policy after a round, sampled as by `sipo generate`."""
    opened = after_round(config, number)
    return opened.sampler, opened.settings


def open_with_trajectories(config: OnlineConfig, number: int) -> Drawn:
    """The same, sampled by the config's kernel; a prompt's samples begin with the same noise, as D3PO compares them."""
    opened, training = after_round(config, number), config.training
    guidance, grid = training.sample.guidance_scale, training.num_inference_steps
    sampler = trajectory_sampler(opened.backbone, training.kernel, grid, guidance, config.rounds.samples_per_prompt)
    settings = {**opened.settings, "num_inference_steps": grid, **trajectory_settings(training.kernel, grid, guidance)}
    return sampler, settings


def steps_of(config: OnlineConfig, scored: Scored) -> int:
    """What one pair counts for in a pass over the pairs: every step of its trajectories with D3PO."""
    if not isinstance(config.training.loss, D3PO):
        return 1
    folder, first = scored[0]
    return len(read_times(folder / first.sample.file)[0]) - 1


def weights_before(config: OnlineConfig, number: int) -> Path | None:
    """Those that a round starts from; None for the model."""
    return None if number <= 1 else RunDir(round_folder(config.path, number - 1) / "run").weights


def mean_of(scored: Scored) -> dict[str, Any]:
    """Mean score with its 95% interval over prompts."""
    found = bootstrap_mean([each.value for _, each in scored], [each.sample.prompt for _, each in scored])
    return {"score": found.value, "low": found.low, "high": found.high, "num_samples": len(scored)}
