"""Files as somebody with bad intentions would make them: each small, and each asking for more than it should get."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

STUDY = "name: x\ndata: {source: blobs}\nnetwork: {layers: [{units: 4}]}\n"
"""A study file to which something is added."""

DEEP = "[" * 5000
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20))


class Harm:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def layers(layer: str) -> str:
    """The study with other layers."""
    return STUDY.replace("{units: 4}", layer)


def data(said: str) -> str:
    """The study with other data."""
    return STUDY.replace("{source: blobs}", said)


STUDIES: dict[str, tuple[str, str]] = {
    "billion laughs": (LAUGHS, "line 2 is not valid YAML: the alias *a0 is not read"),
    "alias of itself": ("a: &a [*a]", "line 1 is not valid YAML: the alias *a is not read"),
    "Python object": (STUDY + "seeds: !!python/object/apply:os.system ['true']", "line 4 is not valid YAML: the tag"),
    "Python name": (STUDY + "seeds: !!python/name:os.system", "line 4 is not valid YAML: the tag tag:yaml.org,2002:"),
    "tag of one's own": (STUDY + "seeds: !own 3", "line 4 is not valid YAML: the tag !own is not read"),
    "tag without a value": (STUDY + "seeds: !!int ''", "line 4 is not valid YAML: the tag tag:yaml.org,2002:int"),
    "tag of a truth value": (STUDY + "seeds: !!bool x", "the tag tag:yaml.org,2002:bool is not read"),
    "tag of a time": (STUDY + "seeds: !!timestamp x", "the tag tag:yaml.org,2002:timestamp is not read"),
    "merge": (STUDY + "<<: {seeds: 3}", "line 4 is not valid YAML: the merge key << is not read"),
    "key twice": (STUDY + "seeds: 3\nseeds: 4", "line 5 is not valid YAML: the key 'seeds' stands twice"),
    "lists in lists": ("[" * 199_000, "line 1 is not valid YAML: nested more than 30 deep"),
    "mappings in mappings": ("{a: " * 40_000, "line 1 is not valid YAML: nested more than 30 deep"),
    "blocks in blocks": ("- " * 90_000, "line 1 is not valid YAML: nested more than 30 deep"),
    "deep options": (layers("{kind: custom, function: 'a:b', options: {a: " + DEEP + "}}"), "nested more than 30 deep"),
    "long decimal": (STUDY + "seeds: " + "9" * 190_000, "a number of 190,000 characters; at most 100 are read"),
    "long hexadecimal": (STUDY + "seeds: 0x" + "f" * 5000, "a number of 5,002 characters; at most 100 are read"),
    "long sexagesimal": (STUDY + "seeds: " + "1:" * 90_000 + "1", "a number of 180,001 characters"),
    "sexagesimal float": (STUDY + "seeds: " + "1:" * 90_000 + "1.5", "a number of 180,003 characters"),
    "impossible date": (STUDY + "seeds: 2026-99-99", "is not valid YAML: month must be in 1..12"),
    "NaN": (STUDY + "alpha: .nan", "alpha: received nan; input should be a finite number"),
    "huge number": (STUDY + "seeds: " + "9" * 99, "seeds: received 999"),
    "100 MB": ("#" * 100_000_000, "100,000,000 bytes; a study file holds at most 200,000."),
    "zero byte": ("name: x\0y", "unacceptable character #x0000"),
    "lone surrogate": (STUDY + 'question: "\\ud800"', "question: received '\\ud800'"),
    "escapes": (STUDY + 'question: "\\e[2J"', "question: received '\\x1b[2J'; leave out characters"),
    "turned writing": (STUDY + 'question: "a\\u202eb"', "question: received 'a\\u202eb'; leave out characters"),
    "escapes in a key": (STUDY + '"\\e[2J": 3', "\\x1b[2J: unknown key"),
    "path as a name": (STUDY.replace("name: x", "name: ../../x"), "name: received '../../x'"),
    "absolute name": (STUDY.replace("name: x", "name: /etc/x"), "name: received '/etc/x'"),
    "path as an arm": (STUDY + "arms: {../x: greedy}", "arms: arm name '../x': use lower-case letters"),
    "path as a claim": (
        STUDY + "claims: {../x: {kind: trend, arm: greedy, metric: test_accuracy, direction: up}}",
        "claims: claim name '../x': use lower-case letters",
    ),
    "very many arms": (
        layers("{units: 4, repeat: 1000}") + "arms:\n" + "".join(f"  a{i}: greedy\n" for i in range(9000)),
        "dictionary should have at most 100 items",
    ),
    "very many layers": (layers(", ".join(["{units: 4, repeat: 1000}"] * 5000)), "layers: 5000000 layers in all"),
    "very many in the head": (
        STUDY.replace("[{units: 4}]", "[{units: 4}], head: [" + ", ".join(["{units: 4, repeat: 1000}"] * 5000) + "]"),
        "network.head: 5000000 layers in all; at most 1000",
    ),
    "very many positions": (
        STUDY.replace("{layers:", "{inputs: {a: {features: '" + "0-9," * 30_000 + "', layers: [{units: 3}]}}, layers:"),
        "at most 100,000 positions",
    ),
    "long path": (data("{source: table, target: t, path: " + "a" * 190_000 + "}"), "aaaa is no file in the study's"),
    "nobody's home": (data("{source: table, target: t, path: '~no.body/x.csv'}"), "is no file in the study's folder"),
    "device as data": (data("{source: table, target: t, path: /dev/zero}"), "'/dev/zero' is no file in the study's"),
    "loader that is none": (data("{source: loader, loader: '../x:y'}"), "data.loader: received '../x:y'; expected"),
    "function that is none": (layers("{kind: custom, function: 'a..b:c'}"), "received 'a..b:c'; expected module"),
}  # fmt: skip
"""What a study file says, and with which words it is refused."""


# --- arrays ------------------------------------------------------------------------------------------------


def npy(value: Any) -> bytes:
    """An honest NPY file."""
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def claiming(shape: str, dtype: str = "'<f8'", header: str = "", content: bytes = bytes(64)) -> bytes:
    """An NPY file that says it holds an array of that shape, or has another header."""
    text = (header or f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}").encode("latin1")
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


INPUTS, TARGETS = npy(np.random.default_rng(0).normal(size=(30, 4))), npy(np.arange(30) % 3)


def inputs(content: bytes) -> bytes:
    """An archive with these inputs and sound targets."""
    return archive({"x.npy": content, "y.npy": TARGETS})


def zeros(rows: int) -> bytes:
    """An NPZ file of a thousandth of its content's size: ``rows`` rows of 64 zeros, each a byte."""
    return inputs(claiming(f"({rows}, 64)", "'|u1'", content=bytes(64 * rows)))


