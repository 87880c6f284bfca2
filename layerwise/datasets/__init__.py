"""Data for a study: arrays and their digest, and for a block of seeds the rows of each part, prepared.

A :class:`Data` set is generated, read or given once. What a seed sees of it is a :class:`View`: its own random parts,
its own labelled rows, its own scaling, or in ``fresh`` mode its own training rows, each drawn from a named stream.
"""

from layerwise.datasets.data import VERSION, Data, RawTable, View, class_balance, content_digest, pick
from layerwise.datasets.generating import generate
from layerwise.datasets.own import from_arrays, from_frame
from layerwise.datasets.parts import check_seeds, preparation, view

__all__ = [
    "VERSION", "Data", "RawTable", "View", "check_seeds", "class_balance", "content_digest", "from_arrays",
    "from_frame", "generate", "pick", "preparation", "view",
]  # fmt: skip
