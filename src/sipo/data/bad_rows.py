"""Why a row of preference data cannot be used."""

from sipo.errors import UserError

# Every reason for which a row is left out, in the order in which reports list them.
KINDS: dict[str, str] = {
    "tie": "ties: neither member is preferred",
    "unlabelled": "rows without a label",
    "malformed": "rows that do not follow the schema",
    "bad_label": "labels other than 0, 0.5 or 1",
    "blank_caption": "null or blank captions",
    "missing_file": "missing files",
    "empty_image": "empty images or videos (null, 0 bytes, a folder without pictures)",
    "truncated": "truncated images or videos",
    "undecodable": "images or videos that cannot be decoded",
    "too_large": "images or videos over the cap on pixels or frames",
    "too_short": "videos shorter than the model's",
    "mismatched": "pairs of different length or of an image and a video, videos for a model of images or as a source",
    "identical": "pairs whose two members are the same picture or video",
    "duplicate": "duplicates of an earlier pair (same prompt and media, in either order)",
}


class BadRow(UserError):
    """A row without a usable pair. `kind` is a key of `KINDS`; the message states what was found.

    One positional argument is enough to build it, because torch rebuilds exceptions of loader workers from their text.
    """

    def __init__(self, detail: str = "", kind: str = "undecodable") -> None:
        super().__init__(detail)
        self.kind = kind
