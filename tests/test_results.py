"""Stage results: exact values, records that are whole or missing, and tasks that find them again."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultRecord, ResultRecordMetadata, ResultStore
from prefect.serializers import JSONSerializer, PickleSerializer

from flows import environment, server
from layerwise.stages import Evaluation, StageResult
from tasks import owners, records, results
from tasks.results import ResultFolder, ResultProblem, StageSerializer, read_back, results_block, stage_task
from tests.test_server import CHECKOUT, clean_environ, used_root

DIGEST = "00c0ffee"


# --- values <-> text --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A result like those of training."""

    depth: int
    weights: tuple[np.ndarray, ...]
    below: Stage | None = None


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make :class:`Stage` one of the dataclasses that a result may hold."""
    monkeypatch.setitem(results.DATACLASSES, "Stage", f"{__name__}:Stage")


def there_and_back(value: Any) -> Any:
    text = StageSerializer().dumps(value)
    assert text.decode("utf-8").isprintable() or b"\n" in text
    return StageSerializer().loads(text)


def same(a: Any, b: Any) -> bool:
    """Equality to the bit: -0.0 is not 0.0, NaN is NaN, and 1, 1.0 and True differ."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (np.ndarray, np.generic)):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return a == b


ARRAYS = {
    "plain": np.arange(6, dtype=np.float32).reshape(2, 3),
    "no dimensions": np.array(1.5),
    "empty": np.empty((0, 3), np.int8),
    "special values": np.array([-0.0, np.nan, np.inf, -np.inf, 5e-324]),
    "a NaN with a payload": np.array([0x7FC00001], np.uint32).view(np.float32),
    "not contiguous": np.arange(12).reshape(3, 4)[::2, ::-1],
    "Fortran's order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "the other byte order": np.arange(3, dtype=">f4"),
    "booleans": np.array([True, False]),
    "complex": np.array([1 - 0j, complex(np.nan, -0.0)]),
    "half precision": np.array([1e-7, 6e4], np.float16),
    "unsigned": np.array([2**64 - 1], np.uint64),
    "a scalar": np.float32(0.1),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_arrays_come_back_to_the_bit(array: np.ndarray) -> None:
    """An array keeps its type, shape, byte order and every bit."""
    assert same(there_and_back({"a": [array]}), {"a": [array]})


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text().filter("$".__ne__), inner),
    max_leaves=10,
)


@given(plain)
def test_plain_values_come_back_exactly(value: Any) -> None:
    """Numbers keep digits and sign, texts every character, tuples stay tuples, keys keep their order."""
    assert same(there_and_back(value), value)


@pytest.mark.usefixtures("known")
def test_known_dataclasses_come_back() -> None:
    """A dataclass of the list comes back as itself, with its arrays, also inside another one."""
    value = Stage(2, (np.zeros(2), np.ones(1)), below=Stage(1, ()))
    back = there_and_back([value])[0]
    assert type(back) is type(back.below) is Stage
    assert (back.depth, back.below.depth, back.below.below) == (2, 1, None)
    assert same(back.weights, value.weights)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"a": [Stage(1, ())]},
            r"^result\['a'\]\[0\] is a .*\.Stage; a stage result holds plain values.*Data, Eval",
        ),
        ((1, {2}), r"^result\[1\] is a builtins\.set;"),
        (b"bytes", r"^result is a builtins\.bytes;"),
        (np.array([{}]), "^result has dtype object; a stage result holds numbers and booleans$"),
        (np.array(["text"]), "^result has dtype <U4;"),
        (np.ma.masked_array([1.0], mask=[True]), r"^result is a numpy\.ma\.MaskedArray;"),
        ({1: 2}, "^result has the key 1; keys of a stage result are text"),
        ({"$": "tuple"}, r"^result has the key '\$'; keys"),
        (print, "^result is a builtins.builtin_function_or_method;"),
    ],
)
def test_what_would_not_come_back_is_refused(value: Any, message: str) -> None:
    """Anything else is refused by name and place, not turned into something similar."""
    with pytest.raises(TypeError, match=message):
        StageSerializer().dumps(value)


