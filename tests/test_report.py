"""The report: what stands in it for every kind of study, that it is sound HTML and Markdown, and the same each time."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from layerwise import comparison, report, statistics
from layerwise.claims import decide
from layerwise.report import Notice, Page, Paragraph, Section, StudyRun, Table, badge, code, strong
from layerwise.report.wording import training_in_words
from layerwise.study import Blobs, Study, load, parse
from layerwise.study.scores import is_tuned
from tests.studies import small

CLEAN = {
    "git_commit": "c0ffee" * 6 + "c0ff",
    "git_changes": "none",
    "lock_digest": "10cc" * 8,
    "version": "0.1.0",
    "version.keras": "3.15.1",
    "machine": "Linux x86_64 A Processor",
    "cores": "2",
    "threads": "2",
    "run_key": "5eed" * 8,
}
ENCODER = {"objective": "reconstruction"}
TWO = {
    "one": ENCODER,
    "other": {**ENCODER, "fine_tune": {"epochs": 2}},
    "scratch": {"control": "scratch", "of": "other"},
}
CLAIMS = {
    "other_wins": {"kind": "compare", "arm": "other", "metric": "test_accuracy", "above": "scratch"},
    "one_is_like_it": {"kind": "equivalent", "arm": "one", "metric": "test_accuracy", "to": "other", "within": 0.02},
    "one_rises": {"kind": "trend", "arm": "one", "metric": "train_accuracy", "direction": "up"},
    "none_high": {"kind": "bound", "arm": "one", "metric": "test_accuracy", "at_most": 0.99},
    "seldom": {"kind": "rate", "outcome": "collapsed", "arm": "one", "at_most": 0.5},
    "steady": {"kind": "ratio", "arm": "one", "metric": "test_accuracy", "to": "other", "within": 3},
    "in_order": {"kind": "ordered", "arms": ["one", "other", "scratch"], "metric": "test_accuracy", "direction": "up"},
}
VOID = {"meta", "link", "br", "img", "hr", "input"}


def scored(study: Study, *, diverged: int = 0, collapsed: int = 0, level: float = 0.8) -> pd.DataFrame:
    """Scores such as a run gives: of each arm's seeds the first diverged and the last collapsed, as many as said."""
    rng, rows = np.random.default_rng(1), []
    score = "accuracy" if study.data.task == "classification" else "r2"
    parts = ["train", "test", *(["validation"] if study.data.split.validation else [])]
    for place, arm in enumerate(study.arms):
        asked = study.procedure(arm)
        for depth in asked.depths:
            for seed in range(study.seeds):
                lost = seed < diverged
                row: dict[str, Any] = {"arm": arm, "seed": seed, "depth": depth, "diverged": lost}
                row["collapsed"] = not lost and seed >= study.seeds - collapsed
                names = [f"{part}_{name}" for part in parts for name in (score, "loss")]
                names += ["test_mae"] if score == "r2" else []
                made = {name: level + place / 100 + depth / 1000 + rng.normal(0, 0.01) for name in names}
                if asked.objective == "reconstruction":
                    made |= {f"{part}_reconstruction_mse": abs(rng.normal(0.1, 0.01)) for part in parts}
                    made["reconstruction_r2"] = 0.9
                made |= {"live_units": 9.0, "effective_rank": 4.5}
                row |= {name: np.nan if lost else value for name, value in made.items()}
                if is_tuned(asked, depth):
                    tuned = {"diverged": lost, "collapsed": row["collapsed"]}
                    tuned |= {name: row[name] + 0.01 for name in names}
                    row |= {f"fine_tuned_{name}": value for name, value in tuned.items()}
                rows.append(row)
    return pd.DataFrame(rows)


def costs(study: Study) -> pd.DataFrame:
    """What stages took: known for the first, not for the second."""
    arm = next(iter(study.arms))
    others = ", ".join(list(study.arms)[1:])
    rows = [(arm, others, "base", 1, 2, 1.5, 2e8), (arm, "", "add_layer", 2, 2, np.nan, np.nan)]
    names = ["arm", "shared_with", "stage", "depth", "blocks", "seconds", "peak_memory_bytes"]
    return pd.DataFrame(rows, columns=names)


