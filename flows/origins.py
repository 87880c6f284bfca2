"""Whether what a tracked run was made of can be had here: its code, the user's own functions, its data.

The tracker's word is taken for nothing that runs. A study that comes from it may name functions; they are called only
where a file in the working directory has the very content that the run recorded, or the user names them.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwise import datasets, imported, own_code
from layerwise.datasets import Data
from layerwise.study import Study, StudyError, parse
from tasks.provenance import CODE, DATA_SHA256, NO_CHANGES, PACKAGES, STAGE_CODE, content_sha256, provenance
from tasks.tracking.runs import REPEAT, RUN_KEY
from tasks.tracking.tracked import Tracked

if TYPE_CHECKING:
    from flows.reproducing import Allowed

COMMIT, CHANGES, DIRTY = "layerwise.git_commit", "layerwise.git_changes", "layerwise.git_dirty"
VERSION = "layerwise.version."
MACHINE = {"layerwise.machine": "machine", "layerwise.threads": "threads", "layerwise.lock_digest": "requirements.lock"}
"""What bits depend on besides versions, and what it is called."""

FILES = {"table": ("path",), "arrays": ("path", "targets_path")}
"""Keys of a study's data that name files, by source."""

ANYWAY = "or compare all the same with --allow-other-code"


def check_code(tags: Mapping[str, str]) -> None:
    """Refuse to go on where this code is not known to be the run's.

    Raises:
        StudyError: with what to do about it; one line.
    """
    _check_commit(tags)
    codes = own_code.from_text(tags.get(STAGE_CODE, ""))
    if len(codes) > 1:
        counts = ", ".join(f"{count} by {code or 'code that nobody recorded'}" for code, count in codes.items())
        raise StudyError(
            f"the run's stages were not all computed by the same code ({counts}), so no code makes all of it again;"
            f" compute it afresh with --repeat, {ANYWAY}."
        )
    if codes and own_code.digest() not in codes:
        by = next(iter(codes)) or "that nobody recorded"
        raise StudyError(
            f"the run's stages were computed by code {by}, though the run ended with the code that is here,"
            f" {own_code.digest()}; compute it afresh with --repeat, {ANYWAY}."
        )


def _check_commit(tags: Mapping[str, str]) -> None:
    here, commit, changes = provenance(), tags.get(COMMIT), tags.get(CHANGES)
    if commit is None:
        raise StudyError(f"the run has no git commit recorded, so nobody can tell its code; make a new run, {ANYWAY}.")
    if COMMIT not in here:
        raise StudyError(
            f"the run was made by commit {commit}, and this code is no git checkout that answers; clone the repository"
            f" and `git checkout {commit}`, {ANYWAY}."
        )
    if here[COMMIT] != commit:
        raise StudyError(
            f"the run was made by commit {commit}, and this checkout is at {here[COMMIT]}; `git checkout {commit}`,"
            f" {ANYWAY}."
        )
    if changes is None and tags.get(DIRTY) != "false":
        raise StudyError(f"the run was made with uncommitted changes that nobody recorded; make a new run, {ANYWAY}.")
    changes, places = changes or NO_CHANGES, ", ".join(f"{name}/" for name in PACKAGES)
    if here[CHANGES] == changes:
        return
    if changes == NO_CHANGES:
        raise StudyError(
            f"this checkout has uncommitted changes in {places} that the run had not; `git stash`, {ANYWAY}."
        )
    raise StudyError(
        f"the run was made with uncommitted changes in {places} (digest {changes}) that this checkout has not; bring"
        f" them back, {ANYWAY}."
    )


def unlike(tags: Mapping[str, str], now: Mapping[str, str] | None = None) -> list[str]:
    """What of versions and machine is not as it was, in words: ``numpy 2.4.0 then, 2.4.1 now``.

    Args:
        tags: those of the run from then.
        now: those of another one; of this process, if left out.
    """
    here = provenance() if now is None else now
    versions = {key: key.removeprefix(VERSION) for key in sorted({*tags, *here}) if key.startswith(VERSION)}
    return [
        f"{what} {tags.get(key) or 'unknown'} then, {here.get(key) or 'unknown'} now"
        for key, what in (versions | MACHINE).items()
        if tags.get(key) != here.get(key)
    ]


def study_of(tracked: Tracked, allowed: Allowed) -> tuple[Study, Data]:
    """The study of a run, and its data, once it is sure that they are those that the run had.

    Raises:
        StudyError: if they are not, or cannot be had; one line.
    """
    document = dict(tracked.document)
    given = document.get("data")
    given = given if isinstance(given, dict) else {}
    source = given.get("source")
    if source == "memory":
        raise StudyError(
            "the run's data were given to it in Python (source memory), and are not in the tracker; call the program"
            " that made it again."
        )
    check_functions(document, tracked.run.data.tags, allowed)
    if source in FILES:
        document["data"] = _with_files(given, source, allowed.data)
    elif allowed.data:
        raise StudyError(f"--data: the study's data ({source}) are no file; leave it out.")
    elif given:
        document["data"] = {key: value for key, value in given.items() if key != "folder"}
    study = parse(document, where=f"study.yaml of {tracked.name}")
    check_paths(study.functions, tracked.run.data.tags, allowed)  # what will be called, wherever the study names it
    data = datasets.generate(study.data)
    _check_data(study, data, tracked)
    _check_study(study, tracked, allowed)
    return study, data


