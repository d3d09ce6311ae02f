"""What is printed: texts from outside (paths, prompts, captions, messages of other programs) are shown, never obeyed."""

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Control characters (but tab and newline), lone surrogates, and what reorders or hides text around it.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
)


def printable(text: object) -> str:
    """A text as a terminal may get it: what is unseen, or would steer the terminal, is written as an escape."""
    return UNSEEN.sub(
        lambda found: repr(found[0])[1:-1] if ord(found[0]) < 128 else f"\\u{ord(found[0]):04x}", str(text)
    )


def shown(value: object, limit: int = 200) -> str:
    """A value from outside in a message: its `repr`, of bounded length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; a value nested beyond reason
        text = f"a {type(value).__name__}"
    return printable(text if len(text) <= limit else f"{text[:limit]}...")


class Screen(Console):
    """A console that prints what it is given: no text is markup unless the call says so, and all are `printable`."""

    def __init__(self, **settings: Any):
        super().__init__(**{"markup": False, **settings})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Every text on its way to the terminal; rich's own control sequences pass, styles are added later."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
