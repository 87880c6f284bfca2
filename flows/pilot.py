"""A pilot as a Prefect flow: a few seeds of every arm, scored and not tracked.

Its stages are those of the study's run, under the same digests, so a run trains only what the pilot did not.
"""

from __future__ import annotations

from functools import partial

import pandas as pd
from prefect import flow
from prefect.runtime import flow_run

from flows import crew, progress
from flows.launching import PILOT, SEPARATOR
from layerwise import datasets, stages
from layerwise.growing import Growing
from layerwise.study import Study
from tasks import training


def _flow_run_name() -> str:
    return SEPARATOR.join([flow_run.parameters["study"].name, PILOT])


@flow(name="pilot", flow_run_name=_flow_run_name, persist_result=False)
def pilot_study(study: Study) -> pd.DataFrame:
    """Train every arm of a study over its seeds, and score it.

    Args:
        study: what to train, with as many seeds as the pilot has.

    Returns:
        One row per arm, seed and depth, with its outcome and scores.
    """
    data = training.generate_data(study.data)
    datasets.check_seeds(study, data)
    growing, records = Growing(study), []
    with crew.at_work(None, growing, data) as here:
        for _, groups in stages.rounds(study, data.digest):
            bar = progress.begin("piloting", partial(growing.steps, groups), "depths")
            for _, depths in here.trained(groups, training):
                for depth in depths:
                    records += depth.records()
                    bar.advance(depth.place, found=here.new.isdisjoint(depth.digests))
    return pd.DataFrame(records)