def run_of(study: Study, metrics: pd.DataFrame | None = None, **said: Any) -> StudyRun:
    """A run of a study with such scores."""
    metrics = scored(study) if metrics is None else metrics
    found = comparison.all_differences(study, metrics) if len(study.arms) > 1 else []
    parts = {
        "table": statistics.summarise(metrics),
        "verdicts": decide(study, metrics).as_json() if study.claims else None,
        "differences": comparison.as_table(found) if found else None,
        "costs": costs(study),
        "origin": CLEAN,
        "data_digest": "da7a" * 8,
    }
    return StudyRun(study, metrics, **parts | said)


def several() -> Study:
    """Three arms, one of them fine-tuned and one a control, a claim of every kind, and a validation part."""
    data = {"source": "blobs", "samples": 120, "split": {"train": 70, "validation": 20, "test": 30}}
    return small(depth=2, seeds=8, data=data, arms=TWO, claims=CLAIMS, question="Does it help?")


def regression() -> Study:
    return small(depth=2, seeds=6, data={"source": "diabetes"}, arms={"greedy": "greedy", "end_to_end": "end_to_end"})


def stopping() -> StudyRun:
    claims = {"wins": {"kind": "compare", "arm": "other", "metric": "test_accuracy", "above": "scratch"}}
    study = small(depth=2, seeds=30, arms=TWO, claims=claims, stop={"every": 10})
    metrics = scored(study)
    return run_of(study, metrics[metrics["seed"] < 20])


def growing() -> StudyRun:
    """Two arms of up to four layers that grew to the second, and so did the control."""
    data = {"source": "blobs", "samples": 120, "split": {"train": 70, "validation": 20, "test": 30}}
    arms = {"one": {}, "random": {"control": "random_frozen", "of": "one"}}
    study = small(depth=4, seeds=20, data=data, arms=arms, grow={"worth": 0.5, "seeds": 10})
    metrics = scored(study)
    return run_of(study, metrics[metrics["depth"] <= 2].reset_index(drop=True))


KINDS: dict[str, Callable[[], StudyRun]] = {
    "one arm": lambda: run_of(small(seeds=4)),
    "several arms and every kind of claim": lambda: run_of(several()),
    "twelve arms": lambda: run_of(load("narrow-layers", seeds=6)),
    "one depth": lambda: run_of(small(depth=1, seeds=3)),
    "one seed": lambda: run_of(small(seeds=1, arms=TWO)),
    "numbers to predict": lambda: run_of(regression()),
    "collapsed and diverged": lambda: run_of(several(), scored(several(), diverged=2, collapsed=3)),
    "all diverged": lambda: run_of(several(), scored(several(), diverged=8)),
    "all collapsed": lambda: run_of(several(), scored(several(), collapsed=8)),
    "ended by its claims": stopping,
    "grown by rule": growing,
    "nothing known of its origin": lambda: run_of(small(), origin={}, costs=None, data_digest=""),
    "an arm is missing": lambda: run_of(several(), without(several(), "scratch"), verdicts=None),
    "images": lambda: run_of(load("conv-digits", seeds=2)),
}
"""What a report may be of."""


def without(study: Study, arm: str) -> pd.DataFrame:
    metrics = scored(study)
    return metrics[metrics["arm"] != arm]


@dataclass(frozen=True)
class Made:
    """A run, its page, and both forms of it."""

    run: StudyRun
    page: Page
    html: str
    text: str


@functools.cache
def made(kind: str) -> Made:
    """The report of a kind of study, made once."""
    run = KINDS[kind]()
    page = report.study_page(run)
    return Made(run, page, report.html(page), report.markdown(page))


@pytest.fixture(params=KINDS)
def done(request: pytest.FixtureRequest) -> Made:
    return made(request.param)


