"""Flags and numbers in whatever type a table brings them."""

from decimal import Decimal

import pytest

from sipo.flags import is_absent, read_flag, read_number


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", "1.0", "true", "True", " TRUE ", "yes", "t", Decimal(1)])
def test_true(value: object) -> None:
    assert read_flag(value) is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "0", "0.0", "false", "FALSE", "no", "f", Decimal(0)])
def test_false(value: object) -> None:
    assert read_flag(value) is False


@pytest.mark.parametrize("value", [None, float("nan"), "", "maybe", 2, 0.5, "nan", [], {}, b"1"])
def test_what_is_no_flag_is_neither(value: object) -> None:
    assert read_flag(value) is None


def test_numbers() -> None:
    assert [read_number(value) for value in (3, "3", " 2.5 ", Decimal("0.5"), True)] == [3.0, 3.0, 2.5, 0.5, 1.0]
    assert all(read_number(value) is None for value in (None, "", "x", "inf", float("nan"), [1], b"1", 10**400))


def test_absent() -> None:
    assert all(map(is_absent, (None, "", "  ", float("nan"))))
    assert not any(map(is_absent, (0, False, "0", [])))
