"""Stage results: Prefect task results under our own digest, in our own folder, without pickle.

Prefect decides when a result is read or written; this module decides how, so that three things hold:

* What is read back is what was written, to the bit (:class:`StageSerializer`).
* A record that is damaged, half-written or not ours is missing, and is known to be so before anything parses
  it (:class:`ResultFolder`). Prefect's own records name their deserializer, pickle among them; ours cannot.
* A task that could not persist its result fails or is found out (:func:`stage_task`, :func:`read_back`);
  Prefect by itself goes on with a line in its log.

>>> StageSerializer().loads(StageSerializer().dumps({"loss": (0.5, None)}))
{'loss': (0.5, None)}
"""

import base64
import dataclasses
import functools
import inspect
import io
import json
import logging
import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, overload
from uuid import uuid4

import numpy as np
from prefect import Task
from prefect.filesystems import WritableFileSystem
from prefect.results import ResultRecord, get_result_store
from prefect.serializers import Serializer
from pydantic import Field

from layerwise import npy
from tasks import bounded, durable, owners, records

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("layerwise")

DATACLASSES = {
    "Data": "layerwise.datasets.data:Data",
    "Evaluation": "layerwise.stages:Evaluation",
    "RawTable": "layerwise.datasets.data:RawTable",
    "StageResult": "layerwise.stages:StageResult",
}
"""The frozen dataclasses that a result may hold: the name in the record, and where the class is defined."""

WRITING, OF = ".writing~", "~"
"""What the name of a file begins with that is being written, and what parts the words of it."""

BLOCK_SLUG = "layerwise-result-folder"


class ResultProblem(RuntimeError):
    """A result could not be stored or read back; the message is one line."""


class StorageProblem(ResultProblem):
    """The disk does not take results: whatever else is computed cannot be stored either."""


class DamagedRecord(ResultProblem):
    """A file in the result folder is not a record of ours."""


# --- values <-> text --------------------------------------------------------------------------------------


class StageSerializer(Serializer):
    """Plain JSON values, tuples, NumPy arrays and the dataclasses of :data:`DATACLASSES`, exactly.

    The text has three lines: the SHA-256 of the other two; the value as JSON, where ``{"$": kind, ...}``
    stands for what JSON has no word for; and the arrays as one NPZ in base64. Anything else, objects above
    all, is refused.
    """

    type: str = Field(default="layerwise", frozen=True)  # ty: ignore[incompatible-mutable-override]

    def dumps(self, obj: Any) -> bytes:
        """Encode ``obj``; raises ``TypeError`` naming the part that cannot be stored."""
        arrays: list[np.ndarray] = []
        value = json.dumps(_encoded(obj, arrays, "result")).encode()
        packed = base64.b64encode(_packed(arrays))
        return b"\n".join((records.sha256(value, packed), value, packed))

    def loads(self, blob: bytes) -> Any:
        """Decode what :meth:`dumps` made; raises ``ValueError`` for anything else."""
        try:
            digest, value, packed = blob.split(b"\n")
            if records.sha256(value, packed) != digest:
                raise ValueError("its checksum does not match its content")
            return _decoded(json.loads(value), _unpacked(base64.b64decode(packed, validate=True)))
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"not a stage result of this version: {error}") from error


def check_storable(value: Any) -> None:
    """Raise ``TypeError`` when ``value`` holds something that a stage result must not; copies no array."""
    json.dumps(_encoded(value, [], "result"))


def _encoded(value: Any, arrays: list[np.ndarray], place: str) -> Any:
    """``value`` in JSON's words; its arrays are appended to ``arrays`` and referred to by position."""
    kind = type(value)  # exactly: a subclass would come back as its base
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_encoded(item, arrays, f"{place}[{i}]") for i, item in enumerate(value)]
    if kind is tuple:
        return {"$": "tuple", "items": _encoded(list(value), arrays, place)}
    if kind is dict:
        return _encoded_dict(value, arrays, place)
    if kind is np.ndarray or isinstance(value, np.generic):
        if value.dtype.kind not in "biufc":
            raise TypeError(f"{place} has dtype {value.dtype}; a stage result holds numbers and booleans")
        arrays.append(np.asarray(value))
        return {"$": "array" if kind is np.ndarray else "scalar", "index": len(arrays) - 1}
    if (name := _name_of(kind)) is not None:
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
        return {"$": "dataclass", "name": name, "fields": _encoded_dict(fields, arrays, place)}
    raise TypeError(
        f"{place} is a {kind.__module__}.{kind.__qualname__}; a stage result holds plain values, tuples,"
        f" NumPy arrays and {', '.join(sorted(DATACLASSES))}"
    )


def _encoded_dict(value: dict[Any, Any], arrays: list[np.ndarray], place: str) -> dict[str, Any]:
    for key in value:
        if type(key) is not str or key == "$":
            raise TypeError(f"{place} has the key {key!r}; keys of a stage result are text other than '$'")
    return {key: _encoded(item, arrays, f"{place}[{key!r}]") for key, item in value.items()}