class Read(HTMLParser):
    """A page as a browser reads it: its text, and what is wrong with its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: Counter[str] = Counter()
        self.references: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.feed(text)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        names = [name for name, _ in attrs]
        self.wrong += [f"{tag} {name} twice" for name, count in Counter(names).items() if count > 1]
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            elif name in {"href", "src", "xlink:href", "aria-labelledby"}:
                self.references.append(value or "")
            self.references += [f"#{found}" for found in re.findall(r"url\(#([^)]+)\)", value or "")]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.text += "" if self.open and self.open[-1] == "style" else data


def words(run: StudyRun) -> str:
    """What a report says, with single spaces."""
    shown = MarkdownIt("commonmark").enable("table").render(report.markdown(report.study_page(run)))
    return " ".join(Read(shown).text.split())


def section(run: StudyRun, title: str) -> str:
    """What a section of the Markdown says."""
    return report.markdown(report.study_page(run)).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def cells(text: str) -> list[list[str]]:
    """The rows of the tables of a Markdown text."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows]


# --- of every kind of study ----------------------------------------------------------------------------------


def test_a_report_is_one_sound_page(done: Made) -> None:
    """Every element is closed in its order, every id is there once, and every reference leads to one of them."""
    read = Read(done.html)
    assert done.html.startswith("<!DOCTYPE html>")
    assert read.wrong == []
    assert [name for name, count in read.ids.items() if count > 1] == []
    known = {f"#{name}" for name in read.ids} | set(read.ids)
    assert [found for found in read.references if found not in known] == []
    assert read.tags["svg"] == len(list(done.page.drawings())) >= 2


def test_a_report_needs_nothing_else(done: Made) -> None:
    """No script, and no address of anything outside: the page can be sent as it is, and read offline."""
    assert Read(done.html).tags.keys().isdisjoint({"script", "link", "img", "iframe", "object", "embed", "image"})
    addresses = set(re.findall(r"\w+://[^\"'\s<)]+", done.html))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "the name of a format, which nothing fetches"
    assert "@import" not in done.html


def test_a_report_can_be_made_from_its_tables(done: Made) -> None:
    """What was written as CSV and JSON, and read again, gives the very same bytes: equal runs have equal reports."""

    def again(table: pd.DataFrame | None) -> pd.DataFrame | None:
        return None if table is None else pd.read_csv(io.StringIO(table.to_csv(index=False)))

    run = done.run
    tables = {name: again(getattr(run, name)) for name in ("metrics", "table", "differences", "costs")}
    verdicts = json.loads(json.dumps(run.verdicts))
    back = dataclasses.replace(run, study=parse(run.study.canonical()), verdicts=verdicts, **tables)
    assert report.markdown(report.study_page(back)) == done.text
    if done is made("several arms and every kind of claim"):  # all figures that there are
        assert report.html(report.study_page(back)) == done.html


def test_a_page_is_rendered_the_same_each_time() -> None:
    """Nothing is used up by rendering, and nothing hangs on the time."""
    done = made("one arm")
    assert report.html(done.page) == done.html
    assert report.markdown(done.page) == done.text


def test_a_report_says_only_what_is_known(done: Made) -> None:
    """Where a number is missing there is a dash; no NaN, None or template mark is on the page or in the Markdown."""
    for text in (Read(done.html).text, done.text):
        assert re.findall(r"\b(?:nan|NaN|None|<NA>|inf)\b|\{\{|\}\}|\{%", text) == []


def test_markdown_tables_are_tables(done: Made) -> None:
    """Every line of a table has as many cells as its head, so that pages show it as one."""
    shown = MarkdownIt("commonmark").enable("table").render(done.text)
    tables = [block for block in _blocks(done.page) if isinstance(block, Table)]
    seen = [table.split("<tr>")[1:] for table in re.findall(r"<table>.*?</table>", shown, re.DOTALL)]
    assert [len(rows) - 1 for rows in seen] == [len(table.rows) for table in tables]
    for rows, table in zip(seen, tables, strict=True):
        assert {len(re.findall("<t[hd]", row)) for row in rows} == {len(table.columns)}
    assert "|:--" not in shown


