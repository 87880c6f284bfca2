"""What an error comes from."""

from __future__ import annotations

from collections.abc import Iterator


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the one that it was raised from or in the handling of, and so on.

    Example:
        >>> try:
        ...     try:
        ...         {}["key"]
        ...     except KeyError as lost:
        ...         raise ValueError("no key") from lost
        ... except ValueError as error:
        ...     [type(found).__name__ for found in causes(error)]
        ['ValueError', 'KeyError']
    """
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
