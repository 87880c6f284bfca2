"""Layerwise: greedy layer-wise pretraining as reproducible studies.

A study is one short file that asks a question; :func:`run` answers it in this process, without a
workflow engine or a tracking server::

    import layerwise

    result = layerwise.run(layerwise.load("blobs-supervised", seeds=3))
    print(result.table())

Importing this package loads nothing heavy: TensorFlow comes in when something trains.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerwise.answers import Result, run
    from layerwise.study import Study, StudyError, load

try:
    __version__ = version("layerwise")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = ["Result", "Study", "StudyError", "datasets", "load", "run"]

_HOMES = {
    "Result": "layerwise.answers",
    "run": "layerwise.answers",
    "Study": "layerwise.study",
    "StudyError": "layerwise.study",
    "load": "layerwise.study",
}


def __getattr__(name: str) -> object:
    """Load a public name's module on first use, so that importing the package costs nothing."""
    if name == "datasets":
        return import_module("layerwise.datasets")
    if name not in _HOMES:
        raise AttributeError(f"module 'layerwise' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
