"""The tags by which runs are told apart, and what they say. Nothing of MLflow is loaded for them."""

from __future__ import annotations

from collections.abc import Mapping

from layerwise.study import MOST_ARMS, MOST_SEEDS
from tasks.tracking.store import TrackingError

RUN_KEY = "layerwise.run_key"
KIND = "layerwise.kind"
STUDY = "layerwise.study"
ARM = "layerwise.arm"
ARMS = "layerwise.arms"
SEED = "layerwise.seed"
SEEDS = "layerwise.seeds"
DIGEST = "layerwise.digest"
REPEAT = "layerwise.repeat"
OWNER = "layerwise.owner"

ARTIFACT = "layerwise.artifact."
"""Prefix of tags that name an artifact's SHA-256; written after the file, such a tag vouches for it."""

FILES = "layerwise.files"
"""The tag of a model that names the digests of its files."""

Identity = tuple[str, str, str]
"""Kind, arm and seed of a run, as its tags say them; empty where it has none."""

STUDY_RUN: Identity = ("study", "", "")


def identity_of(tags: Mapping[str, str]) -> Identity:
    """What a run with these tags is within its tree."""
    return tags.get(KIND, ""), tags.get(ARM, ""), tags.get(SEED, "")


def arms_and_seeds(tags: Mapping[str, str]) -> tuple[list[str], int]:
    """The arms of a study, and how many seeds each has, as the tags of its run say.

    Raises:
        TrackingError: if they say what no study can.
    """
    arms, seeds = tags.get(ARMS, "").split(","), tags.get(SEEDS, "0")
    if len(arms) > MOST_ARMS or not seeds.isdecimal() or not seeds.isascii() or int(seeds[:9]) > MOST_SEEDS:
        raise TrackingError(
            f"the tags {ARMS} and {SEEDS} say {len(arms):,} arms and {seeds[:40]!r} seeds, which no study has; see who"
            " changed them."
        )
    return arms, int(seeds)