def test_every_changed_byte_of_a_text_is_noticed() -> None:
    """A text with any one byte changed, or cut anywhere, is refused."""
    text = StageSerializer().dumps({"a": np.arange(3), "b": (1, 2)})
    for i in range(len(text)):
        for damaged in (text[:i], text[:i] + bytes([text[i] ^ 1]) + text[i + 1 :]):
            with pytest.raises(ValueError, match=r"^not a stage result of this version: "):
                StageSerializer().loads(damaged)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("change", [{"depth": "layer"}, {"depth": "depth", "weights": "depths"}])
def test_dataclass_that_has_changed_since_is_refused(change: dict[str, str]) -> None:
    """A record of a dataclass that has other fields by now is no result any more."""
    _, value, arrays = StageSerializer().dumps(Stage(1, ())).split(b"\n")
    for old, new in change.items():
        value = value.replace(f'"{old}":'.encode(), f'"{new}":'.encode())
    text = b"\n".join((records.sha256(value, arrays), value, arrays))
    if list(change.values()) == list(change):
        assert StageSerializer().loads(text)
    else:
        with pytest.raises(
            ValueError, match=r"Stage was stored with \[.*\], but has \['below', 'depth', 'weights'\] now"
        ):
            StageSerializer().loads(text)


def test_results_from_before_a_field_came_stay_good() -> None:
    """A stage and its scores that were stored without peak memory, or time, are read as they are, it being unknown."""
    stage = StageResult("base", 1, (np.ones(1),), (), np.zeros((1, 2)), np.zeros(1, bool), "", "ab", 7, 1.5, 4096)
    scores = Evaluation(1, {"test_loss": np.ones(1)}, np.zeros(1, bool), np.zeros(1, bool), "cd", 8, 0.5, 4096)
    assert there_and_back([stage, scores])[0].peak_memory == 4096
    _, value, arrays = StageSerializer().dumps([stage, scores]).split(b"\n")
    for came_since in (b', "peak_memory": 4096', b', "seconds": 0.5'):
        assert came_since in value
        value = value.replace(came_since, b"")
    old_stage, old_scores = StageSerializer().loads(b"\n".join((records.sha256(value, arrays), value, arrays)))
    assert (old_stage.seconds, old_stage.peak_memory) == (1.5, None)
    assert (old_scores.seconds, old_scores.peak_memory) == (None, None)
    assert same(old_stage.hidden, stage.hidden)
    assert same(old_scores.metrics, scores.metrics)


# --- records <-> files ------------------------------------------------------------------------------------


def record(value: Any, serializer: Any = None, key: str = DIGEST) -> bytes:
    """What Prefect hands to the storage."""
    metadata = ResultRecordMetadata(serializer=serializer or StageSerializer(), storage_key=key)
    return ResultRecord(result=value, metadata=metadata).serialize()


def envelope(content: bytes) -> bytes:
    """A file whose checksum is right, whatever it holds."""
    return records.envelope(content)


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def foreign_records(touched: Path) -> dict[str, bytes]:
    """Files that are whole, with a right checksum, and not ours to parse."""
    pickled = record(Touch(touched), PickleSerializer())
    metadata = json.loads(pickled)["metadata"]
    text = json.loads(pickled)["result"]
    ours = {"storage_key": DIGEST, "serializer": {"type": "layerwise"}}
    first, second = (
        f'{{"metadata": {json.dumps(a)}, "metadata": {json.dumps(b)}, "result": {json.dumps(text)}}}'
        for a, b in ((metadata, ours), (ours, metadata))
    )
    return {
        "Prefect's own record": pickled,
        "pickle": envelope(pickled),
        "pickle, compressed": envelope(pickled.replace(b'"pickle"', b'"compressed/pickle"')),
        "JSON": envelope(record(1, JSONSerializer())),
        "pickle named as in older versions": envelope(
            json.dumps({"metadata": ours, "serializer": metadata["serializer"], "result": text}).encode()
        ),
        "data in place of result": envelope(json.dumps({"metadata": ours, "data": text}).encode()),
        "pickle named first": envelope(first.encode()),
        "pickle named second": envelope(second.encode()),
        "another digest's record": envelope(record(1, key="0badcafe")),
        "a bare pickle": cloudpickle.dumps(Touch(touched)),
        "a pickle in our envelope": envelope(cloudpickle.dumps(Touch(touched))),
        "a list": envelope(b"[]"),
        "nothing": b"",
    }


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    return ResultFolder(folder=str(tmp_path / "results"))


