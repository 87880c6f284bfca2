"""A file of schedules: which studies are run when; validated as studies are, and read without running anything.

schedules:
  - study: blobs-supervised        # a ready-made study, or a file beside this one
    cron: "0 2 * * *"              # minute, hour, day of the month, month, day of the week
    timezone: Europe/Berlin        # UTC, if left out
    require_claims: true           # a claim that is not supported fails the run
    notify: https://…              # is called when a run fails
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationError

from layerwise.study import Study, StudyError, load, shipped
from layerwise.study.complaints import complaints
from layerwise.study.parts import LABEL, Part, nearest, short
from layerwise.study.plain import NotPlain, read_plain

DEFAULT = Path("schedules.yaml")

MAX_FILE_BYTES = 100_000

FIELD = r"[0-9A-Za-z*/,\-#]+"
"""Characters of one field of a cron expression; what they mean, Prefect decides."""


def _is_cron(text: str) -> str:
    if not re.fullmatch(rf"{FIELD}( +{FIELD}){{4}}", text.strip()):
        raise ValueError(
            f"received {short(text)}; expected five fields: minute, hour, day, month, weekday, as in 0 2 * * *"
        )
    return text.strip()


def _is_timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        from zoneinfo import available_timezones

        near = nearest(name, sorted(available_timezones())).partition(" Known:")[0].partition("; known:")[0]
        raise ValueError(f"received {short(name)}; expected a name such as Europe/Berlin or UTC{near}") from None
    return name


def _is_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+\S*", text):
        raise ValueError("expected an address that begins with http:// or https://")  # it may hold a secret
    return text


class Entry(Part):
    """One study and when it runs."""

    study: Annotated[str, Field(min_length=1, max_length=1000)]
    cron: Annotated[str, AfterValidator(_is_cron)]
    timezone: Annotated[str, AfterValidator(_is_timezone)] = "UTC"
    name: Annotated[str, Field(pattern=LABEL)] | None = None
    """What it is called on Prefect's pages; the study's name, if left out."""
    require_claims: bool = False
    notify: Annotated[str, AfterValidator(_is_address)] | None = None


class Schedules(Part):
    """All that a file says."""

    schedules: Annotated[list[Entry], Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class Scheduled:
    """A study as it was taken in, and when it runs.

    Attributes:
        entry: what the file says.
        study: the study as it was then.
        folder: of the study's file, where functions of its own are looked for.
    """

    entry: Entry
    study: Study
    folder: Path

    @property
    def name(self) -> str:
        """What it is called on Prefect's pages."""
        return self.entry.name or self.study.name


def read_schedules(file: Path) -> list[Scheduled]:
    """What a file of schedules asks for, its studies taken in as they are now.

    Args:
        file: the file; studies that it names are files relative to it, or ready-made.

    Raises:
        StudyError: if there is no such file, it is not valid, or one of its studies is not; one line.
    """
    entries = _entries(file)
    found = [_taken_in(entry, place, file) for place, entry in enumerate(entries)]
    twice = [name for name, count in Counter(one.name for one in found).items() if count > 1]
    if twice:
        raise StudyError(f"{file}: {twice[0]!r} stands twice; give the second a name of its own")
    return found


def _entries(file: Path) -> list[Entry]:
    try:
        document = read_plain(_text(file))
    except NotPlain as error:
        place = f"line {error.line} " if error.line else ""
        raise StudyError(f"{file}: {place}is not valid YAML: {error}.") from None
    if not isinstance(document, dict):
        found = "nothing" if document is None else f"a {type(document).__name__}"
        raise StudyError(f"{file}: holds {found}; expected schedules: and a list of entries with study and cron.")
    try:
        return Schedules.model_validate(document).schedules
    except ValidationError as error:
        raise StudyError(f"{file}: {'; '.join(complaints(error, Schedules))}") from None


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise StudyError(f"{file}: more than {MAX_FILE_BYTES:,} bytes; a file of schedules holds at most that.")
        return content.decode()
    except FileNotFoundError:
        raise StudyError(
            f"there is no {file}; write one that lists study, cron and timezone, or name another: layerwise schedule"
            " FILE"
        ) from None
    except OSError as error:
        raise StudyError(f"{file}: cannot be read ({error.strerror}); check what it is, and its permissions.") from None
    except UnicodeDecodeError:
        raise StudyError(f"{file}: is not UTF-8 text; schedules are a YAML file.") from None


def _taken_in(entry: Entry, place: int, file: Path) -> Scheduled:
    known = shipped().get(entry.study)
    path = known or file.parent / entry.study
    try:
        study = load(entry.study if known else str(path))
    except StudyError as error:
        raise StudyError(f"{file}: schedules.{place}.study: {error}") from None
    if entry.require_claims and not study.claims:
        raise StudyError(f"{file}: schedules.{place}.require_claims: {study.name} claims nothing; leave it out")
    return Scheduled(entry, study, path.absolute().parent)
