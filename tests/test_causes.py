"""What errors come from."""

from __future__ import annotations

import doctest

import pytest

from tasks import causes


def test_examples() -> None:
    """What the documentation shows is what comes out."""
    assert not doctest.testmod(causes).failed


def test_what_an_error_was_raised_in_the_handling_of_counts() -> None:
    """Without `from` the error that was being handled is the cause, too; nothing has none."""
    with pytest.raises(ValueError, match="then") as raised:
        _raise_in_handling()
    assert [type(found) for found in causes.causes(raised.value)] == [ValueError, OSError]
    assert list(causes.causes(None)) == []


def _raise_in_handling() -> None:
    try:
        raise OSError
    except OSError:
        raise ValueError("then")  # noqa: B904 - that is what is tried
