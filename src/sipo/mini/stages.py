"""A build in stages: each has a folder with its checkpoint and its log, bound to the part of the recipe that made it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.mini.recipe import Schedule
from sipo.mini.training import Log, load_state


@dataclass(frozen=True)
class Stages:
    """The stages of `recipe` (a dataclass) in the folder `work`.

    `adds` lists the stages in order, and for each the fields of the recipe on which it depends and those before it do
    not. The field of a stage's own name is its `Schedule`.
    """

    work: Path
    recipe: Any
    adds: Mapping[str, tuple[str, ...]]
    console: Console

    def open(self, name: str) -> tuple[Path, Log]:
        """The stage's folder and log. Raises `UserError` where the folder was made by another recipe.

        Fields of later stages and numbers of steps may differ: then the stage is still good, or resumes.
        """
        folder, schedule, part = self.work / name, self._schedule(name), self._part(name)
        path = folder / "recipe.json"
        if path.is_file() and (made := json.loads(path.read_text(encoding="utf-8"))) != part:
            changed = ", ".join(key for key in part if made.get(key) != part[key])
            raise UserError(
                f"{path} was written for another recipe (changed: {changed}): remove {folder} to train this stage anew, or "
                "give another folder."
            )
        write_atomic(path, json.dumps(part, indent=2) + "\n")
        self.console.print(f"{name}: {schedule.num_steps} steps of {schedule.batch_size}")
        return folder, Log(folder / "log.jsonl", schedule.num_steps, self.console)

    def account(self) -> dict[str, dict]:
        """Steps and seconds of every stage, and its last losses, for the record."""
        states = {name: load_state(self.work / name / "state.pt") or {} for name in self.adds}
        return {
            "steps": {name: state["step"] for name, state in states.items()},
            "seconds": {name: round(state["seconds"]) for name, state in states.items()},
            "losses": {name: Log.tail(self.work / name / "log.jsonl") for name in states},
        }

    def _schedule(self, name: str) -> Schedule:
        return getattr(self.recipe, name)

    def _part(self, stage: str) -> dict:
        """What of the recipe this stage and those before it depend on, numbers of steps aside."""
        names, fields = list(self.adds), asdict(self.recipe)
        before = names[: names.index(stage) + 1]
        part = {key: fields[key] for name in before for key in self.adds[name]}
        return part | {name: part[name] | {"num_steps": 0} for name in before}