def _blocks(page: Page) -> list[Any]:
    found: list[Any] = []
    for part in page.sections:
        for block in part.blocks:
            found += [block, *getattr(block, "blocks", ())]
    return found


def test_parts_come_in_the_order_in_which_a_reviewer_reads() -> None:
    """Question, answer, claims, what was trained, figures, numbers, cost, origin, caveats, and the study at the end."""
    page = report.study_page(run_of(several()))
    assert (page.title, page.lead) == ("small", "Does it help?")
    assert [part.title for part in page.sections] == [
        "Answer",
        "Claims",
        "What was trained",
        "Figures",
        "Results",
        "Differences between arms",
        "Outcomes",
        "Depth to keep",
        "Time and memory",
        "Reproduction",
        "How to read this",
        "Study file",
    ]
    links = [found for found in Read(report.html(page)).references if found.startswith("#answer")]
    assert links == ["#answer"]


# --- what it says ----------------------------------------------------------------------------------------------


def test_verdicts_are_said_in_words_first() -> None:
    """The answer counts the verdicts and names each with its sentence; a card has its numbers, p and seeds needed."""
    run = run_of(several())
    verdicts = {one["claim"]: one for one in run.verdicts["verdicts"]}
    answer, told = section(run, "Answer"), section(run, "Claims")
    count = Counter(one["verdict"] for one in verdicts.values())
    assert re.match(rf"\s*Of 7 claims, {count['supported']} supported", answer)
    for name, one in verdicts.items():
        assert f"- **{one['verdict']}** {one['sentence'][0].upper()}{one['sentence'][1:]}." in answer
        card = told.partition(f"### {name}: {one['verdict']}\n")[2].partition("\n### ")[0]
        assert "after Holm over 7 claims" in card
        row = next(row for row in cells(card) if row[1] == str(one["evidence"][0]["seeds"]))
        assert row[2] == f"{one['evidence'][0]['estimate']:.4f}"
        assert ("seeds needed" in card) == (one["verdict"] == "undecided")


def test_a_study_without_claims_decides_nothing() -> None:
    """It says so, and has no section of claims."""
    run = run_of(small(seeds=4))
    assert "claims nothing beforehand" in section(run, "Answer")
    assert section(run, "Claims") == ""


def test_numbers_are_those_of_the_tables() -> None:
    """Each row of results has the counts, mean, interval, sd and median of its arm, network and depth."""
    study = several()
    run = run_of(study, scored(study, diverged=1, collapsed=2))
    rows = {tuple(row[:3]): row[3:] for row in cells(section(run, "Results")) if len(row) == 15}
    found = run.table[(run.table["arm"] == "other") & (run.table["depth"] == 2)].iloc[0]
    assert rows["other", "fine-tuned", "2"][:4] == ["8", "1", "2", "5"]
    expected = [found[f"fine_tuned_test_accuracy_{name}"] for name in ("mean", "sd", "median")]
    shown = rows["other", "fine-tuned", "2"]
    assert [shown[6], shown[9], shown[11]] == [f"{value:.4f}" for value in expected]
    own = comparison.finished(run.metrics)
    own = own[(own["arm"] == "other") & (own["depth"] == 2) & ~own["diverged"] & ~own["collapsed"]]
    described = statistics.describe(own["test_accuracy"].to_numpy(float))
    assert shown[8] == f"{described.bootstrap_low:.4f} to {described.bootstrap_high:.4f}"
    assert shown[10] == f"{described.interquartile_mean:.4f}"
    assert (
        shown[7] == f"{found['fine_tuned_test_accuracy_ci_low']:.4f} to {found['fine_tuned_test_accuracy_ci_high']:.4f}"
    )
    assert ("other", "before tuning", "2") in rows
    assert ("other", "as trained", "1") in rows
    assert ("scratch", "as trained", "2") in rows


