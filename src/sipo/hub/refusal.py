"""The hub's errors as sentences for people."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sipo.errors import UserError, printable
from sipo.files import is_disk_full

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class OutOfReach(UserError):
    """The hub does not answer, or may not be asked."""


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """In this context, what the hub or the way to it refuses becomes a UserError about `what`; other errors pass.

    Raises OutOfReach where there is no answer.
    """
    try:
        yield
    except Exception as error:
        told = None if isinstance(error, UserError) or is_disk_full(error) else _told(what, error)
        if told is None:
            raise
        raise told from error


def _told(what: str, error: BaseException | None) -> UserError | None:
    """What an error, or the error behind it, says; None where it is none of the hub's."""
    from huggingface_hub import errors

    match error:
        case None:
            return None
        case errors.GatedRepoError():
            return UserError(f"{what}: access must be granted first: accept its conditions on its page, and {LOGIN}")
        case errors.RepositoryNotFoundError():
            return UserError(
                f"{what}: the hub has no such repository, or it is private and not shown {_to_whom()}; check the name, or {LOGIN}"
            )
        case errors.RevisionNotFoundError():
            return UserError(f"{what}: the repository has no such revision (branch, tag or commit)")
        case errors.LocalTokenNotFoundError():
            return UserError(f"{what}: there is no token of the hub: {LOGIN}")
        case errors.HFValidationError():
            return UserError(f"{what}: {first_line(error)}")
        case errors.HfHubHTTPError():
            return _answer(what, error)
    names = {cls.__name__ for cls in type(error).__mro__}
    if "OfflineModeIsEnabled" in names:
        return OutOfReach(f"{what}: the hub may not be asked, because HF_HUB_OFFLINE is set")
    if "TransportError" in names or isinstance(error, ConnectionError):  # of whichever HTTP library the client uses
        return OutOfReach(f"{what}: the hub is out of reach ({first_line(error)})")
    return _told(what, error.__cause__)  # the client wraps some of them


def _answer(what: str, error: "HfHubHTTPError") -> UserError:
    """What a status says."""
    status, message = error.response.status_code, getattr(error, "server_message", None)
    said = f"{status}: {printable(message)[:300]}" if message else f"{status}"
    if status >= 500 or status == 429:
        return OutOfReach(f"{what}: the hub answers {said}. Try again later")
    if status == 401:
        return UserError(f"{what}: the hub does not know this token ({said}): {LOGIN}")
    if status == 403:
        return UserError(f"{what}: the hub does not allow it {_to_whom()} ({said})")
    return UserError(f"{what}: the hub answers {said}")


def _to_whom() -> str:
    from huggingface_hub import get_token

    return "to the owner of this token" if get_token() else "without a token"


def first_line(error: BaseException) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0])[:300]
