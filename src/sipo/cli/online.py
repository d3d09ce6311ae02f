"""`sipo online`: rounds of sampling, scoring and training."""

from sipo.cli.common import ConfigFile, Overrides, console, quiet_libraries, say


def online(config: ConfigFile, overrides: Overrides = None) -> None:
    """Align a model in rounds: sample, score, make pairs, train, again. Run the same command again to resume."""
    quiet_libraries()
    from sipo.plan.shortage import explained
    from sipo.rounds.config import load_online
    from sipo.rounds.loop import run_rounds

    parsed = load_online(config, overrides)
    with explained(parsed.training):
        path = run_rounds(parsed, console())
    say(f"report: {path / 'online.html'}")
