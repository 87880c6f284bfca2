"""The files of one model, with placeholders where a store's ids belong, so that they have digests before any store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

DIGITS = 16
"""Hexadecimal digits of a digest that is to notice accidents."""

MLMODEL = "MLmodel"
MODEL_ID = "m-" + "5eed" * 8
RUN_ID = "1d" * 16
LOCATION = "layerwise-artifact-location"


@dataclass(frozen=True)
class ModelFolder:
    """The files of one model by relative path, with placeholders where the store's ids belong."""

    files: Mapping[str, bytes]

    def named(self, *, model_id: str, run_id: str, location: str) -> dict[str, bytes]:
        """The files as they are stored.

        Args:
            model_id: the logged model's id.
            run_id: the run it comes from.
            location: where its artifacts are kept.
        """
        text = self.files[MLMODEL].decode()
        for placeholder, value in _ids(model_id, run_id, location):
            text = text.replace(placeholder, value)
        return {**self.files, MLMODEL: text.encode()}

    @classmethod
    def of_named(cls, files: Mapping[str, bytes], *, model_id: str, run_id: str, location: str) -> ModelFolder:
        """What :meth:`named` made such files of; others, where somebody changed them."""
        if MLMODEL not in files:
            return cls(files)
        content = files[MLMODEL]
        for placeholder, value in _ids(model_id, run_id, location):
            content = content.replace(value.encode(), placeholder.encode())
        return cls({**files, MLMODEL: content})

    def digests(self) -> dict[str, str]:
        """A digest of every file, which does not depend on ids, so that it is known before the store gives any."""
        return {name: hashlib.sha256(content).hexdigest()[:DIGITS] for name, content in sorted(self.files.items())}


def _ids(model_id: str, run_id: str, location: str) -> list[tuple[str, str]]:
    """Placeholders, and what stands in their place: quoted, for an id may look like a number."""
    known = {LOCATION: location, MODEL_ID: model_id, RUN_ID: run_id}
    return [(placeholder, json.dumps(value)) for placeholder, value in known.items()]
