"""What a user can put right: the command line prints the message alone, without a traceback."""

import difflib
from collections.abc import Collection


class UserError(Exception):
    """A mistake in the user's files or a state that the user must fix; the command exits with 1."""


class UsageError(UserError):
    """A mistake in the command line or the config; the command exits with 2."""


class Stopped(UserError):
    """The user asked for the stop, and nothing is lost; the command exits with 130, as one that Ctrl-C ended."""


def did_you_mean(name: object, known: Collection[str]) -> str:
    """The end of a message about an unknown name: the most similar known one, or all of them."""
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"