def test_differences_are_those_of_the_tables_and_say_what_was_claimed() -> None:
    """Each pair has its n, mean, intervals, spread, P(A>B), effect size, p-values and correlation, and its status."""
    run = run_of(several())
    text = section(run, "Differences between arms")
    far, sure = (
        {tuple(row[:2]): row[2:] for row in cells(part) if row[0] == "other minus scratch" or row[-1] == "explored"}
        for part in text.split("**How sure")
    )
    assert run.differences is not None
    row = run.differences.query("arm == 'other' and minus == 'scratch' and metric == 'test_accuracy'").iloc[0]
    shown = far["other minus scratch", "2"]
    assert shown[0] == "8"
    assert shown[1] == f"{row['mean']:+.4f}"
    assert shown[2] == f"{row['ci_low']:+.4f} to {row['ci_high']:+.4f}"
    assert shown[3] == f"{row['bootstrap_low']:+.4f} to {row['bootstrap_high']:+.4f}"
    assert shown[4:6] == [f"{row['sd']:.4f}", f"{row['interquartile_mean']:+.4f}"]
    assert shown[-1] == "claimed"
    assert sure["other minus scratch", "2"][1] == f"{row['probability']:.2f}"
    assert sure["other minus scratch", "2"][3] == f"{row['effect_size']:.2f}"
    assert sure["other minus scratch", "2"][6] == f"{row['correlation']:.2f}"
    assert far["one minus other", "1"][-1] == "explored", "the claim is of the last depth"


def test_outcomes_are_counted_and_compared() -> None:
    """Diverged and collapsed seeds have rates with intervals, pairs McNemar's p; without any, a sentence says so."""
    study = several()
    metrics = scored(study)
    metrics.loc[(metrics["arm"] == "one") & (metrics["seed"] < 6), "collapsed"] = True
    told = section(run_of(study, metrics), "Outcomes")
    assert ["one", "as trained", "1", "8", "0", "0.00 (0.00 to 0.32)", "6", "0.75 (0.41 to 0.93)"] in cells(told)
    assert ["one minus other", "1", "6", "0", ".0312"] in cells(told)
    assert "No seed diverged or collapsed, in any arm at any depth." in section(run_of(study), "Outcomes")


def test_depth_is_chosen_by_validation_alone() -> None:
    """With a validation part every arm has the depth it chooses; without one nothing is chosen; test never chooses."""
    told = section(run_of(several()), "Depth to keep")
    assert [row[0] for row in cells(told)[1:]] == ["one", "other", "scratch"]
    plain = section(run_of(small(seeds=4)), "Depth to keep")
    assert "no validation part, so no depth, arm or model is selected by its score" in plain
    for text in (told, plain):
        assert "Nothing selects on the test part" in text


def test_time_and_memory_are_told_as_far_as_they_are_known() -> None:
    """Stages have blocks, time, peak memory and who shares them; of a run from before, that nothing was recorded."""
    told = section(run_of(several()), "Time and memory")
    assert ["one", "first hidden layer", "1", "2", "1.5 s", "1.5 s", "200 MB", "other, scratch"] in cells(told)
    assert ["one", "added hidden layer", "2", "2", "-", "-", "-"] in cells(told)
    assert "Not every stage's time is known; the process held at most 200 MB" in told
    assert "was not recorded" in section(run_of(small(), costs=None), "Time and memory")


@pytest.mark.parametrize(
    ("changed", "claimed"),
    [
        ({}, "This run claims **R0, the same bits**:"),
        (
            {"git_changes": "c0de"},
            "R0, the same bits, for its code had changes that no commit has",
        ),
        (
            {"stage_code": '{"c0de": 2, "f00d": 3}'},
            "R0, the same bits, for its stages were not all computed by the same code",
        ),
        ({"git_commit": None}, "R0, the same bits, for the commit that made it is not known"),
        ({"lock_digest": None}, "R0, the same bits, for the lock file of its libraries is not known"),
    ],
)
def test_a_run_claims_the_bits_that_others_can_have(changed: dict[str, str | None], claimed: str) -> None:
    """R0 takes a commit without changes and a lock file; R1 was not measured, and one run shows nothing of R2."""
    origin = {key: value for key, value in {**CLEAN, **changed}.items() if value is not None}
    told = section(run_of(several(), origin=origin), "Reproduction")
    assert claimed in told
    assert ("This run claims **no level of reproducibility**:" in told) == bool(changed)
    assert "**Not claimed:** R1" in told
    assert "**Not claimed:** R2, the same verdicts with fresh seeds: one run cannot show that." in told
    nothing = section(run_of(small(seeds=3), origin=origin | {"git_changes": "c0de"}), "Reproduction")
    assert "This run claims **no level of reproducibility**:" in nothing
    assert "fresh seeds: no claim has been decided." in nothing


