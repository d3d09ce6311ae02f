"""DPO and SIPO on the sorting task, from CPU minutes: docs/text.md has what was found.

    python examples/text/study.py --out runs/text

Each seed has a base, pairs and held-out prompts of its own, which all objectives share. text.csv has a line for each
evaluation, text.png the curves, table.md the last evaluations. Run the same command again to continue after the last run.
"""

import argparse
import copy
import csv
import io
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from sorting import Rows, base, log_probs, pairs, prompts, share_right
from torch import Tensor
from transformers import LlamaForCausalLM

from sipo import sipo_text_loss
from sipo.files import write_atomic

OBJECTIVES: dict[str, dict] = {  # beside beta; SFT fits the chosen answers alone
    "DPO": {"clip_range": 0.0, "prune_threshold": 0.0},
    "SIPO, sequence": {"unit": "sequence"},
    "SIPO, token": {"unit": "token"},
    "SIPO, sequence, no pruning": {"unit": "sequence", "prune_threshold": 0.0},
    "SIPO, token, no pruning": {"unit": "token", "prune_threshold": 0.0},
    "pruning alone, sequence": {"unit": "sequence", "clip_range": 0.0},
    "pruning alone, token": {"unit": "token", "clip_range": 0.0},
}
GRID = [
    ("SFT", 0.0),
    *[("DPO", beta) for beta in (0.02, 0.1, 0.5, 2.0, 5.0)],
    *[(name, beta) for name in ("SIPO, sequence", "SIPO, token") for beta in (0.02, 0.1, 2.0)],
    *[(name, 0.1) for name in OBJECTIVES if "pruning" in name],
]
COLUMNS = ["objective", "beta", "seed", "step", "right", "chosen", "rejected", "pruned"]
BATCH, LEARNING_RATE = 32, 1e-4


def both(sides: tuple[Rows, Rows], at: Tensor) -> Rows:
    """Pairs as `sipo_text_loss` takes them: all chosen, then all rejected."""
    chosen, rejected = sides
    return Rows(*(torch.cat([c[at], r[at]]) for c, r in zip(chosen, rejected, strict=True)))


class Setting:
    """What the runs of a seed share."""

    def __init__(self, seed: int, args: argparse.Namespace):
        self.seed = seed
        self.base = base(seed, args.pretrain)
        self.pairs = pairs(self.base, args.pairs, seed=100_000 * (seed + 1))
        self.held_out = pairs(self.base, args.held_out, seed=1_000_000 * (seed + 1))
        self.asked = prompts(args.held_out, seed=2_000_000 * (seed + 1))
        with torch.no_grad():
            self.reference = [log_probs(self.base, side) for side in self.pairs]


