"""Files and folders of strangers: refused in one line, in bounded time and memory, and none of it is ever run."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from flows import environment, printing
from flows.environment import EnvironmentProblem
from layerwise import imported, npy, raw_rows
from layerwise.study import StudyError, load, parse
from layerwise.study.parts import printable
from layerwise.study.plain import NotPlain, read_plain
from tasks import bounded, durable, records
from tasks.results import ResultFolder, ResultProblem, StageSerializer
from tests import hostile
from tests.hostile import Harm
from tests.studies import small_document
from tests.test_server import CHECKOUT

ADDRESS_SPACE = 4 * 2**30
"""Bytes that a reader may so much as ask for: what would be refused on a larger machine only later, is at once."""

READ = r"""
import json, re, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from layerwise.study import StudyError, load, parse
for place in json.loads(sys.argv[2]):
    begun = time.monotonic()
    try:
        load(place) if isinstance(place, str) else parse(place)
        said = "accepted"
    except StudyError as refusal:
        said = str(refusal)
    # Of this program alone: ru_maxrss would count what the parent had before it became this.
    peak = int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1])
    print(json.dumps([said, time.monotonic() - begun, peak]), flush=True)
"""


def read_each(places: list[Any], *, megabytes: int, seconds: float = 30) -> Iterator[str]:
    """What a process says that reads each of some study files, or studies, one after the other within these bounds."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", READ, str(ADDRESS_SPACE), json.dumps(places)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    lines = process.stdout.splitlines()
    assert process.returncode == 0, (process.stderr, places[len(lines)])
    for place, line in zip(places, lines, strict=True):
        said, took, peak = json.loads(line)
        assert took < seconds, (place, took)
        assert peak / 1000 < megabytes, (place, peak)
        assert "\n" not in said
        assert len(said) <= 600
        yield said


def of_data(source: str, file: Path, **more: Any) -> dict[str, Any]:
    """A study of a file of data."""
    return small_document(data={"source": source, "path": str(file), **more}, training={"batch_size": 1})


# --- study files -------------------------------------------------------------------------------------------


def test_hostile_study_files_are_refused(tmp_path: Path):
    """Bombs, tags, depth, endless numbers, foreign paths and 100 MB: one line each, in seconds and 150 MB."""
    files = [tmp_path / f"{number}.yaml" for number in range(len(hostile.STUDIES))]
    for file, (text, _) in zip(files, hostile.STUDIES.values(), strict=True):
        file.write_text(text)
    said = read_each([str(file) for file in files], megabytes=150)
    for name, line, (_, expected) in zip(hostile.STUDIES, said, hostile.STUDIES.values(), strict=True):
        assert expected in line, (name, line)


@pytest.mark.parametrize("name", ["billion laughs", "Python object", "lists in lists", "long hexadecimal"])
def test_a_setting_is_read_as_a_file_is(name: str):
    """`--set` takes what a study file may hold, and nothing else."""
    text, _ = hostile.STUDIES[name]
    with pytest.raises(StudyError, match=r"is not a YAML value: "):
        load("blobs-supervised", overrides=[f"seeds={text.partition('seeds: ')[2] or text}"])


def test_a_setting_of_great_depth_is_refused():
    """A key of thousands of parts is no key."""
    with pytest.raises(StudyError, match="unknown key"):
        load("blobs-supervised", overrides=["a." * 5000 + "a=1"])


@given(st.text(alphabet=st.sampled_from("ab:-?[]{},&*!|>'\"%@#\n\t 01.x~<=\\\0\ud800")))
@settings(max_examples=300, deadline=None)
def test_any_text_is_plain_or_refused(text: str):
    """Whatever stands in a text, reading it gives plain values, or says why not."""
    try:
        value = read_plain(text)
    except NotPlain:
        return
    assert isinstance(value, dict | list | str | int | float | bool | None) or type(value).__module__ == "datetime"


