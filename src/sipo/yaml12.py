"""YAML with the types of version 1.2: `no` and `on` are texts, `1e-5` is a number. (PyYAML alone follows 1.1.)

A key that stands twice is an error, and `~/` at the start of a text is the home folder.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sipo.errors import UserError, printable
from sipo.files import expand_home, read_text

NUMBERS = {
    # 007 stays a text, as in YAML 1.2's JSON schema: it is a name rather than a number.
    "tag:yaml.org,2002:int": (re.compile(r"([-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), "-+0123456789"),
    "tag:yaml.org,2002:float": (
        re.compile(
            r"([-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
        ),
        "-+.0123456789",
    ),
}
HOME = re.compile(r"~[\w.-]*/")  # a path in the user's home, or another one's
BOOLEANS = "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), "tTfF"
MOST_NODES = 1_000_000
MOST_BYTES = 2**24
KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")  # 1.1's rules; merge keys (<<) are a widely used extension


class _Loader(yaml.SafeLoader):
    """Builds dictionaries, lists, texts, numbers, booleans and null; nothing else."""


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that either version of YAML would read as something else."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag in KEPT]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(*BOOLEANS[:2], list(BOOLEANS[2]))
for _tag, (_pattern, _first) in NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))
    _Dumper.add_implicit_resolver(_tag, _pattern, list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[dict]:
    """Raises ConstructorError, with both lines, for a key that stands twice; PyYAML keeps the last one without a word."""
    lines: dict[Any, int] = {}
    for key, _ in node.value:
        if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
            continue
        name, line = loader.construct_object(key), key.start_mark.line + 1
        if name in lines:
            raise yaml.constructor.ConstructorError(
                None, None, f"{name!r} stands twice, in lines {lines[name]} and {line}"
            )
        lines[name] = line
    yield from loader.construct_yaml_map(node)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    """A text; one that begins with ~/ is a path, in the home folder, as a shell reads it."""
    return expand_home(node.value) if HOME.match(node.value) else node.value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:str", _text)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value, 0))


def read_yaml(text: str) -> Any:
    """The content of one document.

    Raises yaml.YAMLError, for a key that stands twice too, or ValueError: for a number that is none, and for aliases or
    a depth that no file of people has.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if (size := _size(node, {})) > MOST_NODES:
            raise ValueError(
                f"its aliases (*name) stand for {min(size, 10**12):,} values or more; at most {MOST_NODES:,} are read"
            )
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply, or an alias (*name) holds itself") from None
    finally:
        loader.dispose()


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The keys of a file of YAML, none of an empty one. Raises UserError for a file that holds anything else, OSError where there is none."""
    try:
        found = read_yaml(read_text(path, MOST_BYTES))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{printable(path)} is not readable as YAML: {printable(error)}") from None
    if not isinstance(found, dict | None):
        raise UserError(f"{printable(path)} should hold keys and their values; found {type(found).__name__}")
    return found or {}


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values once every alias is written out; each node is counted once, so that a bomb costs nothing."""
    if id(node) not in known:
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = [] if isinstance(node, yaml.ScalarNode) else parts
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]


def write_yaml(value: Any) -> str:
    """Keys stay in order. Tuples are written as lists."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
