"""A run's settings, data and environment as rows of text, for its report."""

from collections.abc import Iterator, Mapping

from sipo.evaluate.report.run_record import Record

LONG_LIST = 12  # entries that a table shows


def tables(record: Record) -> list[tuple[str, list]]:
    """(title, groups) of the settings, the data report and the environment, as far as they exist."""
    found = (("Settings", record.config), ("Data", record.data and _data(record.data)), ("Environment", record.env))
    return [(title, _groups(content)) for title, content in found if content]


def _data(report: Mapping) -> dict:
    """A data check for reading: kinds that do not occur are left out, and the first rows that do are named."""
    shown = dict(report)
    shown["counts"] = {kind: count for kind, count in (report.get("counts") or {}).items() if count}
    problems = report.get("problems") or []
    shown["problems"] = {p["row"]: f"{p['kind']}: {p['detail']}" for p in problems[:LONG_LIST]}
    if len(problems) > LONG_LIST:
        shown["problems"]["…"] = f"{len(problems) - LONG_LIST:,} more in data.json"
    return shown


def _groups(content: Mapping) -> list[tuple[str, list[tuple[str, str]]]]:
    """(name, rows): the plain keys first, under no name, then a group for every key that holds keys."""
    plain = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    nested = [(str(key), list(_rows(value))) for key, value in content.items() if isinstance(value, Mapping) and value]
    return [("", list(_rows(plain))), *nested] if plain else nested


def _rows(content: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key.path, text) of every leaf; long lists are cut."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _rows(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        more = f" … ({len(value):,} in all)" if len(value) > LONG_LIST else ""
        return (", ".join(map(_text, value[:LONG_LIST])) or "none") + more
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return str(value)