ODD = [
    None, True, -1, 0, 2**70, 10**99, 0.0, float("nan"), float("inf"), "", "x", "a" * 3000, "os:system", "../x", "a\0b",
    "\x1b[2J", "\u202e", [], {}, [[]], {"": {}}, {1: 2}, [1, 2, 3], ["greedy"] * 3, "0-999999999", [0] * 300,
    {"kind": "custom", "function": "evil_module:run"}, {"source": "loader"}, {"source": "memory"}, {"every": 10},
    {"source": "table", "path": "/dev/zero", "target": "t"}, {"source": "arrays", "path": "/proc/self/mem"},
]  # fmt: skip
WIDE = small_document(
    network={
        "inputs": {
            "a": {"features": "0", "layers": [{"units": 3}]},
            "b": {"features": [1], "layers": [{"kind": "residual", "units": 1}]},
        },
        "layers": [
            {"units": 5, "dropout": 0.2, "training": {"epochs": 2, "optimizer": {"name": "adam"}}},
            {"units": 5},
        ],
        "head": [{"units": 3, "regularization": {"l2": 0.1}}],
    },
    arms={"one": "greedy", "two": {"objective": "reconstruction", "noise": {"kind": "masking", "rate": 0.2}}},
    claims={"c": {"kind": "compare", "arm": "one", "metric": "test_accuracy", "above": {"depth": 1}}},
    stop={"every": 10},
    question="Why?",
    alpha=0.05,
    track={"models": "none"},
)
"""A study that says most of what a study can say."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A document with another value at a place."""
    again = copy.deepcopy(document)
    part = again
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return again


@given(st.sampled_from([*places(WIDE)]), st.sampled_from(ODD))
@settings(max_examples=300, deadline=None)
def test_any_value_is_taken_or_refused(path: tuple[Any, ...], value: Any):
    """Whatever stands at a place of a study, it is a study, or refused in a line."""
    try:
        parse(changed(WIDE, path, value)).blocks()
        said = ""
    except StudyError as refusal:
        said = str(refusal)
    assert "\n" not in said
    assert len(said) <= 600


# --- data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "files"), [("arrays", hostile.ARRAYS), ("table", hostile.TABLES)])
def test_hostile_data_are_refused(tmp_path: Path, source: str, files: dict[str, tuple[Callable[[Path], bytes], str]]):
    """Claims of terabytes, bombs, pickles and broken tables: one line each, in seconds and 700 MB; nothing runs."""
    mark = tmp_path / "mark" / "unpickled"
    mark.parent.mkdir()
    (tmp_path / "y.npy").write_bytes(hostile.TARGETS)
    studies = []
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content(mark))
        more = {"target": "t"} if source == "table" else {}
        more |= {"targets_path": str(tmp_path / "y.npy")} if name.endswith(".npy") else {}
        studies.append(of_data(source, tmp_path / name, **more))
    for name, line, (_, expected) in zip(files, read_each(studies, megabytes=700), files.values(), strict=True):
        assert expected in line, (name, line)
        assert name in line
    assert not mark.exists()


def test_every_flipped_bit_of_an_archive_is_survived(tmp_path: Path):
    """An archive with any one bit changed is read, or refused in a line: no other error comes of it."""
    from layerwise.datasets.reading import read

    whole = hostile.archive({"x.npy": hostile.INPUTS[:192], "y.npy": hostile.TARGETS})
    file = tmp_path / "own.npz"
    asked = {"source": "arrays", "path": str(file), "targets_path": None, "inputs": None, "targets": None, "task": None}
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        os.utime(file, ns=(place, place))
        with pytest.raises(StudyError, match=r"own\.npz"):  # its inputs are cut short, whatever else is wrong with it
            read("own.npz", json.dumps(asked))


# --- results -----------------------------------------------------------------------------------------------

DIGEST = "00c0ffee"


def stored(arrays: bytes, value: bytes = b'{"$": "array", "index": 0}') -> bytes:
    """The text of a stage result with these arrays and a right checksum."""
    packed = base64.b64encode(arrays)
    return b"\n".join((records.sha256(value, packed), value, packed))


def record(result: bytes) -> bytes:
    """What a file of the result folder holds that is whole, and whose result is this."""
    metadata = {"storage_key": DIGEST, "serializer": {"type": "layerwise"}, "expiration": None}
    return records.envelope(json.dumps({"metadata": metadata, "result": result.decode()}).encode())


