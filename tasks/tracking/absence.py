"""Tells a tracking store that is away, for which it is worth waiting, from one that refuses.

MLflow wraps what its HTTP client and its database raise, and gives most of it one code; the causes tell.
"""

from __future__ import annotations

import errno
import re
import sqlite3

from mlflow.exceptions import MlflowException
from requests.exceptions import ChunkedEncodingError, RequestException, RetryError, SSLError, Timeout
from requests.exceptions import ConnectionError as NoConnection
from sqlalchemy.exc import OperationalError

from tasks.causes import causes

_BUSY_ANSWERS = {429, 502, 503, 504}
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}
_PASSING = re.compile(r"locked|full|disk I/O error")
"""What SQLite says of what need not last; of a mistake it says something else under the same class."""

_LASTING = re.compile(r"authenticat|password|denied|does not exist|unknown database", re.IGNORECASE)
"""What databases on servers say of a mistake, under the same class as of being away."""


def absence(error: BaseException) -> str | None:
    """How a store is away, in words that follow its name; ``None`` where it refused, and would do so again.

    Example:
        >>> absence(OSError(28, "No space left on device"))
        'cannot be written (No space left on device)'
    """
    for one in reversed(list(causes(error))):
        if isinstance(one, OperationalError):
            return _by_database(one)
        if isinstance(one, RequestException):
            return _by_server(one)
        if isinstance(one, MlflowException) and one.get_http_status_code() in _BUSY_ANSWERS:
            return f"does not answer ({one.get_http_status_code()})"
        if isinstance(one, OSError) and one.errno in _FULL_DISK:
            return f"cannot be written ({one.strerror})"
    return None


def _by_database(error: OperationalError) -> str | None:
    words = str(error.orig).strip().splitlines()[0]
    passing = _PASSING.search(words) if isinstance(error.orig, sqlite3.Error) else not _LASTING.search(words)
    return f"cannot be used ({words[:200]})" if passing else None


def _by_server(error: RequestException) -> str | None:
    if isinstance(error, SSLError):
        return None
    if isinstance(error, RetryError) and (status := re.search(r"too many (\d+) error responses", str(error))):
        return f"does not answer ({status[1]})"
    if not isinstance(error, NoConnection | Timeout | RetryError | ChunkedEncodingError):
        return None
    found = list(causes(error))
    if any(isinstance(one, TimeoutError) for one in found):
        return "does not answer in time"
    why = (one.strerror for one in found if isinstance(one, OSError) and one.strerror)
    return f"does not answer ({next(why, 'connection lost')})"
