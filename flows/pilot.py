"""A pilot as a Prefect flow: a few seeds of every arm, scored and not tracked.

Its stages are those of the study's run, under the same digests, so a run trains only what the pilot did not.
"""

from __future__ import annotations

import pandas as pd
from prefect import flow
from prefect.runtime import flow_run

from flows import progress
from layerwise import answers, datasets, pretraining, stages
from layerwise.study import Study
from tasks import training


def _flow_run_name() -> str:
    return f"{flow_run.parameters['study'].name} · pilot"


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
    blocks = [block for arm in study.arms for block in stages.blocks(study, arm, data.digest)]
    bar = progress.begin("piloting", sum(len(block.procedure.depths) for block in blocks))
    records = []
    for block in blocks:
        for depth in pretraining.depths(block, data, steps=training):
            records += answers.rows(depth)
            bar.advance(f"{block.arm}, seeds {block.seeds[0]}-{block.seeds[-1]}, depth {depth.depth}")
    return pd.DataFrame(records)