def test_a_result_of_strangers_is_none(tmp_path: Path):
    """Results with a right checksum whose arrays are bombs, pickles or elsewhere are refused; nothing runs."""
    mark, one = tmp_path / "unpickled", {"0.npy": hostile.npy(np.zeros(3))}
    assert StageSerializer().loads(stored(hostile.archive(one, zipfile.ZIP_STORED))).tolist() == [0, 0, 0]
    for arrays, expected in {
        hostile.archive({"0.npy": hostile.claiming("(1099511627776,)")}, zipfile.ZIP_STORED): "it says that it holds",
        hostile.archive({"0.npy": hostile.npy(np.zeros(10_000_000))}): "would take more room than the record",
        hostile.archive({"0.npy": hostile.npy(np.array([Harm(mark)]))}, zipfile.ZIP_STORED): "holds Python objects",
        hostile.archive({"0.npy": pickle.dumps(Harm(mark))}, zipfile.ZIP_STORED): "cannot be read as NumPy's",
        pickle.dumps(Harm(mark)): "cannot be read as NumPy's",
        b"": "cannot be read as NumPy's",
        hostile.archive({"../0.npy": one["0.npy"]}, zipfile.ZIP_STORED): "'0'",
    }.items():
        with pytest.raises(ValueError, match=f"not a stage result of this version: .*{expected}"):
            StageSerializer().loads(stored(arrays))
    for value in (b"[" * 100_000, b'{"$": "dataclass", "name": "os:system", "fields": {}}', b'{"$": "eval"}', b"{"):
        with pytest.raises(ValueError, match="not a stage result of this version"):
            StageSerializer().loads(stored(hostile.archive(one, zipfile.ZIP_STORED), value))
    assert not mark.exists()


UNREADABLE: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, elsewhere: place.symlink_to(elsewhere),
    "device": lambda place, _: place.symlink_to("/dev/zero"),
    "pipe": lambda place, _: os.mkfifo(place),
    "folder": lambda place, _: place.mkdir(),
    "depth": lambda place, _: place.write_bytes(records.envelope(b"[" * 100_000)),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_is_no_plain_file_is_no_result(tmp_path: Path, kind: str):
    """A link to elsewhere, a device, a pipe, a folder, a very deep record: missing, neither followed nor kept."""
    folder = ResultFolder(folder=str(tmp_path / "results"))
    place, elsewhere, sound = Path(folder.folder) / DIGEST, tmp_path / "elsewhere", record(StageSerializer().dumps(1))
    place.parent.mkdir()
    elsewhere.write_bytes(sound)
    UNREADABLE[kind](place, elsewhere)
    with pytest.raises(ResultProblem, match=r"^it "):
        folder.read_path(DIGEST)
    assert not os.path.lexists(place)
    UNREADABLE["link"](place, elsewhere)
    folder.write_path(DIGEST, sound.partition(b"\n")[2])
    assert not place.is_symlink()
    assert (place.read_bytes(), elsewhere.read_bytes()) == (sound, sound)


def test_a_file_larger_than_memory_is_not_read(tmp_path: Path):
    """A file that only says it is large, as a sparse one does, is refused by its size."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**13)
    with pytest.raises(OSError, match="10 TB, too much for this machine"):
        bounded.read(tmp_path / "sparse", links=False)


def test_nothing_is_written_through_a_link(tmp_path: Path):
    """A link where a file is collected before it is renamed is not written through."""
    elsewhere, temporary = tmp_path / "elsewhere", tmp_path / ".part"
    elsewhere.write_text("kept")
    temporary.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        durable.write(tmp_path / "new", b"other", temporary=temporary)
    assert elsewhere.read_text() == "kept"


def test_folders_that_somebody_else_made_are_refused(tmp_path: Path):
    """A private folder, or one in it, that belongs to another user is refused before anything in it is believed."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    environment.prepare(tmp_path)
    for folder in (environment.private_folder(tmp_path), environment.results_folder(tmp_path)):
        os.chown(folder, 65534, 65534)
        with pytest.raises(EnvironmentProblem, match=rf"^{folder} belongs to another user \(id 65534; yours is 0\)"):
            environment.prepare(tmp_path)
        os.chown(folder, 0, 0)
    environment.prepare(tmp_path)


# --- models ------------------------------------------------------------------------------------------------