def _decoded(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {key: _decoded(item, arrays) for key, item in value.items()}
    return _KINDS[value["$"]](value, arrays)


_KINDS: dict[str, Callable[[dict[str, Any], list[np.ndarray]], Any]] = {
    "tuple": lambda value, arrays: tuple(_decoded(value["items"], arrays)),
    "array": lambda value, arrays: arrays[value["index"]],
    "scalar": lambda value, arrays: arrays[value["index"]][()],
    "dataclass": lambda value, arrays: _rebuilt(value["name"], _decoded(value["fields"], arrays)),
}


def _packed(arrays: list[np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{str(i): array for i, array in enumerate(arrays)})
    return buffer.getvalue()


def _unpacked(content: bytes) -> list[np.ndarray]:
    archive = npy.Archive(io.BytesIO(content))
    if sum(member.file_size for member in archive.members.values()) > len(content):
        raise ValueError("its arrays would take more room than the record does")
    return [archive[str(i)] for i in range(len(archive))]


def _name_of(kind: type) -> str | None:
    address = f"{kind.__module__}:{kind.__qualname__}"
    return next((name for name, home in DATACLASSES.items() if home == address), None)


def _rebuilt(name: str, values: dict[str, Any]) -> Any:
    """The dataclass ``name`` from its fields; a class that has changed since is refused.

    A field with a default may have come since: results that were stored before stay good without it.
    """
    module, _, qualname = DATACLASSES[name].partition(":")
    kind = getattr(import_module(module), qualname)
    expected = [field.name for field in dataclasses.fields(kind)]
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    if not needed <= set(values) <= set(expected):
        raise ValueError(f"{name} was stored with {sorted(values)}, but has {sorted(expected)} now")
    return kind(**values)


# --- records <-> files ------------------------------------------------------------------------------------


class ResultFolder(WritableFileSystem):
    """A folder of records, one file per digest: each complete or absent, and verified before it is parsed."""

    _block_type_name = "Layerwise result folder"
    _block_type_slug = BLOCK_SLUG
    _description = "Stage results of Layerwise: checksummed, without pickle."

    folder: str = Field(description="Absolute path of the folder.")

    # Prefect 3.8 calls these methods with _sync=True, and those named a… from coroutines; see
    # prefect._internal.compatibility.blocks. The files are small next to a stage, so both are plain reads.
    def read_path(self, path: str, *, _sync: bool = True) -> bytes:  # ty: ignore[incompatible-method-override]
        """The record stored as ``path``; a damaged or foreign one is reported, set aside, and missing."""
        file = self._file(path)
        try:
            return _verified(_bytes_of(file), path)
        except DamagedRecord as problem:
            self._set_aside(file, problem)
            raise

    def write_path(self, path: str, content: bytes, *, _sync: bool = True) -> None:  # ty: ignore[incompatible-method-override]
        """Store a record as ``path``: after a power cut the old one, the new one or none is there."""
        file = self._file(path)
        _check_record(content, path)
        envelope = records.envelope(content)
        if _holds(file, envelope):
            return
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.write(file, envelope, temporary=_temporary(file.parent), mode=0o600)
        except OSError as error:
            what = f"Cannot store result {path} in {self.folder}: {error.strerror or error}"
            raise StorageProblem(f"{what}; {durable.remedy(error)}, and run again.") from error

    def damaged(self) -> dict[str, str]:
        """The records that are not sound, and what is wrong with each; nothing is set aside. Reads every file."""
        found = {}
        for file in sorted(Path(self.folder).glob("[!.]*")):
            try:
                _verified(_bytes_of(file), file.name)
            except DamagedRecord as problem:
                found[file.name] = str(problem)
        return found

    async def aread_path(self, path: str) -> bytes:
        """:meth:`read_path` for coroutines."""
        return self.read_path(path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """:meth:`write_path` for coroutines."""
        self.write_path(path, content)

    def _resolve_path(self, _: str) -> None:
        """Prefect's question for the absolute path of a name, asked where it lost a block's id on the way.

        That is in workers. None keeps the name as it is, so that records are alike wherever they are made.
        """

    def _file(self, path: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", path):
            raise ValueError(f"result name {path!r} is not a digest: letters, digits, and . _ - inside")
        return Path(self.folder) / path

    def _set_aside(self, file: Path, problem: DamagedRecord) -> None:
        """Keep the bytes for whoever wants to know, under a name that no digest has."""
        log.warning("Result %s is set aside and will be computed again: %s", file.name, problem)
        try:
            file.replace(file.with_name(f".{file.name}{records.DAMAGED}"))
        except OSError as error:
            log.warning("Could not set %s aside: %s", file, error.strerror or error)


def _holds(file: Path, content: bytes) -> bool:
    try:
        return _bytes_of(file) == content
    except (OSError, DamagedRecord):  # it is not there, or what is there cannot be read
        return False


def _bytes_of(file: Path) -> bytes:
    try:
        return bounded.read(file, links=False)
    except FileNotFoundError:
        raise
    except OSError as error:  # a bad sector, a link to elsewhere, or a file that is not ours to read
        raise DamagedRecord(f"it cannot be read ({error.strerror or error})") from error


def _temporary(folder: Path) -> Path:
    """A name that says whose it is, for two processes may compute the same stage at once."""
    return folder / f"{WRITING}{owners.this_process().replace('/', OF)}{OF}{uuid4().hex[:8]}"


def _sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind."""
    for file in folder.glob(f"{WRITING}*"):
        owner, _, _ = file.name.removeprefix(WRITING).rpartition(OF)
        if owners.is_gone(owner.replace(OF, "/")):
            file.unlink(missing_ok=True)


def _verified(content: bytes, path: str) -> bytes:
    try:
        return records.opened(content, path)
    except ValueError as problem:
        raise DamagedRecord(str(problem)) from problem


def _check_record(record: bytes, path: str) -> None:
    """Raise :class:`DamagedRecord` unless Prefect will hand ``record`` to :class:`StageSerializer` alone."""
    try:
        records.check(record, path)
    except ValueError as problem:
        raise DamagedRecord(str(problem)) from problem


# --- Prefect ----------------------------------------------------------------------------------------------


def results_block(folder: Path) -> str:
    """Make ``folder`` ready for a run: its block is saved with the running server; returns ``slug/name``.

    The name follows from the folder, so that several roots can share a team's server. What writers that were killed
    left in it is removed.
    """
    folder = folder.absolute()
    _sweep(folder)
    name = f"folder-{records.sha256(os.fsencode(folder))[:16].decode()}"
    try:
        ResultFolder.load(name, _sync=True)
    except ValueError:  # Prefect's answer for a name it does not know
        block = ResultFolder(folder=str(folder))
        block.save(name, overwrite=True, _sync=True)  # ty: ignore[unknown-argument]
    return f"{BLOCK_SLUG}/{name}"


@overload
def stage_task(function: Callable[P, R], **options: Any) -> Task[P, R]: ...
@overload
def stage_task(function: None = None, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def stage_task(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A Prefect task whose result is stored under, and found again by, its parameter ``digest``.

    ``options`` are those of :func:`prefect.task`. The flow names the storage once, when it is called:
    ``flow.with_options(result_storage=results_block(folder), persist_result=False)``.

    Raises ``TypeError`` for a function without a parameter ``digest``. A run fails with
    :class:`ResultProblem` before it computes when its digest is none or its flow has no result folder; and
    afterwards, with ``TypeError`` or :class:`ResultProblem`, when what it computed cannot be stored.
    """
    if function is None:
        return functools.partial(stage_task, **options)
    if "digest" not in inspect.signature(function).parameters:
        raise TypeError(f"{function} has no parameter 'digest'; its result could not be found again")
    settings: dict[str, Any] = {
        "cache_key_fn": _cache_key,
        "persist_result": True,
        "result_serializer": StageSerializer(),
        "cache_result_in_memory": False,  # what is read is what is on disk
    }
    return Task(_guarded(function), **settings | options)


def _guarded(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with its result stored and read back: what goes on from here can be found again.

    Prefect stores a result after its task, and goes on with a line in its log when that fails. Here the task
    fails. Prefect's own writing then finds the record in place.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def stage(*args: P.args, **kwargs: P.kwargs) -> R:
        digest = signature.bind(*args, **kwargs).arguments["digest"]
        _check_digest(digest)
        folder = _current_folder()
        value = function(*args, **kwargs)
        check_storable(value)
        get_result_store().write(value, key=digest)
        return read_back(digest, folder)

    return stage


def read_back(digest: str, folder: ResultFolder | None = None) -> Any:
    """The value stored under ``digest``, read from the file: what is published is what can be found again.

    Inside a flow or task run the folder is the run's own. Raises :class:`ResultProblem` when nothing sound
    is there.
    """
    _check_digest(digest)
    folder = folder or _current_folder()
    try:
        return ResultRecord[Any].deserialize(folder.read_path(digest)).result
    except FileNotFoundError:
        raise ResultProblem(f"Result {digest} is not in {folder.folder}; run again to compute it.") from None
    except (DamagedRecord, ValueError, OSError) as error:
        raise ResultProblem(f"Result {digest} cannot be read from {folder.folder}: {error}; run again.") from error


def _cache_key(_: Any, parameters: dict[str, Any]) -> str:
    _check_digest(parameters["digest"])
    return parameters["digest"]


def _check_digest(digest: object) -> None:
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{8,128}", digest):
        raise ResultProblem(f"digest is {digest!r}; expected 8 to 128 hexadecimal digits")


def _current_folder() -> ResultFolder:
    storage = get_result_store().result_storage
    if not isinstance(storage, ResultFolder):
        found = "no storage" if storage is None else type(storage).__name__
        raise ResultProblem(
            f"Results would go to {found}; give the flow result_storage=results_block(folder), then call it."
        )
    return storage


__all__ = [
    "DATACLASSES",
    "ResultFolder",
    "ResultProblem",
    "StageSerializer",
    "StorageProblem",
    "read_back",
    "results_block",
    "stage_task",
]
