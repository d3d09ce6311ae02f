"""What a run says before it starts: what it will do, in numbers, and beta in everybody's convention."""

from rich.console import Console
from rich.table import Table

from sipo.losses import beta_equivalents
from sipo.run import RunDir
from sipo.train.batch import Alignment


def announce(console: Console, align: Alignment, run: RunDir, num_pairs: int, num_validation: int, start: int) -> None:
    """Print the table that stands at the head of every run."""
    config, processes = align.config, align.accelerator.num_processes
    train, policy = config.train, config.policy
    trained = sum(weight.numel() for weight in align.policy.trainable.values())
    total = sum(weight.numel() for weight in align.policy.denoiser.parameters())
    total -= trained if policy.kind == "lora" else 0
    batch = train.batch_size * train.gradient_accumulation * processes
    adapters = f" (rank {policy.rank}, alpha {policy.alpha:g})" if policy.kind == "lora" else ""
    rows = {
        "model": f"{config.model.path}, {total / 1e6:,.1f}M parameters in the denoiser",
        "policy": f"{policy.kind}, {trained / 1e6:,.2f}M trained{adapters}",
        "pairs": f"{num_pairs:,}" + (f", {num_validation:,} held out" if num_validation else ""),
        "batch": f"{batch} pairs = {train.batch_size} a step x {train.gradient_accumulation} steps x {processes} processes",
        "steps": f"{train.num_steps:,} ({train.num_steps * batch / num_pairs:.2g} passes over the pairs)"
        + (f", resumed after step {start}" if start else ""),
        "objective": repr(align.loss),
        "device": f"{align.accelerator.device}, mixed precision {train.mixed_precision}",
        "sharding": f"{train.sharding}, over {processes} processes" if processes > 1 else "none: there is one process",
        "run": str(run.path),
    }
    if train.sharding == "none":
        del rows["sharding"]
    if hasattr(align.loss, "beta"):
        same = beta_equivalents(align.loss)
        rows["beta"] = " = ".join(f"{value:g} ({who})" for who, value in same.items()) if same else (
            f"{align.loss.beta:g} x {align.loss.horizon:g} steps; peers weight all timesteps alike, so none of theirs equals it"
        )  # fmt: skip
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    console.print(table)
