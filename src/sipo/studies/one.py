"""One run of a study, in a process of its own: train, then score the samples. `python -m sipo.studies.one CONFIG SCORER`."""

import sys

from rich.console import Console


def main(config: str, scorer: str) -> None:
    from sipo.backbones import quiet_libraries

    quiet_libraries()
    from sipo.config import load_config
    from sipo.evaluate.scores.score import score
    from sipo.scorers.choice import load_scorer
    from sipo.train.loop import train

    console, loaded = Console(), load_scorer(scorer)  # a scorer that cannot be loaded costs no training
    run = train(load_config(config), console)
    for step in run.sample_steps():
        score(run.samples / f"{step:06d}", loaded, console=console)


if __name__ == "__main__":
    main(*sys.argv[1:])
