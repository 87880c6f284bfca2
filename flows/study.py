"""The main path: a study as a Prefect flow.

    data -> for each look at the claims, for each arm, for each block of seeds up to it:
                base -> evaluate -> (add layer -> evaluate) x depth, with a head and fine tuning where the arm asks;
                the first blocks of an arm that grows by rule together, to settle its depth
         -> decide the claims -> summarise and draw -> register the model that validation chose,
            or that the study declares

Training goes on in this thread, or in the workers of a cluster; what is trained is published from another thread, so
that neither waits for the other.
"""

from __future__ import annotations

from functools import partial

from prefect import flow
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from flows import crew, progress
from flows.cluster import Scale
from flows.launching import SEPARATOR, Incomplete
from flows.publishing import published
from flows.trained import Outcome, Trained, failures_noted
from layerwise import datasets, pretraining, stages
from layerwise.claims import should_stop
from layerwise.growing import Growing
from layerwise.study import Study
from tasks import training


def _flow_run_name() -> str:
    """The study and its repeat, as its MLflow runs are named."""
    asked = flow_run.parameters
    return SEPARATOR.join(filter(None, [asked["study"].name, asked.get("repeat")]))


@flow(  # ty: ignore[no-matching-overload] - Prefect's types want a runner of futures of one type
    name="study",
    flow_run_name=_flow_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=1),
    persist_result=False,
    validate_parameters=True,
)
def run_study(study: Study, repeat: str = "", scale: Scale | None = None) -> Outcome:
    """Train every arm of a study over its seeds, track each depth, decide its claims, and summarise.

    Args:
        study: what to train. One that says when to stop trains no further seeds once its claims are decided.
        repeat: the name of a deliberate repeat; empty to continue or complete the study's own run.
        scale: the workers that train it; without them, this process does.

    Raises:
        Incomplete: if an arm failed, or something could not be published, at the end of all else; so that Prefect's
            pages do not show such a run as a good one.
    """
    trained, growing = Trained(crew.ledger(scale)), Growing(study)
    data = training.generate_data(study.data)
    datasets.check_seeds(study, data)
    pretraining.check_functions(study)
    with published(study, repeat, data, trained) as publishing, crew.at_work(scale, growing, data) as workers:
        for seeds, groups in stages.rounds(study, data.digest, repeat):
            publishing.open(seeds)
            bar = progress.begin("training", partial(growing.steps, groups), "depths")
            for blocks, depths in workers.trained(groups, trained.steps):
                with failures_noted(trained, blocks):
                    for depth in depths:
                        trained.add(depth)
                        publishing.add(depth)
                        bar.advance(depth.place, found=workers.new.isdisjoint(depth.digests))
            # No look can be taken while seeds are missing; the run that completes them goes on from here.
            if trained.failures or should_stop(growing.study, trained.metrics(), seeds):
                break
        outcome = publishing.finish(trained.outcome(growing.study))
    if outcome.lacks:
        raise Incomplete(outcome.lacks, outcome)
    return outcome
