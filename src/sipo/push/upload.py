"""One commit on the hub: the repository is made where it is missing, and a private one never turns out to be public."""

import contextlib
import re
from collections.abc import Iterator

from rich.console import Console

from sipo.errors import UsageError, UserError, shown
from sipo.hub.address import NAME, REPOSITORY
from sipo.hub.refusal import LOGIN, first_line, refusals
from sipo.push.contents import Parcel


def require_name(repo: str) -> None:
    """Raises UsageError for what is neither OWNER/NAME nor NAME."""
    if not re.fullmatch(f"{REPOSITORY.pattern}|{NAME}", repo):
        raise UsageError(
            f"REPO: {shown(repo)} is no name of a repository; expected OWNER/NAME, or NAME for one of your own"
        )


def full_name(repo: str) -> str:
    """OWNER/NAME; the owner of a NAME alone is the token's. Raises UserError without a token that the hub knows."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise UserError(f"{repo}: there is no token of the hub: {LOGIN}; it must be one that may write")
    with refusals(repo):
        user = HfApi().whoami()["name"]
    return repo if "/" in repo else f"{user}/{repo}"


def upload(parcel: Parcel, repo: str, private: bool, revision: str | None, console: Console) -> str:
    """Commit a parcel to the repository of a model, to a branch (None: main); returns the address of its page.

    Files that are there already are not sent again. Raises UserError for a repository that this token may not write to,
    one that is public where `private` is asked for, and for what else the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with _told(repo):
        url = str(api.create_repo(repo, private=private or None, exist_ok=True))
        found = api.repo_info(repo)
        if private and not found.private:
            raise UserError(
                f"{repo} exists and is public, which --private does not change: make it private on its page, or name another"
            )
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        with console.status(f"sending {parcel.size / 1e6:,.1f} MB"):
            operations = [CommitOperationAdd(item.path, str(item.file)) for item in parcel.items]
            commit = api.create_commit(repo, operations, commit_message="Add a run of sipo", revision=revision)
    console.print(f"commit {commit.oid}, {'private' if found.private else 'public'}", highlight=False)
    return f"{url}/tree/{revision}" if revision else url


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """Refusals of the hub, and what its client says of an upload that failed, as UserError."""
    try:
        with refusals(repo):
            yield
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{repo}: the upload failed ({first_line(error)}). Run the same command again: what is there is not sent twice"
        ) from error
