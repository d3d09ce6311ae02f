"""Soft-TIFA of GenEval 2 (Kamath et al. 2025, facebookresearch/GenEval2): a picture's questions, and how likely their answers are.

The questions are the user's own file's (geneval2_data.jsonl), whose licence forbids to ship them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sipo.errors import UserError, shown

NUMERALS = {
    "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
}  # fmt: skip
COUNTING = "How many"  # what questions about numbers begin with
SKILLS = ("object", "attribute", "count", "position", "verb")
FILE = "geneval2_data.jsonl"


@dataclass(frozen=True)
class Question:
    """One atom of a prompt. answer: a number in words where it counts, else yes, whatever the file says."""

    text: str
    answer: str

    def spellings(self) -> frozenset[str]:
        """The first tokens that are right: evaluation.py's list, whose words are one token each in Qwen's vocabulary.

        It holds " 2" too, of which the official script counts the first token, a lone space; that is no answer here.
        """
        word = self.answer if self.text.startswith(COUNTING) else "yes"
        forms = {word, word.capitalize(), NUMERALS.get(word, word)}
        return frozenset(forms | {f" {form}" for form in forms})

    def probability(self, first: Mapping[str, float]) -> float:
        """Of a right answer. first: probabilities of tokens with which the answer may begin."""
        return min(math.fsum(first.get(form, 0.0) for form in self.spellings()), 1.0)

    def is_right(self, first: Mapping[str, float]) -> bool:
        """TIFA's hard judgement: whether the likeliest token is right, in upper or lower case."""
        return max(first, key=first.__getitem__).lower() in self.spellings()


def questions_of(metadata: Mapping | None) -> list[Question]:
    """The questions of a prompt's line. Raises UserError where it is no line of GenEval 2's file."""
    found = (metadata or {}).get("vqa_list")
    if not isinstance(found, list) or not found:
        raise UserError(f"its metadata hold no questions (vqa_list): its prompt should come from GenEval 2's {FILE}")
    for entry in found:
        if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(text, str) for text in entry):
            raise UserError(f"vqa_list holds {shown(entry, 60)}; expected a question and its answer")
        if entry[0].startswith(COUNTING) and entry[1] not in NUMERALS:
            raise UserError(
                f"vqa_list: the answer to {shown(entry[0], 60)} is {shown(entry[1], 20)}; expected one to nine"
            )
    skills, atoms = (metadata or {}).get("skills"), (metadata or {}).get("atom_count")
    if not isinstance(skills, list) or len(skills) != len(found) or not all(skill in SKILLS for skill in skills):
        raise UserError(
            f"skills is {shown(skills, 60)}; expected one of {', '.join(SKILLS)} for each of {len(found)} questions"
        )
    if isinstance(atoms, bool) or not isinstance(atoms, int):
        raise UserError(f"atom_count is {shown(atoms, 20)}; expected a number")
    return [Question(*entry) for entry in found]


def arithmetic_mean(probabilities: Sequence[float]) -> float:
    """Soft-TIFA AM of one picture."""
    return math.fsum(probabilities) / len(probabilities)


def geometric_mean(probabilities: Sequence[float]) -> float:
    """Soft-TIFA GM of one picture: 0 where one of them is."""
    return math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities)) if all(probabilities) else 0.0
