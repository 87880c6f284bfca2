"""``layerwise ui`` in a real browser: what a person meets who follows the printed addresses, offline."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
expect = playwright.expect

CHECKOUT = Path(__file__).parents[2]
STUDY = """
name: small-pages
question: Do the pages read well?
data: {source: blobs, samples: 120, split: {train: 70, test: 50}}
network: {layers: [{units: 10, initializer: he_uniform, repeat: 3}]}
training: {optimizer: {name: sgd, learning_rate: 0.01, momentum: 0.9}, epochs: 2}
arms: [greedy, random_frozen, end_to_end]
seeds: 3
declared: {arm: greedy, depth: 2, seed: 1}
"""
DEPTHS = [1, 2, 3]
ARMS = {"greedy": DEPTHS, "random_frozen": DEPTHS, "end_to_end": [3]}
TASKS = ["data: blobs", *(f"greedy seeds 0-9: {step}" for step in ("base", "add layer 2", "add layer 3"))]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Site:
    """A root with one finished study, its pages, and what stands in its stores."""

    printed: str
    mlflow: str
    prefect: str
    runs: dict[str, dict[str, Any]]
    flow_run: str

    @property
    def runs_page(self) -> str:
        """The address that the command prints for the study."""
        return next(word for word in self.printed.split() if "/runs?" in word)

    def run_page(self, name: str, tab: str = "") -> str:
        info = self.runs[name]["info"]
        address = f"{self.mlflow}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}"
        return f"{address}{tab}?workflowType=machine_learning"


@pytest.fixture(scope="module")
def site(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:  # noqa: ARG001 - it is asked for first
    """The pages of a finished small study. The browser comes first: without one, nothing is trained."""
    root = tmp_path_factory.mktemp("root")
    (root / "study.yaml").write_text(STUDY)
    environ = os.environ | {"LAYERWISE_ROOT": str(root), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-P", "-m", "flows.cli"]
    for name in ("fastapi", "uvicorn", "flask", "sqlalchemy"):  # of the user's, and not what servers are to find
        (root / f"{name}.py").write_text("raise SystemExit('the pages imported a file of the user')")
    subprocess.run([*command, "run", "study.yaml"], cwd=root, env=environ, check=True, timeout=300)

    ports = _free_ports(2)
    options = ["ui", "--mlflow-port", str(ports[0]), "--prefect-port", str(ports[1])]
    process = subprocess.Popen([*command, *options], cwd=root, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            line = process.stdout.readline()
            assert line, f"`layerwise ui` ended with {process.wait()} after printing {printed!r}"
            printed += line
        mlflow, prefect = (f"http://127.0.0.1:{port}" for port in ports)
        yield Site(printed, mlflow, prefect, _runs(mlflow), _flow_run(prefect))
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert not any(map(_answers, ports)), "a server outlived `layerwise ui`"


def test_runs_page_shows_study_above_arms_and_seeds_one_click_below(site: Site, page: Any) -> None:
    page.goto(site.runs_page)
    expect(_names(page).filter(has_text=re.compile("^end_to_end$"))).to_be_visible(timeout=PATIENCE)
    assert _run_names(page) == ["study", *ARMS]
    expect(page.get_by_text("Do the pages read well?").first).to_be_visible()

    page.locator(".ag-row").filter(has_text="greedy").get_by_role("button").first.click()
    expect(_names(page).filter(has_text="greedy seed 02")).to_be_visible(timeout=PATIENCE)
    seeds = [f"greedy seed 0{seed}" for seed in range(3)]
    assert _run_names(page) == ["study", "greedy", *seeds, "random_frozen", "end_to_end"]


def test_runs_page_opens_on_the_curves_of_all_arms(site: Site, page: Any) -> None:
    page.goto(site.runs_page)
    page.wait_for_function("() => document.querySelectorAll('.js-plotly-plot').length >= 2", timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"^Mean over intact seeds")).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("test_accuracy_mean", exact=True).first).to_be_visible()
    drawn = "Object.fromEntries([...document.querySelector('.js-plotly-plot').data].map(line => [line.name, line.x]))"
    page.wait_for_function(f"() => Object.keys({drawn}).length >= {len(ARMS)}", timeout=PATIENCE)
    lines = {name: [int(step) for step in steps or ()] for name, steps in page.evaluate(drawn).items()}
    assert {name: steps for name, steps in lines.items() if steps} == ARMS, "a line for each arm, none for a seed"


def test_arm_chart_has_a_point_at_each_depth(site: Site, page: Any) -> None:
    page.goto(site.run_page("greedy", "/model-metrics"))
    page.get_by_placeholder("Search metric charts").fill("test_accuracy_mean")
    expect(page.get_by_text("test_accuracy_mean", exact=True).first).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".js-plotly-plot .scatterlayer .point")).to_have_count(len(DEPTHS), timeout=PATIENCE)
    drawn = page.evaluate("[...document.querySelector('.js-plotly-plot').data[0].x]")
    assert [int(step) for step in drawn] == DEPTHS


@pytest.mark.parametrize(
    ("run", "path"), [("greedy", "accuracy_by_depth.png"), ("study", "figures/accuracy_by_depth.svg")]
)
def test_figures_render(site: Site, page: Any, run: str, path: str) -> None:
    page.goto(site.run_page(run, f"/artifacts/{path}"))
    wide = "() => [...document.images].some(image => image.complete && image.naturalWidth > 500)"
    page.wait_for_function(wide, timeout=PATIENCE)  # nothing else on the page is half as wide


def test_the_report_renders_and_is_one_click_away(site: Site, page: Any) -> None:
    page.goto(site.run_page("study"))
    with page.context.expect_page(timeout=PATIENCE) as opened:
        page.get_by_role("link", name="The report", exact=True).first.click(timeout=PATIENCE)
    frame = opened.value.frame_locator("iframe").first
    expect(frame.get_by_role("heading", name="small-pages")).to_be_visible(timeout=PATIENCE)
    expect(frame.get_by_text("Do the pages read well?").first).to_be_visible()
    expect(frame.locator("figure.drawing svg").first).to_be_visible()


def test_results_table_renders(site: Site, page: Any) -> None:
    page.goto(site.run_page("study", "/artifacts/results.csv"))
    expect(page.get_by_text("Previewing the first 7 rows")).to_be_visible(timeout=PATIENCE)


@pytest.mark.parametrize("width", [1280, 390])
def test_run_page_opens_with_question_and_answer(site: Site, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for name in ("study", "greedy"):
        page.goto("about:blank")
        page.goto(site.run_page(name))
        expect(page.get_by_text("Do the pages read well?").first).to_be_attached(timeout=PATIENCE)
        expect(page.get_by_text(re.compile("from depth 1 to 3, training accuracy")).first).to_be_attached()


def test_logged_model_shows_its_metrics_and_seed(site: Site, page: Any) -> None:
    seed = site.runs["greedy seed 01"]
    model = next(made["model_id"] for made in seed["outputs"]["model_outputs"] if int(made["step"]) == 3)
    experiment = seed["info"]["experiment_id"]
    page.goto(f"{site.mlflow}/#/experiments/{experiment}/models/{model}?workflowType=machine_learning")
    expect(page.get_by_role("heading", name=re.compile("depth-03")).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("test_accuracy", exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name="greedy seed 01").first).to_be_visible()


def test_registered_model_has_its_alias_card_schema_and_report(site: Site, page: Any) -> None:
    page.goto(f"{site.mlflow}/#/models/small-pages?workflowType=machine_learning")
    expect(page.get_by_text("Do the pages read well?").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"^@?\s*declared$")).first).to_be_visible()
    expect(page.get_by_text(re.compile("^Classifier, 2 hidden")).first).to_be_visible()

    page.get_by_role("link", name="Version 1").first.click()
    for said in ("What it is.", "How it was chosen.", "Limits.", "Schema", "Inputs (1)", "Outputs (1)"):
        expect(page.get_by_text(said).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(re.compile("It was not: the study declares arm, depth and seed")).first).to_be_visible()
    expect(page.get_by_role("link", name="greedy seed 01").first).to_be_visible()
    with page.context.expect_page(timeout=PATIENCE) as opened:
        page.get_by_role("link", name="its report").first.click()
    frame = opened.value.frame_locator("iframe").first
    expect(frame.get_by_role("heading", name="small-pages")).to_be_visible(timeout=PATIENCE)
    expect(frame.get_by_text("greedy, depth 2, seed 1: declared beforehand").first).to_be_visible()


def test_flow_run_page_draws_the_graph_of_the_study(site: Site, page: Any) -> None:
    with page.expect_response(lambda response: response.url.endswith("/graph-v2"), timeout=PATIENCE) as answer:
        page.goto(f"{site.prefect}/runs/flow-run/{site.flow_run}")
    nodes = dict(answer.value.json()["nodes"])
    below = {node["label"]: {nodes[parent["id"]]["label"] for parent in node["parents"]} for node in nodes.values()}
    assert set(TASKS) <= set(below)
    for lower, upper in pairwise(TASKS):
        assert below[upper] == {lower}, "a stage hangs on the stage below it and on nothing else"

    canvas = page.locator("canvas").first
    expect(canvas).to_be_visible(timeout=PATIENCE)
    page.wait_for_timeout(2000)  # it draws itself in; a canvas gives no sign of having finished
    assert len(set(canvas.screenshot())) > 100, "the graph is blank"

    page.get_by_text("Task Runs", exact=True).first.click()
    for task in TASKS:
        expect(page.get_by_text(task, exact=True).first).to_be_attached(timeout=PATIENCE)


def test_flow_run_page_links_the_answer(site: Site, page: Any) -> None:
    page.goto(f"{site.prefect}/runs/flow-run/{site.flow_run}")
    page.get_by_text("Artifacts", exact=True).first.click()
    expect(page.get_by_text("small-pages", exact=True)).to_have_count(2, timeout=PATIENCE)  # title, artifact
    (artifact,) = _asked(f"{site.prefect}/api/artifacts/filter")
    page.goto(f"{site.prefect}/artifacts/artifact/{artifact['id']}")
    expect(page.get_by_text(re.compile("from depth 1 to 3, training accuracy")).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("table").first).to_be_visible()


def test_the_first_page_of_each_server_stays_on_this_machine(site: Site, page: Any) -> None:
    for address, sign in ((site.mlflow, "Experiments"), (site.prefect, "Flow Runs")):
        page.goto(address)
        expect(page.get_by_text(sign).first).to_be_visible(timeout=PATIENCE)
        page.wait_for_timeout(1500)


def _names(page: Any) -> Any:
    return page.locator(".ag-row a[href*='/runs/']")


def _run_names(page: Any) -> list[str]:
    """The names in the runs table, top to bottom."""
    placed = [(link.bounding_box()["y"], link.inner_text().strip()) for link in _names(page).all()]
    return [name for _, name in sorted(placed)]


def _runs(mlflow: str) -> dict[str, dict[str, Any]]:
    api = f"{mlflow}/api/2.0/mlflow"
    experiments = _asked(f"{api}/experiments/search", max_results=10)["experiments"]
    (experiment,) = (found["experiment_id"] for found in experiments if found["name"] == "small-pages")
    runs = _asked(f"{api}/runs/search", experiment_ids=[experiment])["runs"]
    return {run["info"]["run_name"]: run for run in runs}


def _flow_run(prefect: str) -> str:
    (flow_run,) = _asked(f"{prefect}/api/flow_runs/filter")
    assert flow_run["name"] == "small-pages"
    return flow_run["id"]


def _asked(address: str, **question: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, data=json.dumps(question).encode(), headers=headers)  # noqa: S310 - ours
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        return json.load(answer)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for taken in sockets:
        taken.bind(("127.0.0.1", 0))
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def _answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
