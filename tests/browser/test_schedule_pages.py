"""Prefect's pages of a schedule in a real browser: deployment, form of parameters, a slot, and its verdict."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENCE
from tests.serving import TERMINAL, Service, serving, wait_for, write_schedules

playwright = pytest.importorskip("playwright.sync_api", reason="the playwright package is not installed")
expect = playwright.expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

SHOTS = os.environ.get("LAYERWISE_SCREENSHOTS")
"""A folder in which to keep what was seen, for a person to look at."""


@pytest.fixture(scope="module")
def service(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:  # noqa: ARG001 - it is asked for first
    """A schedule of which one slot has run, started by hand; the next one is due in the night."""
    root = tmp_path_factory.mktemp("root")
    write_schedules(root, cron="0 2 * * *", timezone="Europe/Berlin", name="nightly tiny")
    with serving(root) as found:
        slot = found.start_one()
        wait_for(lambda: found.slot(slot)["state"]["type"] in TERMINAL, "the slot")
        assert found.slot(slot)["state"]["name"] == "Completed", found.slot(slot)["state"]
        yield found


@pytest.fixture
def page(page: Any, service: Service, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, which has said who it is."""
    page.goto(f"http://127.0.0.1:{service.port}/deployments")
    page.locator("input[type=password]").fill(service.login)
    page.keyboard.press("Enter")
    expect(page.get_by_text("nightly tiny").first).to_be_visible(timeout=PATIENCE)
    yield page
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{request.node.name}.png", full_page=True)


def at(service: Service, path: str) -> str:
    """The address of a page."""
    return f"http://127.0.0.1:{service.port}/{path}"


def test_deployment_page_shows_the_times_and_what_was_taken_in(service: Service, page: Any) -> None:
    """The schedule in words, the next slot by its name, and the study's digest with the day it was taken in."""
    deployment = f"deployments/deployment/{service.deployment['id']}"
    wait_for(lambda: all(" · " in run["name"] for run in service.ask("flow_runs/filter")[:3]), "slots to be named")
    page.goto(at(service, deployment))
    expect(page.get_by_text("At 02:00 AM every day").first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(re.compile(r"^tiny · \d{8}T0[01]0000Z$")).first).to_be_visible(timeout=PATIENCE)
    page.goto(at(service, f"{deployment}?tab=Description"))
    expect(page.get_by_text(service.deployment["description"].split("`")[3])).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("Does the night shift work?")).to_be_visible()
    expect(page.get_by_text(re.compile("as it was taken in on"))).to_be_visible()


def test_the_form_of_parameters_holds_the_study(service: Service, page: Any) -> None:
    """A run by hand is asked for in a form that holds the study's own settings, each with its meaning."""
    page.goto(at(service, f"deployments/deployment/{service.deployment['id']}/run"))
    expect(page.get_by_text("the study, as it was taken in when its schedule was started.")).to_be_visible(
        timeout=PATIENCE
    )
    page.wait_for_function("() => [...document.querySelectorAll('textarea')].some(box => box.value === 'tiny')")
    for words in ("whether a claim that is not supported fails the run", "empty for one named by the time of the slot"):
        expect(page.get_by_text(re.compile(words)).first).to_be_attached()


def test_a_slots_page_shows_its_verdict(service: Service, page: Any) -> None:
    """The slot is a study's run with its tasks, and the artifact says what it was judged against."""
    (slot,) = service.slots()
    page.goto(at(service, f"runs/flow-run/{slot['id']}?tab=Artifacts"))
    expect(page.get_by_text(slot["name"]).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(re.compile("FIRST: nothing had been accepted")).first).to_be_visible(timeout=PATIENCE)
    (artifact,) = [one for one in service.ask("artifacts/filter") if one["flow_run_id"] == slot["id"]]
    page.goto(at(service, f"artifacts/artifact/{artifact['id']}"))
    heading = page.get_by_role("heading", name=re.compile(r"^tiny:\d{8}T\d{6}Z: FIRST$"))
    expect(heading).to_be_visible(timeout=PATIENCE)


def test_automations_are_listed(service: Service, page: Any) -> None:
    """Whoever looks finds that dead runs are marked, and by what."""
    page.goto(at(service, "automations"))
    expect(page.get_by_text("Layerwise: a run that says nothing any more has crashed")).to_be_visible(timeout=PATIENCE)
