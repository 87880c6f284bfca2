"""Functions that a study names by import path: the only code that a study file can run.

They are looked for where Python looks, and then in the folders that :func:`look_in` was told of: the study file's and
the working directory. Those come last, so that a file there cannot stand in for an installed module.

Whoever asked for it with :func:`tell` learns of each before any of its code runs.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from layerwise.study.parts import StudyError

_listeners: list[Callable[[str], object]] = []
_places: list[str] = []
_told: set[str] = set()


def tell(listener: Callable[[str], object]) -> None:
    """Have every function named to a listener once, in a line with the file that holds it, before it is imported."""
    _listeners[:] = [listener]
    _told.clear()


def announce(path: str) -> None:
    """Name the function at ``module:name`` to the listener, if that has not happened.

    Raises:
        StudyError: if there is no such module.
    """
    file = source(path)
    if path not in _told:
        _told.add(path)
        for listener in _listeners:
            listener(f"code of your own: {path}, in {file}")


def look_in(folder: Path) -> None:
    """Also look for modules in a folder, after every other place."""
    place = str(folder.resolve())
    if place not in _places:
        _places.append(place)
    if place not in sys.path:
        sys.path.append(place)


def places() -> tuple[str, ...]:
    """The folders that :func:`look_in` was told of, in that order: where another process is to look too."""
    return tuple(_places)


def function(path: str) -> Callable[..., Any]:
    """The function at ``module:name``.

    Raises:
        StudyError: if the module cannot be imported, or has no such function; one line.
    """
    module, _, name = path.partition(":")
    announce(path)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's module does while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StudyError(f"{path!r}: importing {module} failed ({reason}); mend it, or name another.") from None
    if not callable(found):
        received = "is not there" if found is None else f"is of type {type(found).__name__}"
        raise StudyError(f"{path!r}: {name} {received} in module {module}; expected a function.")
    return found


def code_digest(path: str) -> str:
    """SHA-256 of the source file that holds the function at ``module:name``, as 32 hex digits.

    Raises:
        StudyError: if there is no such module.
    """
    return hashlib.sha256(source(path).read_bytes()).hexdigest()[:32]


def source(path: str) -> Path:
    """The file that holds the function at ``module:name``; nothing is imported to find it.

    Raises:
        StudyError: if there is no such module.
    """
    module = path.partition(":")[0]
    try:
        spec = _spec(module)
    except Exception:  # noqa: BLE001 - a finder that fails finds nothing
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise StudyError(
            f"{path!r}: no module {module!r} was found; put {module.replace('.', '/')}.py beside the study file or in"
            " the working directory."
        )
    return Path(spec.origin)


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is. :func:`importlib.util.find_spec` would import the packages it is in."""
    first, *inner = module.split(".")
    spec, name = importlib.util.find_spec(first), first
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, [*spec.submodule_search_locations])
    return spec
