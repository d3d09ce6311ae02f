"""The task of the text study: eight digits in, the same digits sorted and without repeats out; a model that learns it badly.

The base learns from answers half of which hold a mistake, as web text does, so it is right about half of the time, and its own
right and wrong answers to one prompt make a pair.
"""

import random
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

DIGITS, ASK, END, PAD = 8, 10, 11, 12  # digits of a prompt, and of an answer at most; tokens 0..9 are digits
LENGTH = 2 * DIGITS + 2  # prompt, ASK, answer, END


class Rows(NamedTuple):
    """Prompts with answers."""

    tokens: Tensor  # (B, LENGTH), padded on the right
    mask: Tensor  # (B, LENGTH - 1), True where a position predicts a token of the answer, END included


def prompts(number: int, seed: int) -> list[list[int]]:
    """Never one digit alone, so that every answer has two neighbours."""
    draw, found = random.Random(seed), []
    while len(found) < number:
        prompt = [draw.randrange(10) for _ in range(DIGITS)]
        if len(set(prompt)) > 1:
            found.append(prompt)
    return found


def right(prompt: list[int]) -> list[int]:
    return sorted(set(prompt))


def spoiled(answer: list[int], draw: random.Random) -> list[int]:
    """One mistake: two neighbours swapped, or a digit left out, doubled or replaced."""
    answer, at = list(answer), draw.randrange(len(answer) - 1)
    match draw.randrange(4):
        case 0:
            answer[at], answer[at + 1] = answer[at + 1], answer[at]
        case 1:
            del answer[at]
        case 2:
            answer.insert(at, answer[at])
        case 3:
            answer[at] = (answer[at] + draw.randint(1, 9)) % 10
    return answer[:DIGITS]


def batch_of(asked: list[list[int]], answers: list[list[int]]) -> Rows:
    rows = [[*prompt, ASK, *answer, END] for prompt, answer in zip(asked, answers, strict=True)]
    tokens = torch.tensor([row + [PAD] * (LENGTH - len(row)) for row in rows])
    at = torch.arange(LENGTH - 1)
    return Rows(tokens, (at >= DIGITS) & (tokens[:, 1:] != PAD))


def log_probs(model: LlamaForCausalLM, rows: Rows) -> Tensor:
    """Of every token after the first, (B, LENGTH - 1)."""
    logits = model(input_ids=rows.tokens[:, :-1]).logits  # causal: what is padded on the right changes nothing
    return logits.log_softmax(-1).gather(2, rows.tokens[:, 1:, None])[:, :, 0]


@torch.no_grad()
def answer(model: LlamaForCausalLM, asked: list[list[int]], seed: int) -> list[list[int]]:
    """One answer to each prompt, sampled at temperature 1; one that does not end has DIGITS + 1 tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([[*prompt, ASK] for prompt in asked])
    for _ in range(DIGITS + 1):
        p = model(input_ids=tokens).logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], 1)
    rows = tokens[:, DIGITS + 1 :].tolist()
    return [row[: row.index(END)] if END in row else row for row in rows]


def share_right(model: LlamaForCausalLM, asked: list[list[int]], seed: int) -> float:
    return sum(found == right(prompt) for found, prompt in zip(answer(model, asked, seed), asked, strict=True)) / len(
        asked
    )


def base(seed: int, steps: int, wrong: float = 0.5) -> LlamaForCausalLM:
    """A Llama of 160,000 parameters, trained on answers of which the share `wrong` holds a mistake."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=13, hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
                    num_key_value_heads=4, max_position_embeddings=LENGTH, pad_token_id=PAD, bos_token_id=None,
                    eos_token_id=END)
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        asked = prompts(128, seed=10_000_000 * (seed + 1) + step)
        rows = batch_of(asked, [spoiled(right(p), draw) if draw.random() < wrong else right(p) for p in asked])
        loss = -log_probs(model, rows)[rows.mask].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def pairs(model: LlamaForCausalLM, number: int, seed: int) -> tuple[Rows, Rows]:
    """Chosen and rejected answers to `number` prompts of which the model itself gave a right and a wrong one in four tries.

    Raises RuntimeError if 50,000 prompts hold fewer.
    """
    found: list[tuple[list[int], list[int], list[int]]] = []
    for part in range(100):
        asked = prompts(500, seed + part)
        tries = [answer(model, asked, seed + 1000 * part + i) for i in range(4)]
        for prompt, *given in zip(asked, *tries, strict=True):
            ended = [each for each in given if len(each) <= DIGITS]
            good, bad = ([each for each in ended if (each == right(prompt)) is kept] for kept in (True, False))
            if good and bad:
                found.append((prompt, good[0], bad[0]))
        if len(found) >= number:
            asked, chosen, rejected = (list(column) for column in zip(*found[:number], strict=True))
            return batch_of(asked, chosen), batch_of(asked, rejected)
    raise RuntimeError(f"the base gave a right and a wrong answer to {len(found)} prompts; {number} are needed")
