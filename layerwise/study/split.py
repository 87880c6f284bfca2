"""What every data set says: its size, how rows are divided, which keep their label, how inputs are scaled."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, PlainSerializer, PlainValidator, ValidationInfo, model_validator

from layerwise.study.parts import Part

Scaling = Literal["none", "standard", "min_max"]
Task = Literal["classification", "regression"]


class Shape(NamedTuple):
    """Size of a data set; without classes its targets are numbers."""

    rows: int
    features: int
    classes: int


def _rows_or_share(value: Any) -> Any:
    """A number of rows, or a share of them all, which a data set turns into rows."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if (whole and value >= 1) or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError(f"received {value!r:.60}; expected a number of rows, 1 or more, or a share between 0 and 1")


def _as_it_is(size: Any) -> Any:
    return size


# Whoever reads a data set's split finds numbers of rows; a share is what it was written as.
Rows = Annotated[
    int,
    PlainValidator(_rows_or_share, json_schema_input_type=int | float),
    PlainSerializer(_as_it_is, return_type=int | float),
]


class Split(Part):
    """How many rows each part takes, or which share; together they are all the rows there are.

    Within a data set all are numbers of rows.
    """

    train: Rows
    test: Rows
    validation: Rows | None = None
    unused: Rows | None = None
    """Rows that no part takes."""

    @property
    def total(self) -> int:
        """Rows in all parts together."""
        return sum(self._sizes().values())

    def of(self, rows: int) -> Split:
        """The split of so many rows in whole rows; by largest remainder, where shares do not come out even.

        Raises:
            ValueError: if the parts are not all the rows, or one of them would have none.
        """
        sizes = self._sizes()
        words = " + ".join(f"{part} {size}" for part, size in sizes.items())
        shares = [part for part, size in sizes.items() if isinstance(size, float)]
        if shares and len(shares) < len(sizes):
            raise ValueError(f"split: {words} mixes rows and shares; give every part in rows, or every part as a share")
        if shares:
            return Split(**_whole_rows(sizes, rows, words))
        if self.total != rows:
            raise ValueError(f"{words} = {self.total} rows, but there are {rows}; make them equal")
        return self

    def _sizes(self) -> dict[str, int]:
        sizes = {part: getattr(self, part) for part in ("train", "test", "validation", "unused")}
        return {part: size for part, size in sizes.items() if size is not None}


def _whole_rows(shares: dict[str, int], rows: int, words: str) -> dict[str, int]:
    if not math.isclose(sum(shares.values()), 1):
        raise ValueError(f"split: {words} = {sum(shares.values()):g}; shares have to add up to 1")
    exact = {part: share * rows for part, share in shares.items()}
    whole = {part: math.floor(size + 1e-9) for part, size in exact.items()}
    for part in sorted(exact, key=lambda part: whole[part] - exact[part])[: rows - sum(whole.values())]:
        whole[part] += 1
    empty = [part for part, size in whole.items() if size < 1]
    if empty:
        raise ValueError(f"split: {words} of {rows} rows leaves {empty[0]} without a row; give it a larger share")
    return whole


class DataSetPart(Part):
    """What every data set can say: its parts, how many training rows keep their label, how inputs are scaled."""

    split: Split
    labels: Annotated[int, Field(ge=2, strict=True)] | None = None
    """Training rows that keep their label, a stratified draw of each seed; all of them if left out."""
    scaling: Scaling = "none"
    shuffle: bool = True
    """Whether each seed draws its own parts; otherwise rows are taken in order: train, validation, unused, test."""

    stratified: ClassVar[bool] = False
    """Whether the parts that a seed draws have every class in proportion."""

    def shape(self) -> Shape:
        """Rows, features and classes of the whole data set."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What digests take of it: all that decides the arrays and their parts, and no place where a file lies."""
        return self.canonical()

    @model_validator(mode="after")
    def _parts_fit(self, info: ValidationInfo) -> Self:
        self._settle(info.context or {})
        # Frozen for everybody else: whoever reads the split finds whole rows.
        rows, _, classes = self.shape()
        self.__dict__["split"] = self.split.of(rows)
        if self.stratified and self.split.train < classes:
            raise ValueError(f"split: train {self.split.train} is fewer than the {classes} classes; give each a row")
        check_labels(self.labels, self)
        return self

    def _settle(self, context: dict[str, Any]) -> None:
        """Look at the data where their size has to be read, before the split is checked against it."""


def check_labels(labels: int | None, data: DataSetPart, *, where: str = "") -> None:
    """Refuse a labelled set that is larger than the training part or has no room for every class."""
    if labels is None:
        return
    if labels > data.split.train:
        raise ValueError(f"{where}labels {labels} is more than the training part's {data.split.train} rows; use fewer")
    if labels < data.shape().classes:
        raise ValueError(
            f"{where}labels {labels} is fewer than the {data.shape().classes} classes; give every class a row"
        )