@pytest.mark.parametrize(
    ("study", "command"),
    [
        (lambda: load("few-labels"), "layerwise run few-labels --repeat again"),
        (lambda: load("few-labels", seeds=6), "layerwise run few-labels --seeds 6 --repeat again"),
        (lambda: load("few-labels", overrides=["training.epochs=3"]), "layerwise run study.yaml --repeat again"),
        (small, "layerwise run study.yaml --repeat again"),
    ],
)
def test_the_command_makes_the_same_study(study: Callable[[], Study], command: str) -> None:
    """A ready-made study is asked for by name, with its number of seeds if that is another; any other as its file."""
    asked = study()
    told = section(run_of(asked), "Reproduction")
    assert f"git checkout {CLEAN['git_commit']}\n{command}\n" in told
    file = section(run_of(asked), "Study file")
    assert parse(yaml.safe_load(file.partition("```\n")[2].partition("\n```")[0])) == asked


def test_what_was_trained_is_said_arm_by_arm() -> None:
    """Objective, noise, controls, layers, settings, labels, parts and stages stand in words."""
    run = run_of(load("few-labels", seeds=3))
    told = section(run, "What was trained")
    assert "digits: 1,797 rows, 64 features, 10 classes" in told
    assert "1,200 training and 597 test rows; each seed draws its own" in told
    arms = {row[0]: row[1:] for row in cells(told)}
    assert arms["denoising_tuned"][0] == (
        "greedy, layer by layer, on reconstruction, with masking noise, 25 %; 30 labelled rows"
    )
    assert arms["scratch"][0].startswith("control of denoising_tuned: all layers at once from initial weights")
    assert arms["scratch"][1:] == ["2 x dense 128 relu (he_uniform)", "2"]
    how = training_in_words(run.study.training)
    assert arms["hidden layers 1 to 2"] == [f"{how}; masking noise, 25 %", "denoising_tuned, denoising_frozen"]


@pytest.mark.parametrize("control", ["end_to_end", "random_frozen", "scratch", "permuted"])
def test_controls_are_said_in_words(control: str) -> None:
    """Each control says what it trains, and no stage that it does not have."""
    arms = {"tuned": {**ENCODER, "fine_tune": {"epochs": 7}}, "control": {"control": control, "of": "tuned"}}
    told = section(run_of(small(depth=2, seeds=2, arms=arms)), "What was trained")
    stages = {row[0] for row in cells(told) if row[-1] in {"control", "every arm", "tuned, control"}}
    expected = {
        "end_to_end": {"all layers at once", "head on frozen features", "fine tuning of all weights"},
        "random_frozen": {"head on frozen features"},
        "scratch": {"all layers at once"},
        "permuted": {"hidden layers 1 to 2", "head on frozen features", "fine tuning of all weights"},
    }[control]
    assert stages == expected
    assert "control of tuned: " in told


