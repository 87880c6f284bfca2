"""A study's report: its parts, in the order in which a reviewer reads."""

from __future__ import annotations

import dataclasses

from layerwise.growing import as_grown
from layerwise.report.answer import answer, claims
from layerwise.report.numbers import depth, differences, drawings, outcomes, results
from layerwise.report.origin import caveats, costs, reproduction, study_file
from layerwise.report.page import Page
from layerwise.report.run import StudyRun
from layerwise.report.trained import trained


def study_page(run: StudyRun) -> Page:
    """The report of a study's run: :func:`layerwise.report.html` and :func:`layerwise.report.markdown` render it.

    Example:
        >>> import layerwise
        >>> from layerwise.report import StudyRun, html, study_page
        >>> study = layerwise.load("blobs-supervised", seeds=2, overrides=["network.layers.0.repeat=1", "claims=null"])
        >>> result = layerwise.run(study)
        >>> page = study_page(StudyRun(study, result.metrics(), result.table()))
        >>> [section.title for section in page.sections][:3], html(page).startswith("<!DOCTYPE html>")
        (['Answer', 'What was trained', 'Figures'], True)
    """
    run = dataclasses.replace(run, study=as_grown(run.study, run.metrics))
    sections = [
        answer(run),
        claims(run),
        trained(run),
        drawings(run),
        results(run),
        differences(run),
        outcomes(run),
        depth(run),
        costs(run),
        reproduction(run),
        caveats(run),
        study_file(run),
    ]
    repeat = run.origin.get("repeat")
    version = f"Layerwise {run.origin['version']}" if "version" in run.origin else "Layerwise"
    return Page(
        title=run.study.name,
        kicker=f"Study report, repeat {repeat}" if repeat else "Study report",
        lead=run.study.question,
        sections=[section for section in sections if section is not None],
        footer=f"{version}. This file holds all that it shows: no script, nothing from elsewhere.",
    )
