"""Keras models of many seeds from one saved model: the same architecture, other weights.

Keras and MLflow write one model in 30 to 60 ms, nearly all of it the same text for every seed of a depth. A
:class:`ModelTemplate` lets them write it once, notes where in the weights file each weight stands, and then
fills in the weights of a seed. What results is what they would have written: a genuine ``.keras`` archive in
a genuine MLflow model folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise import raw_rows
from tasks.scratch import scratch
from tasks.tracking.folders import LOCATION, MLMODEL, MODEL_ID, RUN_ID, ModelFolder

if TYPE_CHECKING:
    import keras

# MLflow silences this one, about its own classes, while it imports itself; but any other thread that catches warnings
# meanwhile takes the silence away again.
warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")

_ARCHIVE = "data/model.keras"
_WEIGHTS = "model.weights.h5"


@dataclass(frozen=True)
class _Slot:
    """Where one weight stands in the weights file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Serving:
    """How a model serves raw rows, as they stand in the user's table or array.

    Attributes:
        columns: name and MLflow type of every column; ``None`` where a raw row is an array.
        numbers: those that are numbers; the others are categories.
        width: numbers that the network takes for a row.
        outputs: the names of what comes out; ``None`` where that is an array.
        feeds: for a network of several inputs, the positions in the row that each takes, by name.
    """

    columns: tuple[tuple[str, str], ...] | None
    numbers: tuple[str, ...]
    width: int
    outputs: tuple[str, ...] | None
    feeds: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def text(self) -> str:
        """What the model reads of it when it is loaded."""
        categories = [name for name, _ in self.columns or () if name not in self.numbers]
        columns = None if self.columns is None else {"numbers": self.numbers, "categories": categories}
        return json.dumps({"columns": columns, "width": self.width, "outputs": self.outputs, "feeds": dict(self.feeds)})


@dataclass(frozen=True)
class ModelTemplate:
    """One architecture as an MLflow model folder, ready for weights and ids.

    It is plain bytes: small, frozen, and picklable.
    """

    files: Mapping[str, bytes]
    archive: Mapping[str, bytes]
    slots: tuple[_Slot, ...]

    @classmethod
    def of(
        cls, model: keras.Model, *, requirements: Sequence[str] = (), serving: Serving | None = None
    ) -> ModelTemplate:
        """The template of a model's architecture; the model keeps its weights.

        Args:
            model: a built model with one output.
            requirements: pip requirements beside the exact versions of Keras, TensorFlow and NumPy in use.
            serving: how it serves raw rows; without it, it takes what the network takes.

        Raises:
            ValueError: if the model's weights cannot be told apart in its file.

        Example:
            >>> template = ModelTemplate.of(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))
            >>> len(template.slots)
            2
        """
        weights = model.get_weights()
        try:
            model.set_weights([np.full_like(weight, number) for number, weight in enumerate(weights, start=1)])
            files = _saved(model, [*default_requirements(), *requirements], serving)
        finally:
            model.set_weights(weights)
        with zipfile.ZipFile(io.BytesIO(files.pop(_ARCHIVE))) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        return cls(files, parts, _slots(parts[_WEIGHTS], weights))

    def folder(self, weights: Sequence[np.ndarray], preparation: bytes | None = None) -> ModelFolder:
        """The folder of one model.

        Args:
            weights: arrays in the order of ``model.weights``.
            preparation: what turns raw rows into inputs, from :func:`layerwise.raw_rows.packed`.

        Raises:
            ValueError: if the weights are not those of the architecture.
        """
        filled = {**self.files, _ARCHIVE: self.keras_archive(weights)}
        if preparation is not None:
            filled[f"data/{raw_rows.PREPARATION}"] = preparation
        return ModelFolder(filled)

    def keras_archive(self, weights: Sequence[np.ndarray]) -> bytes:
        """The ``.keras`` file of one model, to be loaded by :func:`keras.saving.load_model`."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in self.archive.items():
                entry = zipfile.ZipInfo(name)  # of no date: equal weights give equal files
                entry.external_attr = 0o600 << 16
                archive.writestr(entry, self._filled(weights) if name == _WEIGHTS else content)
        return stream.getvalue()

    def _filled(self, weights: Sequence[np.ndarray]) -> bytes:
        if len(weights) != len(self.slots):
            raise ValueError(f"received {len(weights)} weights; the architecture has {len(self.slots)}")
        content = bytearray(self.archive[_WEIGHTS])
        for number, (slot, weight) in enumerate(zip(self.slots, weights, strict=True)):
            if weight.shape != slot.shape or weight.dtype != slot.dtype:
                raise ValueError(
                    f"weight {number} is {weight.dtype} {weight.shape}; the architecture has {slot.dtype} {slot.shape}"
                )
            content[slot.offset : slot.offset + weight.nbytes] = weight.tobytes()
        return bytes(content)


def default_requirements() -> list[str]:
    """What loading a model takes, in the exact versions of this process.

    MLflow's Keras flavour would list Keras alone, and a Keras without a backend cannot be imported.
    """
    return [f"{name}=={version(name)}" for name in ("keras", _tensorflow(), "numpy")]


def raw_row_requirements() -> list[str]:
    """What serving raw rows takes besides."""
    return [f"{name}=={version(name)}" for name in ("pandas", "scikit-learn", "skops")]


def _tensorflow() -> str:
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return name
    raise ModuleNotFoundError(f"no TensorFlow for {platform.machine()} is installed; publishing models needs it")


def _saved(model: keras.Model, requirements: Sequence[str], serving: Serving | None) -> dict[str, bytes]:
    """The files that MLflow's Keras flavour writes for a model, with placeholders for what differs."""
    import mlflow.keras
    from mlflow.models import Model

    stub = Model(artifact_path=LOCATION, run_id=RUN_ID, model_id=MODEL_ID, model_uuid=MODEL_ID)
    with scratch() as folder:
        place = folder / "model"
        mlflow.keras.save_model(
            model,
            str(place),
            mlflow_model=stub,
            signature=_signature(model),
            pip_requirements=[*requirements, *(raw_row_requirements() if serving else ())],
        )
        if serving is not None:
            _serve_raw_rows(place, serving, stub.signature)
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in _files_below(place)}