ARRAYS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "8 TB.npz": (lambda _: inputs(claiming("(1099511627776,)")), "array 'x' cannot be read as NumPy's (it says that"),
    "16 GB.npz": (lambda _: inputs(claiming("(1073741824, 2)")), "it says that it holds (1073741824, 2) of float64"),
    "more than a count.npz": (lambda _: inputs(claiming(f"({2**70}, 2)")), "it says that it holds (11805916207174113"),
    "overflow.npz": (lambda _: inputs(claiming("(4294967296, 4294967296, 4)")), "it says that it holds (4294967296,"),
    "less than nothing.npz": (lambda _: inputs(claiming("(-5, 4)")), "its shape is (-5, 4)"),
    "no number.npz": (lambda _: inputs(claiming("(True, 4)")), "its shape is (True, 4)"),
    "very many axes.npz": (lambda _: inputs(claiming("(" + "1," * 100 + ")")), "maximum supported dimension"),
    "nothing, often.npz": (lambda _: inputs(claiming("(1099511627776,)", "'<U0'", content=b"")), "it says that it"),
    "deep header.npz": (lambda _: inputs(claiming("", header="{'descr': " + "[" * 3000)), "cannot be read as NumPy's"),
    "open header.npz": (lambda _: inputs(claiming("", header="(" * 4000)), "cannot be read as NumPy's"),
    "calling header.npz": (lambda _: inputs(claiming("__import__('os')")), "cannot be read as NumPy's"),
    "8 TB.npy": (lambda _: claiming("(1099511627776,)"), "8 TB.npy: cannot be read as NumPy's (it says that it holds"),
    "a bomb.npz": (lambda _: zeros(4_000_000), "reading it would take about 7.17 GB of memory, and there is 4.29 GB"),
    "very many arrays.npz": (
        lambda _: archive({f"{i}.npy": b"" for i in range(20_000)}, zipfile.ZIP_STORED),
        "holds 20,000 arrays; at most 10,000 are read",
    ),
    "pickle.npz": (lambda mark: pickle.dumps(Harm(mark)), "pickles are not read, since they can run code"),
    "pickle.npy": (lambda mark: pickle.dumps(Harm(mark)), "pickles are not read, since they can run code"),
    "pickle inside.npz": (lambda mark: inputs(pickle.dumps(Harm(mark))), "array 'x' cannot be read as NumPy's"),
    "objects.npz": (lambda mark: inputs(npy(np.array([Harm(mark)] * 30))), "array 'x' holds Python objects, which are"),
    "objects.npy": (lambda mark: npy(np.array([Harm(mark)] * 30)), "objects.npy: holds Python objects, which are not"),
    "objects as targets.npz": (
        lambda mark: archive({"x.npy": INPUTS, "y.npy": npy(np.array([Harm(mark)] * 30))}),
        "array 'y' holds Python objects",
    ),
}  # fmt: skip
"""File name -> its content, given a file that is made if it is unpickled; and with which words it is refused."""


