"""One run of a study, in a process of its own: train, then score the samples; or online rounds, which score their own.

`python -m sipo.studies.one CONFIG SCORER [FOLDER]`: the folder holds the base's samples, which another run has drawn.
"""

import sys
from pathlib import Path

from rich.console import Console

from sipo.errors import UserError


def main(config: str, scorer: str, base_samples: str | None = None) -> None:
    from sipo.backbones import quiet_libraries

    quiet_libraries()
    from sipo.config import load_config
    from sipo.evaluate.scores.score import score
    from sipo.rounds.config import load_online
    from sipo.rounds.loop import run_rounds
    from sipo.scorers.choice import load_scorer
    from sipo.train.loop import train
    from sipo.yaml12 import read_mapping

    console = Console()
    if "rounds" in read_mapping(Path(config)):
        run_rounds(load_online(config), console)
        return
    loaded = load_scorer(scorer)  # a scorer that cannot be loaded costs no training
    run = train(load_config(config), console, base_samples=Path(base_samples) if base_samples else None)
    for step in run.sample_steps():
        score(run.samples_at(step), loaded, console=console)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))  # the last line of the run's log
