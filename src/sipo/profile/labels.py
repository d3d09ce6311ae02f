"""What labels depend on: the side on which a member stands, the model that made it, and whether a scorer agrees."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sipo.data.pairs.rows import Origin
from sipo.evaluate.statistics.significance import significance
from sipo.evaluate.statistics.verdicts import Tally, Verdict, result_of, tally

FEW = 20  # comparisons of two models, below which they tell nothing


@dataclass(frozen=True)
class Balance:
    """Pairs counted by one side's wins. p: of a share of one half, an exact sign test over prompts."""

    tally: Tally
    p: float


@dataclass(frozen=True)
class ModelBalance:
    """How a source model fares. `members`: that it made; `balance`: against other models, None where it met none."""

    members: int
    balance: Balance | None


def balance(verdicts: Sequence[Verdict]) -> Balance | None:
    """None without verdicts."""
    return Balance(tally(verdicts), significance(verdicts).p_sign) if verdicts else None


def by_position(origins: Sequence[Origin], prompts: Sequence[str]) -> Balance | None:
    """How often the member that stands first is the chosen one; None where the data has no order."""
    return balance([
        Verdict(prompt, 0, "win" if origin.first else "loss")
        for origin, prompt in zip(origins, prompts, strict=True) if origin.first is not None
    ])  # fmt: skip


def by_model(origins: Sequence[Origin], prompts: Sequence[str]) -> dict[str, ModelBalance]:
    """The win rate of every source model against the others, the one with the most members first."""
    members, verdicts = defaultdict(int), defaultdict(list)
    for origin, prompt in zip(origins, prompts, strict=True):
        for model, result in zip(origin.models, ("win", "loss"), strict=True):
            members[model] += 1
            if all(origin.models) and len(set(origin.models)) == 2:
                verdicts[model].append(Verdict(prompt, 0, result))
    members.pop("", None)
    return {
        model: ModelBalance(members[model], balance(verdicts[model]))
        for model in sorted(members, key=lambda name: (-members[name], name))
    }


def told_by_models(origins: Sequence[Origin]) -> tuple[float, int] | None:
    """The share of labels that the two source models alone tell, and of how many pairs; 1/2: they tell nothing.

    Each pair of models that met at least `FEW` times counts with the share of the one that wins more often. None where
    no two did.
    """
    met: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for origin in origins:
        one, other = sorted(origin.models)
        if one and one != other:
            met[one, other][origin.models[0] == other] += 1
    counts = [count for count in met.values() if sum(count) >= FEW]
    total = sum(map(sum, counts))
    return (sum(map(max, counts)) / total, total) if total else None


def agreement(differences: Sequence[float], prompts: Sequence[str]) -> Balance | None:
    """How often a score agrees with the labels. differences: of the chosen member's score less the rejected one's."""
    pairs = zip(differences, prompts, strict=True)
    return balance([Verdict(prompt, 0, result_of(difference), difference) for difference, prompt in pairs])
