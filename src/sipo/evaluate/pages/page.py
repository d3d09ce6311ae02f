"""Pages from the templates beside this file; every text is escaped, no page loads anything from elsewhere."""

import functools
from pathlib import Path

import jinja2

from sipo.evaluate.pages.comparison_text import means_footnote, means_table
from sipo.evaluate.pages.words import number, p_text, percent, significance_paragraph


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": number,
        "p": p_text,
        "significance_paragraph": significance_paragraph,
        "means_table": means_table,
        "means_footnote": means_footnote,
    }
    return environment


def render(template: str, **context: object) -> str:
    """The HTML of `template` ("report.html", "comparison.html")."""
    return _environment().get_template(template).render(**context)
