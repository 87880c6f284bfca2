"""What is wrong in a store that is a file: runs of dead processes, models left half-made; without loading MLflow.

The database is read as it stands, so that it can be looked at also where MLflow would not open it. Only mending what
was found loads MLflow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import owners
from tasks.tracking.rows import READY, reading

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUNNING = """
SELECT experiments.name, runs.run_uuid, coalesce(tags.value, '') FROM runs
JOIN experiments ON experiments.experiment_id = runs.experiment_id
LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'layerwise.owner'
WHERE runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'
"""

UNFINISHED = """
SELECT experiments.name, logged_models.model_id, coalesce(runs.status, ''), coalesce(tags.value, ''),
    coalesce(runs.lifecycle_stage, 'deleted')
FROM logged_models JOIN experiments ON experiments.experiment_id = logged_models.experiment_id
JOIN logged_model_tags ours ON ours.model_id = logged_models.model_id AND ours.tag_key = 'layerwise.run_key'
LEFT JOIN runs ON runs.run_uuid = logged_models.source_run_id
LEFT JOIN tags ON tags.run_uuid = logged_models.source_run_id AND tags.key = 'layerwise.owner'
WHERE logged_models.status != ? AND logged_models.lifecycle_stage = 'active'
"""


@dataclass(frozen=True)
class Leftovers:
    """What processes that are gone left in a store.

    Attributes:
        orphans: run id -> study, of runs that are RUNNING though their process has ended.
        elsewhere: study -> how many runs are RUNNING of which this machine cannot tell whether anybody is at them.
        models: model id -> study, of models that are not whole and that nobody is at.
    """

    orphans: Mapping[str, str]
    elsewhere: Mapping[str, int]
    models: Mapping[str, str]


def leftovers(database: Path) -> Leftovers:
    """Look for what processes that are gone left in a store.

    Raises:
        sqlite3.Error: if it cannot be read.
    """
    with reading(database) as store:
        running, models = store.execute(RUNNING).fetchall(), store.execute(UNFINISHED, (READY,)).fetchall()
    orphans = {run: study for study, run, owner in running if owners.is_gone(owner)}
    elsewhere = Counter(study for study, run, owner in running if run not in orphans and not owners.is_here(owner))
    return Leftovers(orphans, elsewhere, dict(_abandoned(models)))


def _abandoned(models: list[tuple[str, str, str, str, str]]) -> Iterator[tuple[str, str]]:
    for study, model, status, owner, stage in models:
        if stage != "active" or status != "RUNNING" or owners.is_gone(owner):
            yield model, study


def mend(client: MlflowClient, found: Leftovers) -> None:
    """Close the runs of dead processes, and delete models that nobody will finish; both can be made again.

    Args:
        client: the store.
        found: what to mend; what somebody is at by now is left alone.
    """
    from tasks.tracking.runs import close_stale_runs

    for study in sorted({*found.orphans.values()}):
        experiment = client.get_experiment_by_name(study)
        if experiment is not None:
            close_stale_runs(client, experiment.experiment_id)
    for model in found.models:
        client.delete_logged_model(model)
