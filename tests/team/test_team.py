"""A study on a team's servers: everything is there, as in a file of one's own, and no password is anywhere."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
import yaml
from mlflow import MlflowClient

from benchmarks.tracker_load import HEAD
from tasks.tracking.store import database_path
from tests.studies import small_document
from tests.team.servers import WORDS, NoPostgres, Orchestration, Postgres, Tracking, login
from tests.test_cli import Ended, begin, end
from tests.test_server import ask, clean_environ
from tests.trackers import NUMBERS

pytestmark = [pytest.mark.team, pytest.mark.timeout(1800)]

DEPTH, SEEDS = 3, 3

CHECKOUT = Path(__file__).parents[2]

PATIENCE = 600
"""Seconds that a command may take on a machine that is busy with other things."""

UNSAID = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION"}
"""What is set to start sooner here, and a team may leave."""


@dataclass(frozen=True)
class Team:
    """The servers, and a study of Ada's that was run on them.

    Attributes:
        place: a folder for roots.
        first: how her command ended.
        root: where she ran it.
    """

    postgres: Postgres
    tracking: Tracking
    orchestration: Orchestration
    place: Path
    first: Ended
    root: Path

    def shell(self, user: str = "ada", **changes: str | None) -> dict[str, str]:
        """What somebody has in their shell; ``None`` takes a variable away."""
        environ = clean_environ(**login(self.tracking, self.orchestration, user)) | changes
        return {name: word for name, word in environ.items() if word is not None}

    def run(self, name: str, study: str = "small", command: str = "run", **options: Any) -> Ended:
        """``layerwise run``, or another command, to its end, in a root of that name."""
        root = written(self.place / name, study)
        arguments = [f"{study}.yaml"] if command == "run" else [study] if command == "report" else []
        return end(begin(root, command, *arguments, env=self.shell(**options)), PATIENCE)


def written(root: Path, study: str) -> Path:
    """A root with a study in it, whose name is its own."""
    root.mkdir(exist_ok=True)
    (root / f"{study}.yaml").write_text(yaml.safe_dump(small_document(DEPTH, name=study, seeds=SEEDS)))
    return root


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    try:
        postgres = Postgres(safe=False)
    except NoPostgres as reason:
        pytest.skip(str(reason))
    place = tmp_path_factory.mktemp("team")
    with postgres:
        postgres.create("tracking", "users", "orchestration")
        tracking, flows = Tracking(place / "mlflow", postgres), Orchestration(place / "prefect", postgres)
        try:
            tracking.start(wait=False)
            flows.start()
            tracking.wait()
            tracking.admit("ada", "bob")
            root = written(place / "ada", "small")
            process = begin(root, "run", "small.yaml", env=clean_environ(**login(tracking, flows)))
            yield Team(postgres, tracking, flows, place, end(process, PATIENCE), root)
        finally:
            tracking.stop()
            flows.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the same study leaves in a file of one's own."""
    root = written(tmp_path_factory.mktemp("alone"), "small")
    ended = end(begin(root, "run", "small.yaml"), PATIENCE)
    assert (ended.status, ended.err) == (0, "")
    return content(MlflowClient(f"sqlite:///{database_path(root)}"), "small")


def content(client: MlflowClient, study: str) -> dict[str, Any]:
    """What a store holds of a study, read as anybody reads it; ids, times, and who and where left out."""
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    names = {run.info.run_id: run.info.run_name for run in runs}
    models = client.search_logged_models([experiment.experiment_id], max_results=100)
    return {
        "statuses": {run.info.run_name: run.info.status for run in runs},
        "parameters": {run.info.run_name: run.data.params for run in runs},
        "points": {
            (run.info.run_name, key, metric.step): metric.value
            for run in runs
            for key in run.data.metrics
            for metric in client.get_metric_history(run.info.run_id, key)
        },
        "models": {
            (names[model.source_run_id], model.name): (
                str(model.status), model.tags["layerwise.digest"], len(model.metrics or ()),
            )
            for model in models
        },
        "files": {(run.info.run_name, path) for run in runs for path in listed(client, run.info.run_id)},
        "digests": {
            (run.info.run_name, name): digest
            for run in runs
            for name, digest in run.data.tags.items()
            if name.removeprefix("layerwise.artifact.") in NUMBERS
        },
    }  # fmt: skip


