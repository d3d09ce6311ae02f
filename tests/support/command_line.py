"""The command line in the test's own process, as `sipo.cli.main` runs it: exit status, output, complaints."""

import sys

import pytest

from sipo.cli import main


def run(monkeypatch, capture, *arguments) -> tuple[int, str, str]:
    """`capture` is pytest's capsys or capfd. A traceback fails the test, whatever was expected."""
    monkeypatch.setattr(sys, "argv", ["sipo", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed, complaints = capture.readouterr()
    assert "Traceback" not in printed + complaints
    return int(stopped.value.code or 0), printed, complaints
