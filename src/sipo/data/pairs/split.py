"""Hold out a share of the pairs for validation, by prompt: what is judged on was never trained on in other words."""

from sipo.data.draws import uniforms
from sipo.data.pairs.rows import PairSource
from sipo.errors import UserError


def split_validation(source: PairSource, usable: list[int], share: float, seed: int) -> tuple[list[int], list[int]]:
    """(training rows, validation rows) of `usable`, both in their order; about `share` of the pairs are held out.

    All pairs of a prompt (up to case and surrounding space) fall on the same side. Prompts are taken in an order that
    depends on (seed, prompt) alone, as long as they fit. Raises UserError where a side would be empty.
    """
    if not 0 < share < 1:
        raise UserError(f"data.validation should be a share between 0 and 1, not {share}")
    prompts = source.prompts(usable)
    plain = {prompt: prompt.strip().casefold() for prompt in dict.fromkeys(prompts)}
    prompts = [plain[prompt] for prompt in prompts]
    sizes: dict[str, int] = {}
    for prompt in prompts:
        sizes[prompt] = sizes.get(prompt, 0) + 1
    if len(sizes) < 2:
        raise UserError("validation holds out whole prompts, and the data has only one: give a validation file instead")
    wanted = max(round(share * len(usable)), 1)
    held_out: set[str] = set()
    count = 0
    order = sorted(sizes, key=lambda prompt: uniforms(1, "validation", seed, prompt))
    for prompt in order:
        if count + sizes[prompt] <= wanted:
            held_out.add(prompt)
            count += sizes[prompt]
    if not held_out:  # every prompt has more pairs than the share: the rarest one
        held_out.add(min(order, key=lambda prompt: sizes[prompt]))
    sides = [prompt in held_out for prompt in prompts]
    train = [row for row, held in zip(usable, sides, strict=True) if not held]
    return train, [row for row, held in zip(usable, sides, strict=True) if held]