# --- what must not be missed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda: run_of(small(seeds=1)), "One seed. It has no spread, no interval and no test"),
        (lambda: run_of(small(seeds=3)), "3 seeds. No difference of two arms can be significant at .05"),
        (lambda: run_of(small(seeds=3)), "its smallest p-value is .2500"),
        (lambda: run_of(load("few-labels", seeds=6)), "Too few seeds. tuned_beats_scratch cannot be supported or"),
        (KINDS["an arm is missing"], "Incomplete. Not all was trained of scratch (0 seeds at its last depth)"),
        (KINDS["an arm is missing"], "The claims are not decided: that takes every seed of every arm."),
        (KINDS["ended by its claims"], "20 seeds of every arm, 10 side by side; at most 30, with looks at the claims"),
        (KINDS["ended by its claims"], "divided by 3 looks (10, 20 and 30 seeds)"),
        (KINDS["all diverged"], "0 of 8"),
        (
            KINDS["all diverged"],
            "No seed is intact at the last depth of one, other and scratch: all diverged or collapsed",
        ),
        (
            KINDS["all collapsed"],
            "No seed is intact at the last depth of one, other and scratch: all diverged or collapsed",
        ),
        (
            KINDS["grown by rule"],
            "one: grew to depth 2 of at most 4, settled by the first 10 seeds: its last layer gained",
        ),
        (KINDS["grown by rule"], "an arm ends with the first layer that its first 10 seeds show to gain less than 0.5"),
        (KINDS["grown by rule"], "The first 10 seeds settled how deep arms grew, by their validation scores."),
    ],
)
def test_notices_stand_first(run: Callable[[], StudyRun], expected: str) -> None:
    """One seed, too few, missing arms, an early end and the loss of all seeds are said where they matter."""
    assert expected in words(run())


@pytest.mark.parametrize("kind", ["several arms and every kind of claim", "grown by rule"])
def test_enough_seeds_need_no_notice(kind: str) -> None:
    """With seeds enough and all arms there, as deep as they were to become, the answer begins with the answer."""
    page = made(kind).page
    assert not [block for block in page.sections[0].blocks if isinstance(block, Notice)]


@pytest.mark.parametrize(("level", "leaks"), [(0.86, True), (0.82, False)])
def test_a_mean_above_the_best_rule_is_called_a_leak(level: float, leaks: bool) -> None:
    """On the tutorial's rows a mean test accuracy above .840 is a leak or bug until shown otherwise."""
    study = small(depth=2, seeds=6, data=Blobs().canonical())
    found = words(run_of(study, scored(study, level=level)))
    assert ("Leak or bug, until shown otherwise. The mean test accuracy of greedy at depth 1 is" in found) == leaks
    assert "The best possible rule scores 0.840 on these test rows" in found


@pytest.mark.parametrize(
    "data",
    [
        {"source": "blobs", "random_state": 3},
        {"source": "blobs", "shuffle": True},
        {"source": "blobs", "fresh": True},
        {"source": "blobs", "split": {"train": 400, "validation": 100, "test": 500}},
        {"source": "moons"},
    ],
)
def test_the_best_rule_is_named_only_where_it_applies(data: dict[str, Any]) -> None:
    """On any other rows nothing is known of the best rule, and nothing is said of it."""
    study = small(depth=2, seeds=6, data=data)
    found = words(run_of(study, scored(study, level=0.95)))
    assert "Leak or bug" not in found
    assert "best possible rule" not in found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"source": "digits"}, "seeds and splits of this one data set"),
        (Blobs().canonical(), "seeds on this one split of this one data set"),
        (Blobs(fresh=True).canonical(), "Each seed drew new training rows from one generator"),
    ],
)
def test_p_values_speak_of_what_seeds_vary(data: dict[str, Any], expected: str) -> None:
    """Of splits where seeds draw them, of one split where they share it, of the generator where rows are new."""
    assert expected in section(run_of(small(depth=2, seeds=6, data=data)), "How to read this")


