"""What a user can put right: the command line prints the message alone, without a traceback."""


class UserError(Exception):
    """A mistake in the user's files or a state that the user must mend; the command exits with 1."""


class UsageError(UserError):
    """A mistake in the command line or the config; the command exits with 2."""


class Stopped(UserError):
    """The user asked for the stop, and nothing is lost; the command exits with 130, as one that Ctrl-C ended."""