def listed(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    """Every artifact of a run."""
    for found in client.list_artifacts(run_id, folder):
        if found.is_dir:
            yield from listed(client, run_id, found.path)
        else:
            yield found.path


@pytest.fixture
def as_ada(team: Team, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A client of the team's tracking server."""
    for name, word in login(team.tracking, team.orchestration).items():
        monkeypatch.setenv(name, word)
    return MlflowClient(team.tracking.url)


def test_everything_is_on_the_servers(team: Team, as_ada: MlflowClient, alone: dict[str, Any]) -> None:
    """Runs, parameters, points at steps, models and files are on the server as in a file of one's own, and closed."""
    assert (team.first.status, team.first.err) == (0, ""), team.first.err
    found = content(as_ada, "small")
    assert found == alone
    assert len(found["points"]) > SEEDS * DEPTH * 4
    assert set(found["statuses"].values()) == {"FINISHED"}
    assert len(found["models"]) == SEEDS * DEPTH
    assert {model[0] for model in found["models"].values()} == {"READY"}
    assert ("study", "report.html") in found["files"]
    (run,) = as_ada.search_runs(
        [as_ada.get_experiment_by_name("small").experiment_id], "tags.`layerwise.kind` = 'study'"
    )
    assert "train_accuracy" in Path(as_ada.download_artifacts(run.info.run_id, "results.csv")).read_text()
    assert team.postgres.rows("tracking", "SELECT count(*) FROM metrics")[0][0] > len(found["points"]) / 2
    assert not (team.root / "mlruns").exists(), "nothing is tracked below the root"


def test_its_flow_run_is_in_prefect(team: Team, as_ada: MlflowClient) -> None:  # noqa: ARG001 - it sets our login
    """The flow run and its tasks are Completed on the team's server; the run starts no server of its own."""
    tasks = team.postgres.rows(
        "orchestration",
        "SELECT f.name, f.state_name, t.name, t.state_type FROM flow_run f JOIN task_run t ON t.flow_run_id = f.id"
        " WHERE f.name = 'small'",
    )
    assert {(flow, state) for flow, state, _, _ in tasks} == {("small", "Completed")}
    assert {state for *_, state in tasks} == {"COMPLETED"}
    assert sum(name.startswith("greedy seeds 0-9") for _, _, name, _ in tasks) >= DEPTH
    assert not (team.root / ".layerwise/prefect/prefect.db").exists()
    assert not (team.root / ".layerwise/prefect/server.log").exists()


@pytest.mark.parametrize("user", ["ada", "bob"])
def test_it_is_answered_from_the_server(team: Team, user: str) -> None:
    """Again, and from anybody's machine, nothing trains: the answer comes from the server, whole."""
    ended = team.run(user, user=user)
    assert (ended.status, ended.err) == (0, "")
    assert f"small was finished before: {SEEDS} seed runs verified, nothing trained." in ended.out
    answer = ended.out.partition("small was finished before")[0].strip()
    assert answer.partition("small, arm greedy")[2]
    assert answer in team.first.out


def test_two_at_once(team: Team, as_ada: MlflowClient) -> None:
    """Two people run two studies at the same moment; both are there, whole, and neither is in the other."""
    roots = {user: written(team.place / f"{user}-at-once", f"by-{user}") for user in ("ada", "bob")}
    both = [begin(root, "run", f"by-{user}.yaml", env=team.shell(user)) for user, root in roots.items()]
    assert [(ended.status, ended.err) for ended in (end(one, PATIENCE) for one in both)] == [(0, ""), (0, "")]
    ours, theirs = content(as_ada, "by-ada"), content(as_ada, "by-bob")
    assert ours == theirs, "the same settings under two names"
    assert set(ours["statuses"].values()) == {"FINISHED"}
    assert len(ours["models"]) == SEEDS * DEPTH
    states = team.postgres.rows("orchestration", "SELECT name, state_name FROM flow_run WHERE name LIKE 'by-%'")
    assert sorted(states) == [("by-ada", "Completed"), ("by-bob", "Completed")]


NOT_LET_IN = {
    "tracking": r"the tracking store http://\S+ does not let us in \(401\): received {}; set MLFLOW_TRACKING_USERNAME"
    r" and MLFLOW_TRACKING_PASSWORD to an account there, or unset MLFLOW_TRACKING_URI\.",
    "prefect": r"PREFECT_API_URL is http://\S+, which does not let us in \(401\): received {}; set it to the server's"
    r" user:password, or unset PREFECT_API_URL to use a server of our own\.",
}

REFUSED = {
    "tracking, wrong word": ({"MLFLOW_TRACKING_PASSWORD": "not her password"}, "the user 'ada'"),
    "tracking, nobody": ({"MLFLOW_TRACKING_USERNAME": None, "MLFLOW_TRACKING_PASSWORD": None}, "no user name"),
    "prefect, wrong word": (
        {"PREFECT_API_AUTH_STRING": "team:not the word"},
        "a PREFECT_API_AUTH_STRING that is not the server's",
    ),
    "prefect, nobody": ({"PREFECT_API_AUTH_STRING": None}, "no PREFECT_API_AUTH_STRING"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_who_is_not_let_in_is_told_in_a_line(team: Team, which: str) -> None:
    """Wrong words and none, of either server, are one line and exit 2 before anything trains, and no word is said."""
    changes, received = REFUSED[which]
    line = NOT_LET_IN[which.partition(",")[0]].format(received)
    ended = team.run("refused", study="never", **changes)
    assert ended.status == 2
    assert re.fullmatch(rf"layerwise: {line}\n", ended.err), ended.err
    assert ended.out == ""
    assert not list((team.place / "refused/.layerwise/results").iterdir())
    assert not spoken(ended.out + ended.err, *filter(None, changes.values()))


def test_a_word_in_the_address_is_taken_and_not_said(team: Team, as_ada: MlflowClient) -> None:
    """MLflow's address may hold name and word; neither the command's words nor its tags repeat the word."""
    changes = {"MLFLOW_TRACKING_USERNAME": None, "MLFLOW_TRACKING_PASSWORD": None}
    for word, status in (("not his password", 2), (WORDS["bob"], 0)):
        changes["MLFLOW_TRACKING_URI"] = team.tracking.url.replace("://", f"://bob:{quote(word)}@")
        ended = team.run("in-address", study="in-address", **changes)
        assert ended.status == status, ended.err
        assert not spoken(ended.out + ended.err, word)
        assert "the user 'bob'" in ended.err or not status
    assert set(content(as_ada, "in-address")["statuses"].values()) == {"FINISHED"}


@pytest.fixture(scope="module")
def readers(team: Team) -> Iterator[tuple[Tracking, Path]]:
    """Another server on the same database, with the place of its artifacts: all reach that, and may only read."""
    shared = team.place / "shared-past"
    server = Tracking(team.place / "past", team.postgres, artifacts=shared.as_uri(), permission="READ")
    try:
        yield server.start(), shared
    finally:
        server.stop()


def by_address(
    team: Team, study: str, patched: pytest.MonkeyPatch, **changes: str
) -> tuple[tuple[Ended, Ended], dict[str, Any]]:
    """How Ada's run ended and Bob's after it, and what they left."""
    ended = team.run(f"ada-{study}", study=study, **changes)
    again = team.run(f"bob-{study}", study=study, user="bob", **changes)
    for variable, word in (login(team.tracking, None) | changes).items():
        patched.setenv(variable, word)
    return (ended, again), content(MlflowClient(changes["MLFLOW_TRACKING_URI"]), study)


def whole(both: tuple[Ended, Ended], shared: Path) -> bool:
    """Make sure that both commands ended well, the second without training, and that the models are in their place."""
    assert [(ended.status, ended.err) for ended in both] == [(0, ""), (0, "")]
    assert "nothing trained" in both[1].out
    return len(list(shared.rglob("model.keras"))) == SEEDS * DEPTH


def test_the_database_itself(team: Team, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server in between, and with an address for artifacts that all share, everything is the same."""
    shared, database = team.place / "shared-direct", team.postgres.uri("tracking")
    changes = {"MLFLOW_TRACKING_URI": database, "MLFLOW_DEFAULT_ARTIFACT_ROOT": shared.as_uri()}
    both, found = by_address(team, "direct", monkeypatch, **changes)
    assert whole(both, shared)
    assert found == alone


def test_artifacts_past_the_server(
    team: Team, readers: tuple[Tracking, Path], alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may name an address for artifacts, to which they go without it; everything else is the same."""
    server, shared = readers
    both, found = by_address(team, "past", monkeypatch, MLFLOW_TRACKING_URI=server.url)
    assert whole(both, shared)
    assert found == alone


def test_who_may_only_read_is_told_in_a_line(team: Team, readers: tuple[Tracking, Path]) -> None:
    """Who may read a study, and not write to it, is refused in a line before anything trains that would add to it."""
    server, _ = readers
    assert team.run("ada-past", study="past", MLFLOW_TRACKING_URI=server.url).status == 0
    place = written(team.place / "bob-adds", "past")
    shell = team.shell("bob", MLFLOW_TRACKING_URI=server.url)
    ended = end(begin(place, "run", "past.yaml", "--seeds", "4", env=shell), PATIENCE)
    assert ended.err == (
        f"layerwise: opening the runs of 'past' failed: our account may not do that at {server.url} (403); ask who runs"
        " the server for the permission EDIT there, or rename the study.\n"
    )
    assert (ended.status, ended.out) == (2, "")
    assert len(list((place / ".layerwise/results").iterdir())) == 1, "the data, and nothing that was trained on them"


def test_nobody_goes_around_the_server_to_its_artifacts(team: Team) -> None:
    """A study whose artifacts the server hands out is refused, in a line, to who opens the server's database."""
    ended = team.run("around", MLFLOW_TRACKING_URI=team.postgres.uri("tracking"))
    line = (
        r"layerwise: the artifacts of 'small' go through a tracking server, and MLFLOW_TRACKING_URI names its database;"
        r" name the server there, http\(s\)://…, or rename the study\.\n"
    )
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(line, ended.err), ended.err


def test_a_database_that_cannot_be_used_is_told_in_a_line(team: Team) -> None:
    """A wrong word for the database, and a driver that is not there, are one line without the address's word."""
    right = team.postgres.uri("tracking")
    for uri, line in (
        (
            team.postgres.uri("tracking", word="not/the word"),
            r'.+ password authentication failed for user "tracking"\); .+',
        ),
        (right.replace("+psycopg2", "+asyncpg2"), r".+ cannot be used .+; .+"),
        (
            right.replace("+psycopg2", "+psycopg"),
            r".+ \(No module named 'psycopg'\); install that, or .+ postgresql\+psycopg2://\.",
        ),
    ):
        ended = team.run("no-database", study="never", MLFLOW_TRACKING_URI=uri)
        assert (ended.status, ended.out) == (2, "")
        assert re.fullmatch(rf"layerwise: the tracking store postgresql{line}\n", ended.err), ended.err
        assert not spoken(ended.err, "not/the word")


def test_pages_reports_and_doctor_know_the_servers(team: Team) -> None:
    """`ui` names the team's pages and starts none, `report` reads from the server, `doctor` looks at it."""
    pages = team.run("ada", command="ui")
    assert (pages.status, pages.err) == (0, "")
    assert f"MLflow   {team.tracking.url} " in pages.out
    assert f"Prefect  {team.orchestration.page}/runs " in pages.out
    report = team.run("bob", command="report", user="bob")
    assert (report.status, report.err) == (0, "")
    assert (team.place / "bob/mlruns/reports").is_dir()
    assert "the server that MLFLOW_TRACKING_URI names answers" in team.run("ada", command="doctor").out


def test_the_documented_profile_is_the_tested_one(team: Team) -> None:
    """Every variable and option that these servers and people are started with is in docs/team.md."""
    said = (CHECKOUT / "docs/team.md").read_text()
    people = login(team.tracking, team.orchestration)
    started = {*team.tracking.settings, *team.orchestration.settings, *people, *team.tracking.options}
    assert [name for name in sorted(started - UNSAID) if name not in said] == []


def test_prefect_asks_for_word_token_and_origin(team: Team) -> None:
    """The profile is in force: no word, no answer; no token, no change; no leave for pages from elsewhere."""
    url, theirs = f"{team.orchestration.url}/flow_runs/filter", "http://elsewhere.example"
    with pytest.raises(HTTPError, match="401") as refused:
        ask(f"{team.orchestration.url}/admin/version", login="team:not the word")
    refused.value.close()
    with pytest.raises(HTTPError, match="403") as refused:
        ask(url, {}, login=WORDS["prefect"])
    refused.value.close()
    allowed = {}
    for origin in (team.orchestration.page, theirs):
        request = urllib.request.Request(f"{team.orchestration.url}/health", headers={"Origin": origin})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own
            allowed[origin] = answer.headers.get("Access-Control-Allow-Origin")
    assert allowed == {team.orchestration.page: team.orchestration.page, theirs: None}


def test_a_load_is_put_on_a_server_and_measured(team: Team) -> None:  # noqa: ARG001 - without PostgreSQL it is skipped
    """What the load test publishes is there when it is read back; its copies fill the tables, and it ends by itself."""
    asked = ["--runs", "40", "--seeds", "2", "--copies", "1", "--models", "2"]
    command = [sys.executable, "-m", "benchmarks.tracker_load", *asked]
    environ = clean_environ()
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=PATIENCE)
    rows = [line.split("|")[1:-1] for line in ended.stdout.splitlines() if re.match(r"\| [0-9]", line)]
    assert [row[0].strip() for row in rows] == ["10", "30"]
    assert all(len(row) == len(HEAD) and float(cell.replace(",", "")) >= 0 for row in rows for cell in row)
    assert f"metrics {2 * 2 * 10 * 5 * 8:,} rows" in ended.stdout, "two repeats, each copied once"


def test_no_word_is_written_anywhere(team: Team) -> None:
    """What all of these runs left in databases, logs, artifacts and roots holds nobody's password."""
    assert spoken(f"x {base64.b64encode(WORDS['prefect'].encode()).decode()} x {quote(WORDS['bob'])}") == [
        "bob",
        "prefect",
    ]
    looked = 0
    for database in ("tracking", "orchestration"):
        assert spoken(team.postgres.dump(database)) == []
    for path in team.place.rglob("*"):
        if path.is_file() and path.name != "basic_auth.ini":
            assert spoken(path.read_bytes().decode(errors="replace")) == [], path
            looked += 1
    assert looked > SEEDS * DEPTH * 10


def spoken(text: str, *more: str) -> list[str]:
    """Whose password a text holds: as it is, as an address has it, or as a header has it."""
    words = WORDS | {word: word for word in more}
    logins = {"ada": f"ada:{WORDS['ada']}", "bob": f"bob:{WORDS['bob']}"}
    return sorted(
        who
        for who, word in words.items()
        if any(
            form in text
            for form in (
                word, quote(word), quote(word, safe=""), json.dumps(word)[1:-1],
                base64.b64encode(logins.get(who, word).encode()).decode(),
            )
        )
    )  # fmt: skip