# --- text is text ----------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '"><b>bold</b> & &lt; &amp;',
    "| a | b | **bold** _it_ `code` [link](javascript:alert(1)) ![x](y) ~~no~~ # no",
    "# heading",
    "1. item",
    "{{ page }} {% include 'x' %} ${x}",
    "a_b __init__ snake_case_name",
    "\\ ` `` ``` \\`",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text: str) -> None:
    """Whatever a question, an origin or a name holds is read as it was written, in HTML and in Markdown."""
    for made in (
        Page("t", lead=text),
        Page("t", sections=[Section("s", [Paragraph(text), Table("c", ["h", "k"], [(text, code(text))])])]),
    ):
        read = Read(report.html(made))
        assert text in read.text
        assert read.tags.keys().isdisjoint({"script", "img", "b"})
        shown = (
            MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(report.markdown(made))
        )
        seen = Read(shown)
        assert " ".join(text.split()) in " ".join(seen.text.split())
        assert seen.tags.keys() <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "strong"}
        assert seen.tags["strong"] == (1 if made.sections else 0), "the caption's"


def test_a_hostile_study_and_origin_are_text() -> None:
    """A question and tags that would be markup are words on the page."""
    study = small(seeds=3, question=HOSTILE[0])
    run = run_of(study, origin=CLEAN | {"machine": HOSTILE[0], "data_balance": HOSTILE[2], "repeat": "<i>"})
    read = Read(report.html(report.study_page(run)))
    assert read.wrong == []
    assert read.tags.keys().isdisjoint({"script", "img", "i", "b"})
    assert read.text.count(HOSTILE[0]) == 3, "the question, in the study file too, and the machine"


def test_what_would_steer_a_terminal_is_left_out() -> None:
    """Escape sequences, and marks that turn the direction of reading, are in neither form."""
    made = Page("t", lead="a\x1b[31mb\u202ec\x00d")
    assert "a[31mbcd" in report.html(made)
    assert r"a\[31mbcd" in report.markdown(made)


# --- pages of any kind -----------------------------------------------------------------------------------------


def test_a_page_of_its_own_blocks() -> None:
    """Every kind of block is shown in both forms; verdicts have a word and a mark besides their colour."""
    blocks = [
        Paragraph("plain ", strong("strong"), " ", code("x = 1"), "."),
        Notice("look"),
        report.Items(["one", (badge("refuted"), " two")]),
        report.Facts([("term", "what"), ("other", (code("c"),))]),
        Table("caption", [report.Column("name", numeric=False), "n"], [("a", "-1.5"), ("b-2", "2")], note="below"),
        report.Code("a\n  b", "as typed"),
        report.Card("claim", "supported", [Paragraph("inside")]),
    ]
    page = Page("Title", kicker="kicker", lead="lead", sections=[Section("A b", blocks)], footer="end")
    read = Read(report.html(page))
    said = " ".join(read.text.split())
    for part in (
        "plain strong x = 1.",
        "✗ refuted two",
        "✓ supported claim inside",
        "term what",
        "\N{MINUS SIGN}1.5",
        "b-2",
    ):
        assert part in said
    assert "a\n  b" in read.text
    shown = report.markdown(page)
    for part in (
        "plain **strong** `x = 1`.",
        "> **Note.** look",
        "- **refuted** two",
        "- **term:** what",
        "### claim: supported",
    ):
        assert part in shown
    assert "| a | -1.5 |" in shown
    assert "```\na\n  b\n```" in shown


def test_two_figures_on_a_page_have_ids_of_their_own() -> None:
    """The same figure twice shares no id, keeps its clips and glyphs, and says in words what it shows."""

    def figure() -> Figure:
        made = Figure(figsize=(3, 2))
        made.subplots().plot([1, 2], [3, 4])
        return made

    read = Read(
        report.html(Page("t", sections=[Section("s", [report.Drawing(figure, f'no. {n} "<&') for n in (1, 2)])]))
    )
    first = {name for name in read.ids if name.startswith("figure-1-")}
    second = {name for name in read.ids if name.startswith("figure-2-")}
    assert len(first) == len(second) > 20
    assert {f"#{name}" for name in first} & set(read.references)
    svg = report.inline_svg(figure(), "x-", 'no. 1 "<&')
    assert 'role="img" aria-label="no. 1 &quot;&lt;&amp;"' in svg
    assert "<?xml" not in svg
    assert "metadata" not in svg
    assert "<text" not in svg, "text is outlines, which look the same everywhere"
