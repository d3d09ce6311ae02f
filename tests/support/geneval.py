"""GenEval's metadata: a prompt of each kind that tests need, and lines of them in a file."""

import json
from pathlib import Path

CAT = {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"}
DOGS = {
    "tag": "counting", "include": [{"class": "dog", "count": 2}], "exclude": [{"class": "dog", "count": 3}],
    "prompt": "a photo of two dogs",
}  # fmt: skip
BESIDE = {
    "tag": "position", "prompt": "a photo of a dog left of a cat",
    "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
}  # fmt: skip


def write_lines(path: Path, entries) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path