def test_record_comes_back_and_nobody_else_may_read_it(folder: ResultFolder) -> None:
    """A record is read as it was written, from a file and folder that are the owner's alone."""
    folder.write_path(DIGEST, record(1))
    assert folder.read_path(DIGEST) == record(1)
    assert [file.name for file in Path(folder.folder).iterdir()] == [DIGEST]
    assert Path(folder.folder).stat().st_mode & 0o777 == 0o700
    assert (Path(folder.folder) / DIGEST).stat().st_mode & 0o777 == 0o600


async def _written_and_read(folder: ResultFolder) -> bytes:
    await folder.awrite_path(DIGEST, record(1))
    return await folder.aread_path(DIGEST)


def test_coroutines_read_and_write_the_same(folder: ResultFolder) -> None:
    """What Prefect calls from asynchronous flows does the same."""
    import asyncio

    assert asyncio.run(_written_and_read(folder)) == record(1) == folder.read_path(DIGEST, _sync=True)


def test_every_damage_makes_a_record_missing(folder: ResultFolder, caplog: pytest.LogCaptureFixture) -> None:
    """A file with any byte changed, or cut anywhere, is reported in one line, set aside, and missing."""
    folder.write_path(DIGEST, record(1))
    file = Path(folder.folder) / DIGEST
    whole = file.read_bytes()
    for i in range(len(whole)):
        for damaged in (whole[:i], whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]):
            file.write_bytes(damaged)
            caplog.clear()
            with pytest.raises(ResultProblem):
                folder.read_path(DIGEST)
            with pytest.raises(FileNotFoundError):
                folder.read_path(DIGEST)
            (report,) = caplog.messages
            assert report.startswith(f"Result {DIGEST} is set aside and will be computed again: it")
    assert file.with_name(f".{DIGEST}.damaged").read_bytes() == damaged


def test_damaged_records_are_listed_and_left_where_they_are(folder: ResultFolder) -> None:
    """A look at the whole folder names what is damaged and why, and changes nothing; scraps are no records."""
    names = ["00c0ffee", "00c0ffef", "00c0fff0"]
    for name in names:
        folder.write_path(name, record(1, key=name))
    (Path(folder.folder) / ".writing~lab~1~1~0").write_bytes(b"")
    assert folder.damaged() == {}
    (Path(folder.folder) / names[0]).write_bytes(b"")
    (Path(folder.folder) / names[1]).rename(Path(folder.folder) / names[2])
    assert folder.damaged() == {
        names[0]: "it does not begin as a record of ours",
        names[2]: f"it was stored as '{names[1]}'",
    }
    assert sorted(file.name for file in Path(folder.folder).glob("[!.]*")) == [names[0], names[2]]


def test_what_cannot_be_read_is_missing(folder: ResultFolder, caplog: pytest.LogCaptureFixture) -> None:
    """A record that the system does not give is reported with its reason, set aside, and written anew."""
    (Path(folder.folder) / DIGEST).mkdir(parents=True)  # which no user can read as a file
    with pytest.raises(ResultProblem, match=r"^it cannot be read \(Is a directory\)$"):
        folder.read_path(DIGEST)
    assert caplog.messages == [
        f"Result {DIGEST} is set aside and will be computed again: it cannot be read (Is a directory)"
    ]
    folder.write_path(DIGEST, record(1))
    assert folder.read_path(DIGEST) == record(1)