def test_hostile_preparations_are_refused(tmp_path: Path):
    """Types that run code, pickles, bombs and claims of terabytes are refused in one line; nothing runs."""
    import skops.io
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    mark = tmp_path / "unpickled"
    fitted = raw_rows.packed(StandardScaler().fit(np.eye(3)), np.arange(3))
    with zipfile.ZipFile(io.BytesIO(fitted)) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    array = next(name for name in parts if name.endswith(".npy"))
    file = tmp_path / raw_rows.PREPARATION
    for content, expected in {
        skops.io.dumps({"transformer": FunctionTransformer(os.system)}): r"Untrusted types found .*posix\.system",
        skops.io.dumps({"transformer": FunctionTransformer(eval)}): r"Untrusted types found .*builtins\.eval",
        hostile.archive({**parts, array: pickle.dumps(Harm(mark))}): "pickled",
        hostile.archive({**parts, array: hostile.npy(np.array([Harm(mark)]))}): "Object arrays cannot be loaded",
        hostile.archive({**parts, array: hostile.claiming("(1099511627776,)")}): "Unable to allocate",
        hostile.archive({**parts, "schema.json": b" " * 300_000_000}): "it would unpack to 300,",
        hostile.archive({**parts, "schema.json": b"[" * 100_000}): "recursion",
        pickle.dumps(Harm(mark)): "File is not a zip file",
    }.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"^preparation\.skops is not read \(\w+: .*{expected}") as refusal:
            raw_rows.preparation(file)
        assert "\n" not in str(refusal.value)
    file.write_bytes(fitted)
    assert raw_rows.preparation(file)["places"].tolist() == [0, 1, 2]
    assert not mark.exists()


def keras_file(layer: dict[str, Any], **more: bytes) -> bytes:
    """A ``.keras`` file of a model with such a layer."""
    import keras

    file = io.BytesIO()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    with zipfile.ZipFile(io.BytesIO(_saved(model))) as opened:
        parts = {name: opened.read(name) for name in opened.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][1] |= layer
    file.write(hostile.archive({**parts, "config.json": json.dumps(config).encode(), **more}))
    return file.getvalue()


def _saved(model: Any) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        return (Path(folder) / "model.keras").read_bytes()


def test_hostile_networks_are_refused(tmp_path: Path):
    """Lambda layers, foreign modules and functions, files on disk as vocabularies, bombs: refused in one line."""
    import keras

    mark = tmp_path / "run"
    harm = keras.layers.Lambda(lambda x, place=str(mark): (Path(place).touch(), x)[1], output_shape=(2,))
    function = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    dense = {"units": 3, "activation": function}
    file = tmp_path / raw_rows.NETWORK
    contents = [
        _saved(keras.Sequential([keras.Input((2,)), harm])),
        keras_file({"config": dense}),
        keras_file({"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", str(mark)]}}),
        keras_file({"class_name": "TFSMLayer", "config": {"filepath": str(tmp_path), "call_endpoint": "serve"}}),
        keras_file({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}),
        keras_file({}, **{"config.json": b" " * 300_000_000}),
        keras_file({}, **{"config.json": b"[" * 100_000}),
        pickle.dumps(Harm(mark)),
    ]
    mark.unlink(missing_ok=True)  # building the Lambda layer has called it
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"^model\.keras is not read \(\w+: ") as refusal:
            raw_rows.network(file)
        assert "\n" not in str(refusal.value)
    file.write_bytes(keras_file({}))
    assert raw_rows.network(file).count_params() == 9
    assert not mark.exists()


# --- what runs, and what is said before ----------------------------------------------------------------------

EVIL = "from pathlib import Path\nPath('imported').touch()\n\n\ndef run(**_options):\n    raise RuntimeError\n"


