"""Study files: YAML read without surprises, settings replaced, and a study or one line that says why not."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from layerwise import imported
from layerwise.study.complaints import complaints
from layerwise.study.parts import StudyError, short
from layerwise.study.study import Study

MAX_FILE_BYTES = 200_000
"""A study is a page of text; anything larger is refused before it is parsed."""

MAX_KEPT_BYTES = 1_000_000
"""What a tracker keeps of a study has every setting spelled out."""


def shipped() -> dict[str, Path]:
    """The ready-made studies: name -> file. They stand beside the package, in a wheel inside it."""
    here = Path(__file__).resolve().parent.parent
    folders = [here.parent / "studies", here / "studies"]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load(source: str | Path, /, *, overrides: Sequence[str] = (), **changes: Any) -> Study:
    """A study from a shipped name or a YAML file.

    Args:
        source: the name of a shipped study, or the path of a study file.
        overrides: ``key.inner=value`` settings that replace what the file says; values are read as YAML.
        changes: top-level keys to replace, as in ``seeds=5``.

    Raises:
        StudyError: if there is no such study, or it does not say a valid one; one line each.

    Example:
        >>> from layerwise.study import load
        >>> load("blobs-supervised", seeds=5).seeds
        5
    """
    text, path = _read(source)
    document = _parse(text, path)
    for setting in overrides:
        _override(document, setting)
    document.update(changes)
    asked = [f"--set {short(setting)}" for setting in overrides]
    asked += [f"{key} {short(value)}" for key, value in changes.items()]
    where = f"{source} with {', '.join(asked)}" if asked else str(source)
    return parse(document, where=where, folder=Path(path).parent)


def parse(document: Mapping[str, Any], *, where: str = "study", folder: Path | None = None) -> Study:
    """The study that a plain mapping describes.

    Args:
        document: its keys and values, as a study file has them.
        where: how messages call it.
        folder: where files and modules that it names are looked for first, before the working directory.

    Raises:
        StudyError: if it describes none; one line.
    """
    try:
        study = Study.model_validate(document, context={"folder": folder})
    except ValidationError as error:
        raise StudyError(f"{where}: {'; '.join(complaints(error))}") from None
    if study.functions:
        for place in filter(None, (folder, Path.cwd())):
            imported.look_in(place)
    return study


def document_of(content: bytes, where: str) -> dict[str, Any]:
    """The keys and values of a study that somebody else kept, as plain values; :func:`parse` makes a study of them.

    Args:
        content: of a study file.
        where: how messages call it.

    Raises:
        StudyError: if it is too large, no text, or no plain YAML mapping; one line.
    """
    if len(content) > MAX_KEPT_BYTES:
        raise StudyError(_too_large(where, len(content), MAX_KEPT_BYTES))
    try:
        return _parse(content.decode(), where)
    except UnicodeDecodeError:
        raise StudyError(f"{where}: is not UTF-8 text; a study is a YAML file.") from None


def _too_large(where: str, size: int, most: int) -> str:
    return f"{where}: {size:,} bytes; a study file holds at most {most:,}."


def _read(source: str | Path) -> tuple[str, str]:
    known = shipped()
    path = known.get(str(source), Path(source))
    if os.path.isdir(path):  # noqa: PTH112 - as below
        files = sorted(file.name for file in path.glob("*.yaml"))[:3]
        hint = f", such as {', '.join(files)}" if files else ""
        raise StudyError(f"{str(source)!r} is a folder; name a study file in it{hint}, or a ready-made study.")
    if not os.path.isfile(path):  # noqa: PTH113 - pathlib raises of a name that is too long
        near = difflib.get_close_matches(Path(source).stem, known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else f"ready-made: {', '.join(known)}."
        raise StudyError(f"no study named or file at {str(source)!r}; {hint} `layerwise list` shows all.")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise StudyError(_too_large(str(path), max(path.stat().st_size, len(content)), MAX_FILE_BYTES))
        return content.decode(), str(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path}: is not UTF-8 text; a study is a YAML file.") from None


def _parse(text: str, where: str) -> dict[str, Any]:
    from layerwise.study.plain import NotPlain, read_plain  # here, since a study built in Python needs no YAML

    try:
        document = read_plain(text)
    except NotPlain as error:
        place = f"line {error.line} " if error.line else ""
        raise StudyError(f"{where}: {place}is not valid YAML: {error}.") from None
    if not isinstance(document, dict):
        raise StudyError(f"{where}: holds {_kind(document)}; expected keys such as name, data, network, seeds.")
    return document


def _kind(value: Any) -> str:
    """What stands in a file, in words."""
    if value is None:
        return "nothing"
    kinds = {bool: "a truth value", str: "text", list: "a list", int: "a number", float: "a number"}
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), "a date")


def _override(document: dict[str, Any], setting: str) -> None:
    from layerwise.study.plain import MOST_NESTED, NotPlain, read_plain

    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise StudyError(f"--set {setting!r}: expected key=value, as in --set training.epochs=50.")
    try:
        value = read_plain(text)
    except NotPlain as error:
        raise StudyError(f"--set {short(setting)}: {short(text)} is not a YAML value: {error}.") from None
    place: Any = document
    *outer, last = key.split(".", MOST_NESTED)
    for name in outer:
        place = _step(place, name, setting)
    if isinstance(place, list):
        place[_index(place, last, setting)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise StudyError(f"--set {setting!r}: {'.'.join(outer)} is a plain value and has no key {last!r}.")


def _step(place: Any, name: str, setting: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, name, setting)]
    if isinstance(place, dict):
        return place.setdefault(name, {})
    raise StudyError(f"--set {setting!r}: nothing can be set below a plain value ({name!r}).")


def _index(place: list[Any], name: str, setting: str) -> int:
    if not name.isdecimal() or int(name) >= len(place):
        raise StudyError(f"--set {setting!r}: {name!r} is not a position of a list of {len(place)} (from 0).")
    return int(name)