# --- tables ------------------------------------------------------------------------------------------------


def parquet(write: Callable[[Any, Path], None]) -> Callable[[Path], bytes]:
    """What a function writes as a Parquet file."""

    def made(mark: Path) -> bytes:
        from pyarrow import parquet as library

        file = mark.with_name("made.parquet")
        write(library, file)
        return file.read_bytes()

    return made


def _many_rows(library: Any, file: Path) -> None:
    """Two columns of the same number, 80 million times, in a few kilobytes."""
    import pyarrow as pa

    part = pa.table({"a": np.zeros(10_000_000), "t": np.zeros(10_000_000, np.int64)})
    with library.ParquetWriter(file, part.schema, compression="zstd") as writer:
        for _ in range(8):
            writer.write_table(part)


def _long_texts(library: Any, file: Path) -> None:
    """A text of a megabyte, 200,000 times, in a few kilobytes."""
    import pyarrow as pa

    texts = pa.DictionaryArray.from_arrays(np.zeros(200_000, np.int32), pa.array(["x" * 1_000_000]))
    library.write_table(pa.table({"a": texts, "t": np.arange(200_000) % 2}), file, compression="zstd")


def _evil_zone(library: Any, file: Path) -> None:
    import pyarrow as pa

    when = pa.array([0] * 4, pa.timestamp("us", tz="Evil/Zone"))
    library.write_table(pa.table({"a": when, "t": ["x", "y"] * 2}), file)


def _says_of_pandas(library: Any, file: Path) -> None:
    """A table whose note to pandas names an index of a trillion rows, and is of one class."""
    import pyarrow as pa

    index = [{"kind": "range", "name": None, "start": 0, "stop": 10**12, "step": 1}]
    note = {"index_columns": index, "column_indexes": [], "columns": [], "pandas_version": "3"}
    table = pa.table({"a": [1.0, 2, 3, 4], "t": ["x"] * 4})
    library.write_table(table.replace_schema_metadata({"pandas": json.dumps(note)}), file)


TABLES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "one line.csv": (lambda _: b"a," * 5_000_000, "is no table of the kind that its name says"),
    "one cell.csv": (lambda _: b"a" * 10_000_000, "is no table of the kind that its name says"),
    "open quote.csv": (lambda _: b'a,t\n"' + b"1,2\n" * 2_000_000, "is no table of the kind that its name says"),
    "a million columns.csv": (
        lambda _: b"\n".join([b",".join(b"c%d" % i for i in range(10**6)), b",".join([b"1"] * 10**6)]),
        "is no table of the kind that its name says",
    ),
    "huge numbers.csv": (lambda _: b"a,t\n1e9999,x\n1,y\n2,x\n3,y\n", "column 'a' holds inf in row 1"),
    "escapes.csv": (lambda _: b"a\x1b[2J,t\n1,x\n,x\n3,y\n4,y\n", "column 'a\\x1b[2J' has 1 missing value"),
    "80 million rows.parquet": (parquet(_many_rows), "would take about 4.48 GB of memory, and there is 4.29 GB"),
    "200 GB of texts.parquet": (parquet(_long_texts), "would take about 800 GB of memory, and there is 4.29 GB"),
    "unknown zone.parquet": (parquet(_evil_zone), "is no table of the kind that its name says ('Evil/Zone')"),
    "a note to pandas.parquet": (parquet(_says_of_pandas), "target column 't' is 'x' in every row"),
    "no Parquet.parquet": (lambda _: b"PAR1" + os.urandom(1000) + b"\xff\xff\xff\x7fPAR1", "is no table of the kind"),
    "pickle.csv": (lambda mark: pickle.dumps(Harm(mark)), "pickle.csv: "),
    "pickle.parquet": (lambda mark: pickle.dumps(Harm(mark)), "is no table of the kind that its name says"),
}  # fmt: skip
"""The same for tables with a target ``t``."""