@pytest.fixture
def evil(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module in the working directory that leaves a file when it is imported, whoever imports it."""
    (root / "evil_module").mkdir()
    (root / "evil_module" / "__init__.py").write_text(EVIL)
    (root / "evil_module" / "inner.py").write_text(EVIL)
    monkeypatch.setattr(sys, "path", [*sys.path, str(root)])
    monkeypatch.setattr(imported, "_listeners", [])
    for name in ("evil_module", "evil_module.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return root / "imported"


def test_no_other_key_is_imported(evil: Path):
    """A module's name at any place of a study but a loader is never imported when the study is read."""
    for path in places(WIDE):
        for name in ("evil_module:run", "evil_module", "evil_module.inner:run"):
            try:
                parse(changed(WIDE, path, name)).digest()
            except StudyError:
                continue
    custom = {"kind": "custom", "function": "evil_module.inner:run"}
    study = parse(small_document(network={"layers": [custom]}))
    assert study.digest()  # of the file's content
    assert imported.source("evil_module.inner:run").name == "inner.py"
    assert not evil.exists()


def test_code_is_named_before_it_is_imported(evil: Path):
    """A loader's function and file are told, once, before the first line of its package runs."""
    told: list[tuple[str, bool]] = []
    imported.tell(lambda line: told.append((line, evil.exists())))
    for _ in range(2):
        with pytest.raises(StudyError, match="RuntimeError"):
            parse(small_document(data={"source": "loader", "loader": "evil_module.inner:run"}))
    file = evil.with_name("evil_module") / "inner.py"
    assert told == [(f"code of your own: evil_module.inner:run, in {file}", False)]
    assert evil.exists()


@pytest.mark.parametrize("command", [["show"], ["run", "--dry-run"], ["run"], ["plan"]], ids=" ".join)
def test_every_command_names_a_loader_first(tmp_path: Path, command: list[str]):
    """`show`, `run` and `plan` say whose code makes the data, then let it run."""
    (tmp_path / "loaded_rows.py").write_text("print('it runs')\n\n\ndef rows():\n    raise OSError('no rows')\n")
    (tmp_path / "study.yaml").write_text(hostile.data("{source: loader, loader: 'loaded_rows:rows'}"))
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command, "study.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    first = f"code of your own: loaded_rows:rows, in {tmp_path / 'loaded_rows.py'}"
    assert ended.stdout.splitlines() == [first, "it runs"]
    assert ended.returncode == 2
    assert ended.stderr.startswith("layerwise: study.yaml: data: loader loaded_rows:rows: raised OSError: no rows")
    assert ended.stderr.count("\n") == 1


def test_a_terminal_obeys_nothing_that_is_printed(capsys: pytest.CaptureFixture[str]):
    """Escape sequences and turned writing, as names in files and trackers may hold, are shown and not obeyed."""
    text = "a\x1b]0;owned\x07 \u202eb\x9b2J\ud800 \u200c\u3000ü\tc"
    shown = "a\\x1b]0;owned\\x07 \\u202eb\\x9b2J\\ud800 \u200c\u3000ü\tc"
    assert printable(text) == shown
    printing.refuse(text, 2)
    printing.say(text, Console(file=sys.stdout, width=200))
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "\\x1b]0;owned\\x07" in captured.out
    assert "\\x1b]0;owned\\x07" in captured.err


def test_arrays_come_back_as_they_were():
    """What is no attack is read to the bit: every type of numbers, and text."""
    for value in (np.arange(6, dtype=">f4").reshape(2, 3), np.array(["a", "bc"]), np.array(True), np.zeros((0, 3))):
        content = hostile.npy(np.asfortranarray(value))
        found = npy.read_array(io.BytesIO(content), len(content))
        np.testing.assert_array_equal(found, value)
        assert found.dtype == value.dtype


# --- large -------------------------------------------------------------------------------------------------


@pytest.mark.chaos
def test_large_hostile_data_are_refused(tmp_path: Path):
    """Files of 100 MB in one line or as one cell, and a bomb of 2 GB: refused within a gigabyte."""
    files = {
        "one line.csv": (b"a," * 50_000_000, "is no table of the kind that its name says"),
        "one cell.csv": (b"a" * 100_000_000, "is no table of the kind that its name says"),
        "bomb.npz": (hostile.zeros(2**25), "reading it would take about 60.1 GB of memory, and there is 4.29 GB"),
    }
    studies = []
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
        more = {"target": "b"} if name.endswith("csv") else {}
        studies.append(of_data("arrays" if name.endswith("npz") else "table", tmp_path / name, **more))
    for name, line in zip(files, read_each(studies, megabytes=1000, seconds=60), strict=True):
        assert files[name][1] in line, (name, line)
