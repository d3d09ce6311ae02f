"""Files of the hub, from the stand-in: bytes, commits, what is asked again, what is found offline, what a refusal says."""

import pytest
from huggingface_hub import snapshot_download
from support.hub import LFS_FROM
from support.hub_server import MINE, READER, connect, go_away

from sipo.errors import UsageError, UserError
from sipo.hub.address import Address, is_address, parse_address
from sipo.hub.download import download, listing
from sipo.hub.refusal import OutOfReach

FILES = {
    "README.md": b"# data",
    "data/train.bin": b"small",
    "data/deep/large.bin": bytes(range(256)) * (LFS_FROM // 256 + 1),
    "other/a b%.txt": b"odd name",
}


def fetched(text: str) -> dict[str, bytes]:
    found = listing(parse_address(text))
    folder = download(found, list(found.files))
    assert found.files == {file: len((folder / file).read_bytes()) for file in found.files}
    return {file: (folder / file).read_bytes() for file in found.files}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf://datasets/a/b", Address("dataset", "a/b")),
        ("hf://a/b", Address("model", "a/b")),
        ("hf://models/a/b", Address("model", "a/b")),
        ("hf://datasets/a/b/", Address("dataset", "a/b")),
        ("hf://datasets/a/b@v1.0/x/y.parquet", Address("dataset", "a/b", "v1.0", "x/y.parquet")),
        ("hf://datasets/a/b@refs/convert/parquet/x", Address("dataset", "a/b", "refs/convert/parquet", "x")),
        ("hf://datasets/a/b@feature%2Fone/x", Address("dataset", "a/b", "feature/one", "x")),
    ],
)
def test_addresses(text, meant):
    assert is_address(text)
    assert parse_address(text) == meant
    assert parse_address(str(meant).replace("feature/one", "feature%2Fone")) == meant


@pytest.mark.parametrize(
    "text", ["hf://datasets/a", "hf://", "hf://a", "hf://spaces/a/b", "hf://a/b/../c", "hf://a/b//c", "hf://a/b@"]
)
def test_what_is_no_address(text):
    with pytest.raises(UsageError, match="is no address of the hub; expected hf://datasets/OWNER/NAME"):
        parse_address(text)


def test_the_bytes_at_an_address(hub):
    hub.data_set("o/n", FILES)
    assert fetched("hf://datasets/o/n") == FILES
    assert fetched("hf://datasets/o/n/data") == {file: FILES[file] for file in FILES if file.startswith("data/")}
    assert fetched("hf://datasets/o/n/data/deep/large.bin") == {"data/deep/large.bin": FILES["data/deep/large.bin"]}
    assert fetched("hf://datasets/o/n/other/a b%25.txt") == {"other/a b%.txt": b"odd name"}


def test_a_listing_is_of_one_commit(hub):
    repository = hub.data_set("o/n", {"a": b"1"})
    first = repository.branches["main"]
    found = listing(parse_address("hf://datasets/o/n"))
    assert (found.commit, str(found.address.at(first))) == (first, f"hf://datasets/o/n@{first}")
    second = repository.commit({"a": b"22"})
    assert (download(found, ["a"]) / "a").read_bytes() == b"1"  # as listed, though the branch moved
    assert listing(parse_address("hf://datasets/o/n")).commit == second
    assert fetched("hf://datasets/o/n") == {"a": b"22"}
    assert fetched(f"hf://datasets/o/n@{first}") == {"a": b"1"}
    repository.commit({"a": b"333"}, "next/one")
    assert fetched("hf://datasets/o/n@next%2Fone") == {"a": b"333"}


def test_what_is_on_this_machine_is_not_downloaded_again(hub):
    repository = hub.data_set("o/n", FILES)
    fetched("hf://datasets/o/n")
    hub.requests.clear()
    fetched("hf://datasets/o/n")
    assert hub.requests == ["GET /api/datasets/o/n"]  # where is the branch now?
    fetched(f"hf://datasets/o/n@{repository.branches['main']}")
    assert len(hub.requests) == 1


AWAY = {
    "offline": "may not be asked, because HF_HUB_OFFLINE is set",
    "closed": "the hub is out of reach",
    "broken": "the hub answers 503: The hub is down for maintenance. Try again later",
}