def test_scraps_of_killed_writers_are_removed(folder: ResultFolder, tmp_path: Path) -> None:
    """What a writer of this machine that is gone left is removed; one that lives, or is elsewhere, keeps its own."""
    place = Path(folder.folder)
    place.mkdir()
    machine, process, started = owners.this_process().split("/")
    scraps = {
        f".writing~{machine}~{process}~{started}~aa": True,
        f".writing~{machine}~{process}~1~aa": False,
        f".writing~elsewhere~{process}~1~aa": True,
        ".00c0ffee.damaged": True,
        "00c0ffee": True,
    }
    for name in scraps:
        (place / name).touch()
    results._sweep(place)
    assert {name: (place / name).exists() for name in scraps} == scraps
    results._sweep(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", foreign_records(Path()))
def test_foreign_record_is_refused_before_it_is_parsed(folder: ResultFolder, tmp_path: Path, kind: str) -> None:
    """A record that names another deserializer is missing, wherever it names it, and is never unpickled."""
    touched = tmp_path / "touched"
    Path(folder.folder).mkdir()
    (Path(folder.folder) / DIGEST).write_bytes(foreign_records(touched)[kind])
    with pytest.raises(ResultProblem, match=r"^(it|its) "):
        folder.read_path(DIGEST)
    assert not touched.exists()


def test_foreign_record_is_not_written_either(folder: ResultFolder) -> None:
    """A task with another serializer cannot store its result here."""
    with pytest.raises(ResultProblem, match=r"its serializer is \{'type': 'pickle'"):
        folder.write_path(DIGEST, record(1, PickleSerializer()))
    assert not Path(folder.folder).exists()


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/b", ".hidden", "", "x\n", "..", "a" * 201, "a\0"])
def test_names_cannot_leave_the_folder(folder: ResultFolder, path: str) -> None:
    """A name is one plain file name; others are neither read nor written."""
    for access in (lambda: folder.read_path(path), lambda: folder.write_path(path, record(1, key=path))):
        with pytest.raises(ValueError, match="is not a digest"):
            access()


def full(_: int) -> None:
    """What ``os.fsync`` says when the disk is full."""
    raise OSError(28, "No space left on device")


def test_full_disk_leaves_what_was_there(folder: ResultFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that cannot be written is refused in one line, and leaves the old one and no scraps."""
    folder.write_path(DIGEST, record("old"))
    monkeypatch.setattr(results.durable.os, "fsync", full)
    with pytest.raises(ResultProblem) as refusal:
        folder.write_path(DIGEST, record("new"))
    place = f"Cannot store result {DIGEST} in {folder.folder}"
    assert str(refusal.value) == f"{place}: No space left on device; free space on that disk, and run again."
    assert folder.read_path(DIGEST) == record("old")
    assert [file.name for file in Path(folder.folder).iterdir()] == [DIGEST]


def test_record_that_is_there_is_not_written_again(folder: ResultFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing what is there already touches nothing."""
    folder.write_path(DIGEST, record(1))
    monkeypatch.setattr(results.durable.os, "fsync", full)
    folder.write_path(DIGEST, record(1))


WRITER = """
import sys
from tasks.results import ResultFolder, StageSerializer
from tests.test_results import record
folder = ResultFolder(folder=sys.argv[1])
contents = [record("x" * 3_000_000), record("y" * 2_000_000)]
print("writing", flush=True)
while True:
    for content in contents:
        folder.write_path("00c0ffee", content)
"""


@pytest.mark.chaos
def test_killed_writer_leaves_a_whole_record(folder: ResultFolder) -> None:
    """After SIGKILL in the middle of writing, the name holds a whole record."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, folder.folder],
        stdout=subprocess.PIPE,
        env=clean_environ(),
        cwd=CHECKOUT,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        time.sleep(0.3)
        writer.send_signal(signal.SIGKILL)
    assert ResultRecord[Any].deserialize(folder.read_path(DIGEST)).result[0] in "xy"


# --- Prefect ----------------------------------------------------------------------------------------------


def test_worker_without_the_blocks_id_keeps_the_names(folder: ResultFolder) -> None:
    """Where Prefect has lost the block's id, as in a worker process, records have the same names and content."""
    ResultStore(result_storage=folder, serializer=StageSerializer()).write((1, 2), key=DIGEST)
    assert [file.name for file in Path(folder.folder).iterdir()] == [DIGEST]
    assert read_back(DIGEST, folder) == (1, 2)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A running server with a saved block: the results folder and the block's name."""
    root = used_root(tmp_path_factory.mktemp("results"))
    os.environ.pop("PREFECT_API_URL", None)
    with server.start(root) as running, running.ready():
        yield environment.results_folder(root), results_block(environment.results_folder(root))


computed: list[str] = []


@stage_task
def double(value: Any, *, digest: str) -> Any:
    """Twice the value; says that it was computed."""
    computed.append(digest)
    return value * 2


@flow
def chain(digests: list[str], first: Any) -> Any:
    """Each stage doubles the one before."""
    for digest in digests:
        first = double(first, digest=digest)
    return first


@pytest.fixture
def run(storage: tuple[Path, str], tmp_path: Path) -> Callable[..., Any]:
    """Call a flow with a result folder of the test's own."""
    computed.clear()
    block = results_block(tmp_path / "results")
    assert block != storage[1]

    def call(study: Flow[..., Any], *arguments: Any) -> Any:
        return study.with_options(result_storage=block, persist_result=False)(*arguments)

    return call


def test_block_is_saved_once_per_folder(storage: tuple[Path, str], tmp_path: Path) -> None:
    """A folder has one block under one name, however often it is asked for; another folder has its own."""
    folder, block = storage
    first = ResultFolder.load(block.split("/")[1], _sync=True)
    assert results_block(folder) == block
    assert ResultFolder.load(block.split("/")[1], _sync=True)._block_document_id == first._block_document_id
    assert first.folder == str(folder)
    assert results_block(tmp_path) != block


def test_finished_stages_are_found_again(run: Callable[..., Any]) -> None:
    """A second flow run computes only the stages it does not find, and gives the same values."""
    assert run(chain, ["00000001", "00000002"], np.ones(2)).tolist() == [4, 4]
    assert run(chain, ["00000001", "00000002", "00000003"], np.ones(2)).tolist() == [8, 8]
    assert computed == ["00000001", "00000002", "00000003"]


PROCESS = """
import sys
import tests.test_results as t
from prefect import flow
print(t.chain.with_options(result_storage=sys.argv[1], persist_result=False)(sys.argv[2:], 1), *t.computed)
"""


def test_other_processes_find_them_too(storage: tuple[Path, str]) -> None:
    """A new process computes only what no process has computed before."""
    study = chain.with_options(result_storage=storage[1], persist_result=False)
    assert study(["00000001"], 1) == 2
    other = [sys.executable, "-c", PROCESS, storage[1], "00000001", "00000002"]
    answer = subprocess.run(other, capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert answer.stdout == "4 00000002\n"


@pytest.mark.parametrize("damage", ["a byte flipped", "cut", "Prefect's own record", "pickle", "a bare pickle"])
def test_damaged_result_is_computed_again(run: Callable[..., Any], tmp_path: Path, damage: str) -> None:
    """A flow that meets a damaged or foreign record computes that stage again, and unpickles nothing."""
    run(chain, [DIGEST], 1)
    file, touched = tmp_path / "results" / DIGEST, tmp_path / "touched"
    content = file.read_bytes()
    damaged = {"a byte flipped": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "cut": content[:-1]}
    file.write_bytes((damaged | foreign_records(touched))[damage])
    assert run(chain, [DIGEST], 1) == 2
    assert computed == [DIGEST] * 2
    assert file.read_bytes() == content
    assert not touched.exists()


def test_read_back_reads_the_file(run: Callable[..., Any], tmp_path: Path) -> None:
    """What is read back is what is on disk, and what is not there is one line."""

    @flow
    def published() -> tuple[Any, Any]:
        double(3, digest=DIGEST)
        value = read_back(DIGEST)
        (tmp_path / "results" / DIGEST).write_bytes(envelope(record(7)))
        return value, read_back(DIGEST)

    assert run(published) == (6, 7)
    folder = ResultFolder(folder=str(tmp_path / "results"))
    assert read_back(DIGEST, folder) == 7
    with pytest.raises(ResultProblem, match=rf"^Result 0badcafe is not in {folder.folder}; run again to compute it\.$"):
        read_back("0badcafe", folder)
    (tmp_path / "results" / DIGEST).write_bytes(b"")
    with pytest.raises(ResultProblem, match=f"^Result {DIGEST} cannot be read from .*: it does not begin as a record"):
        read_back(DIGEST, folder)


@pytest.mark.parametrize("digest", [None, "", "../../x", "0123", "XYZ01234", 12345678])
def test_stage_without_a_digest_does_not_start(run: Callable[..., Any], digest: Any) -> None:
    """A stage whose result could not be found again fails before it computes."""
    with pytest.raises(ResultProblem, match=r"^digest is .*; expected 8 to 128 hexadecimal digits$"):
        run(flow(lambda: double(1, digest=digest)))
    assert computed == []


@pytest.mark.usefixtures("storage")
def test_stage_without_a_result_folder_does_not_start(tmp_path: Path) -> None:
    """A stage whose result would go to Prefect's default storage fails before it computes."""
    computed.clear()
    elsewhere = LocalFileSystem(basepath=str(tmp_path))
    elsewhere.save("elsewhere", overwrite=True, _sync=True)
    for study in (chain, chain.with_options(result_storage=elsewhere)):
        with pytest.raises(ResultProblem, match=r"^Results would go to LocalFileSystem; give the flow result_storage"):
            study.with_options(persist_result=False)([DIGEST], 1)
    assert computed == []


def test_result_that_cannot_be_stored_fails_the_stage(run: Callable[..., Any]) -> None:
    """A stage that returns what cannot come back fails, where Prefect would go on without its result."""
    with pytest.raises(TypeError, match=r"^result is a builtins\.set; a stage result holds"):
        run(flow(lambda: stage_task(lambda digest: {digest})(digest=DIGEST)))


def test_result_that_cannot_be_written_fails_the_stage(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses the record the stage fails, where Prefect would go on without its result."""
    with monkeypatch.context() as patch:
        patch.setattr(results.durable.os, "fsync", full)
        with pytest.raises(ResultProblem, match=f"^Cannot store result {DIGEST} in .*: No space left on device;"):
            run(chain, [DIGEST], 3)
    assert run(chain, [DIGEST], 3) == 6
    assert computed == [DIGEST] * 2


def test_stage_hands_on_what_was_read_back(run: Callable[..., Any]) -> None:
    """A stage's value comes from its file the first time too: later runs go on from the same bits."""
    made, handed_on = [], []

    @stage_task
    def make(*, digest: str) -> list[str]:
        made.append([digest])
        return made[-1]

    @flow
    def twice() -> None:
        handed_on.extend(make(digest=DIGEST) for _ in range(2))

    run(twice)
    assert handed_on == [[DIGEST], [DIGEST]]
    assert made == [[DIGEST]]
    assert handed_on[0] is not made[0]


def test_stage_task_needs_a_digest_parameter() -> None:
    """A function without the parameter is refused where it is defined."""
    with pytest.raises(TypeError, match=r"has no parameter 'digest'; its result could not be found again$"):
        stage_task(lambda seeds: seeds)


def test_stage_task_takes_prefects_options() -> None:
    """Names and retries are passed on; positional and keyword digests are the same."""
    named = stage_task(name="base", retries=2)(lambda digest, seeds=1: (digest, seeds))
    assert (named.name, named.retries, named.persist_result) == ("base", 2, True)
    assert double.retries == 0


def test_task_states_hold_no_values(run: Callable[..., Any]) -> None:
    """What a stage computed goes to its file, not to Prefect's database."""
    run(chain, [DIGEST], "a secret value")
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs()
    assert runs
    assert not any("a secret value" in str(task_run) for task_run in runs)