def _serve_raw_rows(place: Path, serving: Serving, tensors: Any) -> None:
    """Let python_function take raw rows: the code for it goes along, under a name that tells its versions apart.

    The keras flavour stays as it is: it gives the bare network.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    code = Path(raw_rows.__file__).read_bytes()
    module = f"layerwise_raw_rows_{hashlib.sha256(code).hexdigest()[:8]}"
    (place / "code").mkdir()
    (place / "code" / f"{module}.py").write_bytes(code)
    (place / "data" / raw_rows.SERVING).write_text(serving.text(), encoding="utf-8")
    described = Model.load(str(place / MLMODEL))
    described.signature = _raw_signature(serving, tensors)
    pyfunc.add_to_model(
        described,
        loader_module=module,
        data="data",
        code="code",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    described.save(str(place / MLMODEL))


def _raw_signature(serving: Serving, tensors: Any) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    if serving.columns is None:
        inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, serving.width))])
    else:
        inputs = Schema([ColSpec(kind, name) for name, kind in serving.columns])
    if serving.outputs is None:
        return ModelSignature(inputs, tensors.outputs)
    return ModelSignature(inputs, Schema([ColSpec("float", name) for name in serving.outputs]))


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _signature(model: keras.Model) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def described(tensor: Any, name: str | None = None) -> TensorSpec:
        shape = tuple(-1 if size is None else size for size in tensor.shape)
        return TensorSpec(np.dtype(tensor.dtype), shape, name)

    several = len(model.inputs) > 1
    inputs: list[Any] = [described(tensor, tensor.name if several else None) for tensor in model.inputs]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([described(model.outputs[0])]))


def _in_one_piece(item: Any) -> bool:
    import h5py

    numbers = isinstance(item, h5py.Dataset) and item.size and item.dtype.kind in "fiu"
    return bool(numbers) and item.id.get_offset() is not None


def _slots(content: bytes, weights: Sequence[np.ndarray]) -> tuple[_Slot, ...]:
    """Where each weight stands, recognised by its number, with which the template's weights were filled."""
    import h5py

    numbered: dict[int, list[_Slot]] = defaultdict(list)

    def note(_name: str, item: Any) -> None:
        if _in_one_piece(item):
            values = item[()]
            if (values == values.flat[0]).all():
                numbered[int(values.flat[0])].append(_Slot(item.id.get_offset(), item.shape, item.dtype))

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(note)
    return tuple(_only(numbered[number], number, weight) for number, weight in enumerate(weights, start=1))


def _only(slots: Sequence[_Slot], number: int, weight: np.ndarray) -> _Slot:
    fitting = [slot for slot in slots if slot.shape == weight.shape and slot.dtype == weight.dtype]
    if len(fitting) != 1:
        raise ValueError(
            f"weight {number - 1} ({weight.dtype} {weight.shape}) stands {len(fitting)} times in one piece in the"
            " model's file; expected a model with plain float32 weights, each saved once"
        )
    return fitting[0]
