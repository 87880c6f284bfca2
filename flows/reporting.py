"""``layerwise report``: the report of a run that is tracked, as a file to read, or on the terminal as Markdown."""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows import environment
from flows.printing import DONE, FAILED, WRONG_REQUEST, in_one_line, refuse, refuse_store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from tasks.tracking.tracked import Tracked

OWN_CODE = ("table", "arrays", "loader", "memory")
"""Sources of data that are read, or run, when a study is: nothing that a tracker says is to do that."""


class NoReport(RuntimeError):
    """There is no report, and it cannot be made; one line, and ``status`` what the command ends with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def report_command(said: str, *, output: Path | None, as_text: bool, may_open: bool, root: Path) -> int:
    """Write the report of a run to a file, or print it as Markdown. Returns the exit status.

    Args:
        said: a run, as :func:`tasks.tracking.tracked.find_study_run` takes it.
        output: the file to write; one in ``<root>/mlruns/reports``, if left out.
        as_text: whether it is printed as Markdown instead.
        may_open: whether the file is opened in the user's browser, where standard output is a terminal.
        root: where runs are.
    """
    environment.set_variables(root)
    from tasks.tracking.store import TrackingError, open_store_to_read

    try:
        client = open_store_to_read(root)
        run, content = _report(client, said, as_text=as_text)
    except TrackingError as error:
        return refuse_store(error)
    except NoReport as problem:
        return refuse(str(problem), problem.status)
    if as_text:
        click.echo(plain(content.decode()), nl=False)
        return DONE
    return deliver(content, output, reports_folder(root) / _file_name(run), may_open=may_open)


def reports_folder(root: Path) -> Path:
    """Where pages are written that nobody named a file for."""
    return root / "mlruns" / "reports"


def deliver(content: bytes, output: Path | None, otherwise: Path, *, may_open: bool) -> int:
    """Write a page, say where, and open it in the user's browser if there is one. Returns the exit status.

    Args:
        content: of the file.
        output: the file that the user named, if they did.
        otherwise: the file where they did not.
        may_open: whether it is opened, where standard output is a terminal.
    """
    place = output or otherwise
    try:
        _write(place, content)
    except OSError as error:
        remedy = "name another file with --output" if output is None else "name another file"
        return refuse(f"{place} cannot be written ({error.strerror or error}); {remedy}.", FAILED)
    click.echo(str(place))
    if may_open and sys.stdout.isatty() and _has_screen():
        webbrowser.open(place.absolute().as_uri())
    return DONE


def _report(client: MlflowClient, said: str, *, as_text: bool) -> tuple[Run, bytes]:
    """The study run that is meant, and its report: as it was published, or made again from what the run holds."""
    from tasks.tracking.answers import REPORT, REPORT_AS_TEXT, stored_file
    from tasks.tracking.store import failures_in_one_line
    from tasks.tracking.tracked import find_study_run, read_tracked

    with failures_in_one_line("reading the report", client.tracking_uri):
        run = find_study_run(client, said)
        content = stored_file(client, run, REPORT_AS_TEXT if as_text else REPORT)
        if content is not None:
            return run, content
        held = read_tracked(client, run)
    page = _made_again(held, as_text=as_text).encode()
    click.echo(f"layerwise: {held.name} has no report, or not as it was published: made from its tables.", err=True)
    return run, page


def _made_again(held: Tracked, *, as_text: bool) -> str:
    """The report, from the tables of its run."""
    from layerwise import report
    from layerwise.growing import as_grown
    from layerwise.study import parse

    if (own := _own(held.document)) is not None:
        raise NoReport(
            f"{held.name} has no report, and making one here would mean to read {own} that its run names; a repeat of"
            " it has one: layerwise run, with --repeat.",
            WRONG_REQUEST,
        )
    try:
        asked, origin = parse(held.document, where=held.name), report.origin_of(held.run.data.tags)
        study = as_grown(asked, held.metrics)
        tables = (held.metrics, held.table, held.verdicts, held.differences, held.costs)
        page = report.study_page(report.StudyRun(study, *tables, origin, held.data_digest))
        return report.markdown(page) if as_text else report.html(page)
    except Exception as error:  # noqa: BLE001 - a tracker may hold anything, and there is nothing to go on with
        raise NoReport(
            f"{held.name} has no report, and what its run holds is not what this version makes one from"
            f" ({in_one_line(error)}); a repeat of it has one: layerwise run, with --repeat.",
            FAILED,
        ) from None


def _own(document: Any) -> str | None:
    """What a study of the tracker's would have us read or run, if anything."""
    data = document.get("data") if isinstance(document, dict) else None
    source = data.get("source") if isinstance(data, dict) else None
    if source in OWN_CODE:
        return "data of its own"
    return "code of its own" if re.search(r"'function':", repr(document)) else None


def _file_name(run: Run) -> str:
    """Study, repeat and the beginning of the run's id: whatever a tracker says, the name of a file in this folder."""
    from tasks.tracking.runs import REPEAT, STUDY

    tags = run.data.tags
    words = (tags.get(STUDY, ""), tags.get(REPEAT, ""), run.info.run_id[:8])
    return f"{'-'.join(filter(None, map(safe_word, words)))}.html"


def safe_word(word: str) -> str:
    """A word as a part of a file's name, whatever a tracker says."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", word).strip(".-_")[:100]


def _write(place: Path, content: bytes) -> None:
    """A whole file or none; one that stands there is replaced, and a link is followed."""
    place = place.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


def plain(text: str) -> str:
    """Text without characters that would steer the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)


def _has_screen() -> bool:
    """Whether a browser can have a window: without one, a browser that fills the terminal would come up."""
    return sys.platform in {"darwin", "win32"} or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
