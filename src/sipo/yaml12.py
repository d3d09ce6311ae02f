"""YAML with the types of version 1.2: `no` and `on` are texts, `1e-5` is a number. (PyYAML alone follows 1.1.)"""

import re
from typing import Any

import yaml

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
BOOLEANS = "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), "tTfF"
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
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value, 0))


def read_yaml(text: str) -> Any:
    """The content of one document. Raises yaml.YAMLError, or ValueError for a number that is none."""
    return yaml.load(text, _Loader)


def write_yaml(value: Any) -> str:
    """Keys stay in order. Tuples are written as lists."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