@pytest.mark.parametrize("how", AWAY)
def test_offline_it_is_what_it_was(hub, monkeypatch, how):
    hub.data_set("o/n", FILES)
    hub.data_set("o/new", {"a": b""})
    before = fetched("hf://datasets/o/n/data")
    listing(parse_address("hf://datasets/o/n"))
    go_away(hub, monkeypatch, how)
    assert fetched("hf://datasets/o/n/data") == before
    with pytest.raises(OutOfReach, match=f"hf://datasets/o/n: .*{AWAY[how]}"):
        fetched("hf://datasets/o/n")  # README.md was listed, never downloaded
    with pytest.raises(
        OutOfReach, match=f"hf://datasets/o/new: .*{AWAY[how]}.*, and it is not in the cache of this machine"
    ):
        fetched("hf://datasets/o/new")


def test_offline_what_another_program_downloaded(hub, monkeypatch):
    """As on a node without a network, for which `hf download` filled the cache."""
    hub.data_set("o/n", FILES)
    snapshot_download("o/n", repo_type="dataset")
    go_away(hub, monkeypatch, "offline")
    assert fetched("hf://datasets/o/n") == FILES
    assert fetched("hf://datasets/o/n/data/deep/large.bin") == {"data/deep/large.bin": FILES["data/deep/large.bin"]}
    with pytest.raises(OutOfReach, match="and the cache of this machine has nothing of it"):
        fetched("hf://datasets/o/n/nothing")


def test_offline_a_part_is_never_taken_for_the_whole(hub, monkeypatch):
    commit = hub.data_set("o/n", FILES).branches["main"]
    fetched("hf://datasets/o/n/data/train.bin")
    go_away(hub, monkeypatch, "offline")
    for address in ("hf://datasets/o/n", "hf://datasets/o/n/data", f"hf://datasets/o/n@{commit}"):
        with pytest.raises(OutOfReach, match="and what lies there was not listed before"):
            fetched(address)
    assert fetched("hf://datasets/o/n/data/train.bin") == {"data/train.bin": b"small"}


def test_offline_what_was_listed_tells_what_is_missing(hub, monkeypatch):
    hub.data_set("o/n", FILES)
    found = listing(parse_address("hf://datasets/o/n"))
    download(found, ["data/train.bin"])
    go_away(hub, monkeypatch, "offline")
    assert set(listing(parse_address("hf://datasets/o/n/data")).files) == {"data/train.bin", "data/deep/large.bin"}
    with pytest.raises(OutOfReach, match="hf://datasets/o/n/data: the hub may not be asked"):
        fetched("hf://datasets/o/n/data")
    assert fetched("hf://datasets/o/n/data/train.bin") == {"data/train.bin": b"small"}


def test_unless_it_may_be_asked_it_is_not(hub):
    hub.data_set("o/n", FILES)
    address = parse_address("hf://datasets/o/n")
    with pytest.raises(OutOfReach, match="the hub is not asked here"):
        listing(address, ask=False)
    found = listing(address)
    with pytest.raises(OutOfReach):
        download(found, ["README.md"], ask=False)
    download(found, ["README.md"])
    hub.requests.clear()
    assert (download(listing(address, ask=False), ["README.md"], ask=False) / "README.md").read_bytes() == b"# data"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("address", "token", "message"),
    [
        (
            "o/absent",
            None,
            "the hub has no such repository, or it is private and not shown without a token; check the name, or log in with",
        ),
        ("o/absent", MINE, "private and not shown to the owner of this token"),
        ("me/private", READER, "private and not shown to the owner of this token"),
        ("me/private", None, "set HF_TOKEN"),
        ("o/gated", MINE, "access must be granted first: accept its conditions on its page"),
        ("o/n@absent", None, "the repository has no such revision"),
        ("o/n/data/trian.bin", None, r"data has no trian\.bin; did you mean train\.bin\?"),
        ("o/n/dta", None, r"the repository has no dta; did you mean data\?"),
        ("o/n", "hf_unknownUnknownUnknown", "the hub does not know this token"),
    ],
)
def test_what_a_refusal_says(hub, monkeypatch, tmp_path, address, token, message):
    hub.data_set("o/n", FILES)
    hub.data_set("me/private", FILES, private=True)
    hub.data_set("o/gated", FILES, gated=True)
    connect(monkeypatch, hub, tmp_path / "hub-cache", token)
    with pytest.raises(UserError, match=message) as refused:
        fetched(f"hf://datasets/{address}")
    assert str(refused.value).startswith(f"hf://datasets/{address}: ")
    assert "\n" not in str(refused.value)


def test_a_download_that_breaks_off_is_told(hub, monkeypatch):
    hub.data_set("o/n", FILES)
    found = listing(parse_address("hf://datasets/o/n"))
    hub.broken = 500
    with pytest.raises(OutOfReach, match="hf://datasets/o/n: the hub answers 500"):
        download(found, list(found.files))
    hub.broken = None
    assert fetched("hf://datasets/o/n") == FILES
