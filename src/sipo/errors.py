"""What a user can put right: the command line prints the message alone, without a traceback."""

import contextlib
import difflib
import re
from collections.abc import Collection, Iterator


class UserError(Exception):
    """A mistake in the user's files or a state that the user must fix; the command exits with 1."""


class UsageError(UserError):
    """A mistake in the command line or the config; the command exits with 2."""


class Stopped(UserError):
    """The user asked for the stop, and nothing is lost; the command exits with 130, as one that Ctrl-C ended."""


class DiskFull(UserError):
    """No room for what is to be written. where: the folder and sizes; kept: a sentence on the last whole state."""

    def __init__(self, where: str, kept: str = ""):
        super().__init__(". ".join(part for part in (where, kept, "Make room, and run the same command again") if part))
        self.where, self.kept = where, kept


@contextlib.contextmanager
def well_formed(what: object, advice: str = "") -> Iterator[None]:
    """Where a file's content of another form than expected raises in this context, UserError says `what` is damaged."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        found = f"{type(error).__name__}: {shown(str(error))}"
        raise UserError(f"{what} is damaged, or was changed by hand ({found}). {advice}".rstrip()) from error


# Control characters (but tab and newline), lone surrogates, and what reorders or hides text around it.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
)


def printable(text: object) -> str:
    """A text from outside as a terminal may get it: what is unseen, or would steer the terminal, is an escape."""
    return UNSEEN.sub(
        lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}", str(text)
    )


def shown(value: object, limit: int = 200) -> str:
    """A value from outside in a message: its `repr`, of bounded length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a value nested beyond reason
        text = f"a {type(value).__name__}"
    return printable(text if len(text) <= limit else f"{text[:limit]}...")


def is_out_of_memory(error: BaseException) -> bool:
    """torch's error of a GPU, or what a CPU or Apple's MPS raises for the same."""
    said = ("MPS backend out of memory", "can't allocate memory", "not enough memory")
    is_torchs = type(error).__name__ == "OutOfMemoryError" or any(text in str(error) for text in said)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_torchs)


def shortage_of(error: BaseException) -> str:
    """`out of memory`, and how much was asked of how much, as torch says it, without its advice."""
    found = re.search(r"[Tt]ried to allocate (.*?is free\.|.*?bytes|.*?\.(?=\s|$))", str(error).replace("\n", " "))
    return f"out of memory: {printable(found[0])}" if found else "out of memory"


def did_you_mean(name: object, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the most similar known one, or all of them."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
