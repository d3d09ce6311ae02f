"""What is printed: texts from outside (paths, prompts, captions, messages of other programs) are shown, never obeyed."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from sipo.errors import printable


class Screen(Console):
    """A console that prints what it is given: no text is markup unless the call says so, and all are `printable`."""

    def __init__(self, **settings: Any):
        super().__init__(**{"markup": False, **settings})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Every text on its way to the terminal; rich's own control sequences pass, styles are added later."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