def _with_files(given: dict[str, Any], source: str, chosen: Sequence[Path]) -> dict[str, Any]:
    """The study's data with their files where they are found here."""
    keys = [key for key in FILES[source] if given.get(key)]
    if len(chosen) > len(keys):
        raise StudyError(f"--data: the study has {len(keys)} data files, but {len(chosen)} were given.")
    places = dict(zip(keys, chosen, strict=False))
    return given | {key: _found(str(given[key]), places.get(key)) for key in keys}


def _found(recorded: str, chosen: Path | None) -> str:
    here = Path.cwd() / Path(recorded).name
    for place in (chosen,) if chosen else (Path(recorded), here):
        if place.is_file():
            return str(place.absolute())
    if chosen:
        raise StudyError(f"--data {chosen}: there is no such file.")
    raise StudyError(f"the run's data are neither at {recorded} nor at {here}; say where they are with --data FILE.")


def _check_data(study: Study, data: Data, tracked: Tracked) -> None:
    recorded = tracked.run.data.tags.get(DATA_SHA256)
    held = study.data.identity().get("sha256") if recorded else None
    if data.digest == tracked.data_digest and held == recorded:
        return
    then, now = (recorded, held) if held != recorded else (tracked.data_digest or "not recorded", data.digest)
    path = getattr(study.data, "path", None)
    where, remedy = (path, "give the run's with --data FILE") if path else (study.data.source, "see what changed")
    raise StudyError(f"the data differ: {where} has the digest {now} here, and {then} in the run; {remedy}.")


def _check_study(study: Study, tracked: Tracked, allowed: Allowed) -> None:
    """The run key is a digest of all that was asked: with it the study file proves to be the run's own."""
    tags = tracked.run.data.tags
    asked = study.digest(tags.get(REPEAT, ""))
    if asked != tags[RUN_KEY] and not allowed.other_code:
        raise StudyError(
            f"study.yaml of {tracked.name} makes the run key {asked}, and the run says {tags[RUN_KEY]}: one of them was"
            " changed in the tracker; make a new run."
        )


# --- the user's own functions ------------------------------------------------------------------------------


def check_functions(document: Mapping[str, Any], tags: Mapping[str, str], allowed: Allowed) -> None:
    """Refuse functions that are not, to the byte, those that the run recorded; nothing is imported for it.

    Raises:
        StudyError: with what to do about it; one line.
    """
    check_paths(functions(document), tags, allowed)


def check_paths(paths: Iterable[str], tags: Mapping[str, str], allowed: Allowed) -> None:
    """:func:`check_functions` of import paths."""
    known = _recorded(tags)
    for path in paths:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", path):
            raise StudyError(f"the study names the function {path!r}; expected module:function.")
        if path not in known:
            raise StudyError(
                f"the study calls {path}, and the run has not recorded what code that was; make a new run."
            )
        file = _file_of(path, allowed.code)
        found = content_sha256(file)[:32]
        if found != known[path]:
            raise StudyError(
                f"the study calls {path}, and {file} is not the code that the run was made with (digest {found} here,"
                f" {known[path]} in the run); bring that version back."
            )


def functions(document: Mapping[str, Any]) -> list[str]:
    """The functions that a study names anywhere, as ``module:name``."""
    return sorted(set(_named(document)))


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (str(value[key]) for key in ("function", "loader") if isinstance(value.get(key), str))
        calls = value.get("kind") == "custom" or value.get("source") == "loader"
        value = [part for key, part in value.items() if key != "options" or not calls]  # which are the function's own
    for part in value if isinstance(value, list) else ():
        yield from _named(part)


def _recorded(tags: Mapping[str, str]) -> dict[str, str]:
    try:
        known = json.loads(tags.get(CODE, "{}"))
    except ValueError:
        known = None
    if not isinstance(known, dict):
        raise StudyError(f"the run's tag {CODE} is not what Layerwise writes; make a new run.")
    return known


def _file_of(path: str, allowed: Sequence[str]) -> Path:
    """The file in which Python would find a function: in the working directory, unless the user names it."""
    module, _, name = path.partition(":")
    here = Path.cwd() / f"{module.replace('.', '/')}.py"
    if path in allowed:
        return imported.source(path)
    if not here.is_file():
        raise StudyError(
            f"the study calls {path}, and there is no {here}; go to the folder that has it, or, if it is installed and"
            f" you trust it with what the study gives it, allow it with --code {path}."
        )
    if not _defines(here, name):
        raise StudyError(f"the study calls {path}, and {here} does not define {name} itself; make a new run.")
    imported.look_in(Path.cwd())
    taken = imported.source(path)
    if taken.resolve() != here.resolve():
        raise StudyError(f"the study calls {path}, and Python would take {taken} for it, not {here}; rename it.")
    return here


def _defines(file: Path, name: str) -> bool:
    """Whether a file itself defines a name, which it may also have from another module."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError):
        return False
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name for node in body)