def train(setting: Setting, name: str, beta: float, steps: int, every: int) -> list[dict[str, str]]:
    """One run: its evaluations, as the CSV has them; `pruned` is a mean over the steps since the last one."""
    policy, lines = copy.deepcopy(setting.base), []
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(setting.seed)
    pruned: list[float] = []
    for step in range(steps + 1):
        if step % every == 0:
            found = evaluate(setting, policy) | {"pruned": statistics.mean(pruned) if pruned else 0.0}
            texts = {key: f"{value:.4f}" for key, value in found.items()}
            lines.append({"objective": name, "beta": str(beta), "seed": str(setting.seed), "step": str(step), **texts})
            pruned.clear()
        at = torch.randint(len(setting.reference[0]), (BATCH,), generator=generator)
        rows = both(setting.pairs, at)
        logps, ref_logps = log_probs(policy, rows), torch.cat([side[at] for side in setting.reference])
        if name == "SFT":
            loss = -logps[:BATCH][rows.mask[:BATCH]].mean()
        else:
            losses, metrics = sipo_text_loss(logps, ref_logps, rows.mask, beta, **OBJECTIVES[name])
            loss = losses.mean()
            pruned.append(metrics["pruned"].mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lines


@torch.no_grad()
def evaluate(setting: Setting, policy: LlamaForCausalLM) -> dict:
    """Share of right samples on held-out prompts; mean log-probability of held-out chosen and rejected answers."""
    sides = [(log_probs(policy, side) * side.mask).sum(1).mean().item() for side in setting.held_out]
    return {"right": share_right(policy, setting.asked, setting.seed), "chosen": sides[0], "rejected": sides[1]}


def interval(values: list[float]) -> str:
    """Mean and 95% interval (Student's t) over three seeds; the values themselves of another number."""
    if len(values) != 3:
        return ", ".join(f"{value:.2f}" for value in values)
    mean, half = statistics.mean(values), 4.303 * statistics.stdev(values) / 3**0.5
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def table(lines: list[dict]) -> str:
    """Each setting at its best evaluation and at its last."""
    runs = defaultdict(list)
    for line in lines:
        runs[line["objective"], float(line["beta"]), line["seed"]].append(line)
    settings = defaultdict(list)
    for (name, beta, _), found in runs.items():
        settings[name, beta].append(found)
    rows = [
        "| objective | beta | right, best | right, end | chosen, end | rejected, end | pruned, end |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, beta), found in settings.items():
        best = interval([max(float(line["right"]) for line in run) for run in found])
        ends = [interval([float(run[-1][key]) for run in found]) for key in ("right", "chosen", "rejected")]
        pruned = "" if name == "SFT" else f"{statistics.mean(float(run[-1]['pruned']) for run in found):.2f}"
        rows.append(f"| {name} | {beta or ''} | {best} | {' | '.join(ends)} | {pruned} |")
    start = [float(run[0]["right"]) for (name, *_), run in runs.items() if name == "SFT"]
    return "\n".join(rows) + f"\n\nBefore: right {interval(start)}.\n"


def draw(lines: list[dict], path: Path) -> None:
    """Right answers and the chosen answers' log-probability over training, at three betas; mean and range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    betas, names = (0.02, 0.1, 2.0), ["DPO", "SIPO, sequence", "SIPO, token"]
    figure, axes = plt.subplots(2, 3, figsize=(10, 5.5), sharex=True, sharey="row", constrained_layout=True)
    for column, beta in enumerate(betas):
        for row, (key, label) in enumerate((("right", "share of right answers"), ("chosen", "log p of the chosen"))):
            axis = axes[row][column]
            for name in names:
                by_step = defaultdict(list)
                for line in lines:
                    if line["objective"] == name and float(line["beta"]) == beta:
                        by_step[int(line["step"])].append(float(line[key]))
                steps = sorted(by_step)
                (curve,) = axis.plot(steps, [statistics.mean(by_step[step]) for step in steps], label=name)
                ranges = [min(by_step[step]) for step in steps], [max(by_step[step]) for step in steps]
                axis.fill_between(steps, *ranges, color=curve.get_color(), alpha=0.15)
            axis.grid(alpha=0.3)
            if column == 0:
                axis.set_ylabel(label)
        axes[0][column].set_title(f"beta {beta}")
        axes[1][column].set_xlabel("step")
    axes[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save(lines: list[dict], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomic(path, text.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/text"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrain", type=int, default=600, help="steps of the base")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--held-out", type=int, default=400, help="prompts, and as many pairs")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=50, help="steps between evaluations")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "text.csv"
    lines = list(csv.DictReader(file.open(newline=""))) if file.exists() else []
    done = {(line["objective"], float(line["beta"]), int(line["seed"])) for line in lines}
    for seed in args.seeds:
        left = [(name, beta) for name, beta in GRID if (name, beta, seed) not in done]
        setting = Setting(seed, args) if left else None
        for name, beta in left:
            lines += train(setting, name, beta, args.steps, args.every)
            last = lines[-1]
            print(f"{name}, beta {beta}, seed {seed}: right {last['right']}, chosen {last['chosen']}", flush=True)
            save(lines, file)
    order = {setting: i for i, setting in enumerate(GRID)}
    lines.sort(
        key=lambda line: order[line["objective"], float(line["beta"])]
    )  # stable: seeds and steps keep their order
    save(lines, file)
    write_atomic(args.out / "table.md", table(lines))
    draw(lines, args.out / "text.png")
    print(table(lines))


if __name__ == "__main__":
    main()
