"""The view that a study's page opens on. tests/browser looks at the page itself."""

from __future__ import annotations

import json

from tasks.tracking.views import ARMS_VIEW, PAIRED, SECTIONS, VIEW_TAG, arms_view, runs_page

MOST_CHARACTERS = 5000
"""Of an experiment's tag; MLflow refuses a longer one."""


def state_of(view: str) -> dict:
    return json.loads(json.loads(view)["state"])


def test_the_view_has_a_chart_of_each_metric_in_its_section():
    """Every chart draws its metric against the depth, unsmoothed, in a section that is there; means come first."""
    view = arms_view(created=1_790_000_000_000)
    assert len(view) < MOST_CHARACTERS
    state = state_of(view)
    *sections, paired = [section["uuid"] for section in state["compareRunSections"]]
    assert [section["display"] for section in state["compareRunSections"]] == [True] * len(sections) + [False]
    assert sorted([*sections, paired], key=str.lower) == [*sections, PAIRED], "the page sorts its sections"
    drawn = [(chart["metricSectionId"], chart["metricKey"]) for chart in state["compareRunCharts"]]
    assert drawn == [(name, metric) for name in sections for metric in SECTIONS[name]]
    assert drawn[0] == ("Mean over intact seeds", "test_accuracy_mean")
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(drawn)
    assert {(chart["xAxisKey"], chart["lineSmoothness"]) for chart in state["compareRunCharts"]} == {("step", 0)}


def test_numbers_to_predict_are_drawn_by_r2():
    """Where there is no accuracy the same charts are of R2."""
    drawn = [chart["metricKey"] for chart in state_of(arms_view(created=0, score="r2"))["compareRunCharts"]]
    assert drawn[:2] == ["test_r2_mean", "fine_tuned_test_r2_mean"]
    assert not any("accuracy" in metric for metric in drawn)


def test_an_experiment_is_made_with_the_view(client, opened):
    """The page of a new experiment opens on the view, from the first moment on."""
    experiment = client.get_experiment(opened().experiment_id)
    assert state_of(experiment.tags[VIEW_TAG]) == state_of(arms_view(created=0))
    address = f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    assert runs_page(experiment) == f"{address}&compareRunsMode=CHART&viewStateShareKey={ARMS_VIEW}"


def test_an_experiment_without_the_view_is_given_it(client, opened, rows, counts):
    """An experiment of before has an ordinary page until its study is opened again; a view that is there stays."""
    tree = opened()
    before = counts()
    engine = client._tracking_client.store.engine
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM experiment_tags WHERE key = '{VIEW_TAG}'")  # noqa: S608 - our own name
    experiment = client.get_experiment(tree.experiment_id)
    assert runs_page(experiment) == f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
    opened()
    assert VIEW_TAG in client.get_experiment(tree.experiment_id).tags
    client.set_experiment_tag(tree.experiment_id, VIEW_TAG, "somebody's own")
    opened()
    assert rows(f"SELECT value FROM experiment_tags WHERE key = '{VIEW_TAG}'") == [("somebody's own",)]  # noqa: S608
    assert counts() == before
