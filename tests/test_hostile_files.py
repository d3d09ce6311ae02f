"""Every reader and whatever may lie in place of its file: a sentence that names it, at once; and files changed at random."""

import json
import random
import re
import signal
from pathlib import Path

import pytest
from support.readers import READERS
from support.special import SPECIAL

from sipo.errors import UserError

FUZZED = 30  # mutations of each reader's file; of a slow one a tenth
WHOLE = sorted(READERS)
VALUES = ["null", "true", "-1", "0", "1e400", "NaN", '"x"', '""', "[]", "{}", '"\\ud800"', '"\\u0000"', "[[[[]]]]", '{"a": {}}', "9" * 5000,
          '"../../x"', "[" * 3000 + "]" * 3000, "x: y", "&a [*a]", "!!python/name:os.system"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_hang():
    """A reader that waits is ended by an alarm, which is no UserError."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the reader hangs"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_read(name, tmp_path):
    reader = READERS[name]
    reader.read(reader.write(tmp_path))


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_file_is_named(name, kind, tmp_path):
    path = READERS[name].write(tmp_path)
    path.unlink()
    SPECIAL[kind](path)
    with pytest.raises(UserError) as refused:
        READERS[name].read(path)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("name", WHOLE)
def test_every_change_is_read_or_named(name, tmp_path):
    """Bytes flipped, cut, doubled, inserted, and values put in the place of others; seeded by the reader's name."""
    reader, rng = READERS[name], random.Random(name)
    path = reader.write(tmp_path)
    whole = path.read_bytes()
    for number in range(FUZZED // 10 if reader.slow else FUZZED):
        content = changed(whole, rng)
        path.write_bytes(content)
        try:
            reader.read(path)
        except UserError:
            continue
        except Exception as error:
            (Path(tmp_path) / "found").write_bytes(content)
            raise AssertionError(f"change {number}: {type(error).__name__}: {error}; {content[:300]!r}") from error


def changed(content: bytes, rng: random.Random) -> bytes:
    """One to three changes of a file."""
    found = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        a, b = sorted(rng.randrange(len(found) + 1) for _ in range(2))
        b = min(b, a + 40)
        match rng.randrange(10):
            case 0 if found:
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
            case 1:
                del found[a:]
            case 2:
                del found[a:b]
            case 3:
                found[a:a] = found[a:b] * rng.randrange(1, 4)
            case 4:
                found[a:a] = rng.randbytes(rng.randrange(1, 9))
            case _:
                found = with_another_value(found, rng)
    return bytes(found)


def with_another_value(content: bytearray, rng: random.Random) -> bytearray:
    """One of its values, as JSON and YAML write them, exchanged."""
    places = list(
        re.finditer(rb'"[^"\n]*"|(?<=[ :,\[])-?[0-9.]+|true|null|\[[^\[\]\n]*\]|\{[^{}\n]*\}', bytes(content))
    )
    if not places:
        return content
    place = rng.choice(places)
    return content[: place.start()] + rng.choice(VALUES).encode() + content[place.end() :]


def test_the_changes_are_many_kinds():
    """The oracle of the fuzzing itself: most changed files differ, and JSON stays JSON in a good share of them."""
    rng, whole = random.Random(0), json.dumps({"a": [1, "x", {"b": None}]}).encode()
    found = {changed(whole, rng) for _ in range(300)}

    def is_json(text: bytes) -> bool:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
        return True

    assert len(found) > 150
    assert sum(map(is_json, found)) > 25
