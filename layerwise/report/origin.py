"""The last parts of a study's report: what it cost, how to make it again, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import yaml

from layerwise import own_code, sizes
from layerwise.report.page import Block, Code, Column, Facts, Items, Paragraph, Pieces, Section, Table, code, strong
from layerwise.report.run import BEST_RULE, StudyRun
from layerwise.report.wording import NOTHING, counted, depths_in_words, duration, is_missing, listed, p, shown
from layerwise.study import Study, StudyError, load, shipped

STAGES = {
    "base": "first hidden layer",
    "add_layer": "added hidden layer",
    "jointly": "all layers at once",
    "head": "head",
    "fine_tune": "fine tuning",
    "evaluate": "scoring",
}

ORIGIN = (
    *("run_key", "repeat", "digest", "git_commit", "git_changes", "lock_digest", "version"),
    *("stage_code", "machine", "cores", "threads", "data_balance"),
)
"""What a report says of where a run comes from, by the names of its tags; and every ``version.…``."""


def origin_of(tags: dict[str, str]) -> dict[str, str]:
    """What a report takes of a run's tags.

    Example:
        >>> origin_of({"layerwise.cores": "2", "layerwise.owner": "me", "mlflow.user": "me"})
        {'cores': '2'}
    """
    ours = {key.removeprefix("layerwise."): value for key, value in tags.items() if key.startswith("layerwise.")}
    return {key: ours[key] for key in sorted(ours) if key in ORIGIN or key.startswith("version.")}


def costs(run: StudyRun) -> Section:
    """Time and memory of every stage."""
    found = run.costs
    if found is None or found.empty:
        return Section("Time and memory", [Paragraph("What its stages took was not recorded with this run.")])
    total, most = found["seconds"].sum(skipna=False), found["peak_memory_bytes"].max()
    told = f"All stages together took {duration(total)}" if not is_missing(total) else "Not every stage's time is known"
    peak = "" if is_missing(most) else f"; the process held at most {sizes.in_words(int(most))} of memory"
    words = [Column(name, numeric=False) for name in ("arm", "stage", "shared with")]
    return Section(
        "Time and memory",
        [
            Paragraph(f"{told}{peak}. Each depth by itself is in ", code("costs.csv"), "."),
            Table(
                "Time and memory of every stage, over all blocks of seeds",
                [*words[:2], "depths", "blocks", "time in all", "a depth", "peak memory", words[2]],
                list(_cost_rows(found)),
                note="A stage that several arms have in common was trained once, and is counted once, under the first"
                " of them. A depth: the shortest and the longest of them, over all blocks. Times are wall-clock times"
                " of the computation as it was first made, compiling included, while publishing went on beside it;"
                " they hang on the machine and on what else it did. Peak memory is the most that the whole process had"
                " held since it began, at the end of the stage. Making untrained or permuted layers takes next to"
                " nothing and is not recorded.",
            ),
        ],
    )


def _cost_rows(found: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Every stage of an arm in a row, its depths together."""
    shared_with = found["shared_with"].astype(object)  # read from a file, a column of nothing is one of numbers
    keys = found.assign(shared_with=shared_with.where(shared_with.notna(), ""))
    for _, own in keys.groupby(["arm", "shared_with", "stage"], sort=False):
        arm, shared, stage = own.iloc[0][["arm", "shared_with", "stage"]]
        seconds, peak = own["seconds"], own["peak_memory_bytes"].max()
        shortest, longest = duration(seconds.min()), duration(seconds.max())
        yield (
            str(arm),
            STAGES.get(str(stage), str(stage)),
            depths_in_words(sorted(own["depth"])),
            str(int(own["blocks"].max())),
            duration(seconds.sum(skipna=False)),
            shortest if len(own) == 1 else f"{shortest} to {longest}",
            NOTHING if is_missing(peak) else sizes.in_words(int(peak)),
            str(shared),
        )


def reproduction(run: StudyRun) -> Section:
    """Where the run comes from, what it promises of being made again, and how to do that."""
    blocks: list[Block] = [
        *_level(run),
        Paragraph(strong("To make it again"), ", everything computed afresh in runs of its own:"),
        Code(_commands(run)),
        Facts(list(_provenance(run))),
    ]
    return Section("Reproduction", blocks)


def _level(run: StudyRun) -> Iterator[Block]:
    lacking = _lacking(run)
    exact = (
        "R0, the same bits: on the same type of machine, the same commit, lock file and number of threads give every"
        " weight and every score to the last bit. Random numbers are keyed by seed, purpose, stage and depth, never"
        " drawn in sequence, and the number of threads is fixed."
    )
    own = sorted(run.study.functions)
    if own:
        exact += (
            f" It takes the study's own code as well: {', '.join(own)}, whose content is part of the run's identity."
        )
    told: list[Pieces] = [(strong("Claimed: "), exact)] if not lacking else [
        (strong("Not claimed: "), f"R0, the same bits, for {lacking}.")
    ]  # fmt: skip
    told.append((
        strong("Not claimed: "),
        "R1, the same scores within a tolerance elsewhere. On another type of processor the last bits differ, and"
        " through training now and then the class of a row; this run has not measured how far that goes.",
    ))  # fmt: skip
    told.append(_fresh_seeds(run))
    yield Paragraph("This run claims ", strong("no level of reproducibility" if lacking else "R0, the same bits"), ":")
    yield Items(told)


def _lacking(run: StudyRun) -> str:
    """Why bits cannot be promised; empty where they can."""
    if len(own_code.from_text(run.origin.get("stage_code", ""))) > 1:
        return "its stages were not all computed by the same code"
    if "git_commit" not in run.origin:
        return "the commit that made it is not known"
    if run.origin.get("git_changes") != "none":
        return "its code had changes that no commit has"
    return "" if "lock_digest" in run.origin else "the lock file of its libraries is not known"


def _fresh_seeds(run: StudyRun) -> Pieces:
    """A level of a test bounds how often it errs before there are data; it promises nothing of another run."""
    decided = [one for one in (run.verdicts or {"verdicts": []})["verdicts"] if one["verdict"] != "undecided"]
    why = (
        "one run cannot show that. Whoever wants to know runs the study with other seeds; a verdict whose p is close"
        " to the level may well not come again."
        if decided
        else "no claim has been decided."
    )
    return (strong("Not claimed: "), f"R2, the same verdicts with fresh seeds: {why}")


def _commands(run: StudyRun) -> str:
    commit = run.origin.get("git_commit")
    before = f"git checkout {commit}\n" if commit else ""
    return f"{before}layerwise run {_study_argument(run.study)} --repeat again"


def _study_argument(study: Study) -> str:
    """How the study is asked for: by its name where it is ready-made, else as the file that this page ends with."""
    try:
        ready = load(study.name) if study.name in shipped() else None
    except StudyError:  # it is of a file that has to be brought along
        ready = None
    if ready is None:
        return "study.yaml"
    if ready.canonical() == study.canonical():
        return study.name
    if ready.model_copy(update={"seeds": study.seeds}).canonical() == study.canonical():
        return f"{study.name} --seeds {study.seeds}"
    return "study.yaml"


def _provenance(run: StudyRun) -> Iterator[tuple[str, str | Pieces]]:
    said = run.origin
    commit, changes = said.get("git_commit"), said.get("git_changes")
    changed = ", without changes" if changes == "none" else ", with changes in the code that it has not"
    yield "commit", (code(commit), changed if changes else "") if commit else "not known"
    if codes := own_code.from_text(said.get("stage_code", "")):
        told = [
            f"{by or 'not known'} computed {counted(count, 'stage or score', 'stages and scores')}"
            for by, count in codes.items()
        ]
        yield "code of Layerwise", listed(told)
    yield "lock file", (code(said["lock_digest"]),) if "lock_digest" in said else "not known"
    versions = {key.removeprefix("version."): value for key, value in said.items() if key.startswith("version.")}
    ours = {"layerwise": said["version"]} if "version" in said else {}
    if ours | versions:
        yield "versions", ", ".join(f"{name} {value}" for name, value in (ours | versions).items())
    yield "machine", said.get("machine") or "not known"
    if "cores" in said:
        yield "cores, threads", f"{said['cores']} cores; {said.get('threads') or 'an unknown number of'} threads"
    for key, term in (("run_key", "run key"), ("digest", "digest of the study")):
        if key in said:
            yield term, (code(said[key]),)
    yield "repeat", said.get("repeat") or "none: the study's own run"


def caveats(run: StudyRun) -> Section:
    """What the numbers do not say."""
    return Section("How to read this", [Items(list(_caveats(run)))])


def _caveats(run: StudyRun) -> Iterator[Pieces]:
    yield (strong("p-values speak of seeds. "), _population(run))
    if run.seeds > 1:
        yield (
            strong("Few seeds decide little. "),
            "Three pairs can never be significant: their smallest two-sided sign-flip p-value is .25. A directional"
            f" claim wants 30 paired seeds or more (Bouthillier et al., 2021: 29 for P(A > B) = .75); here there are"
            f" {run.seeds}{_smallest(run.seeds)}.",
        )
    yield (
        strong("Means are over intact seeds. "),
        "Seeds that diverged or collapsed are counted beside every mean and in none; the median is over all that did"
        " not diverge. Where arms differ in how many seeds broke (McNemar), those that are left do not speak for all.",
    )
    yield (
        strong("Claimed and explored. "),
        "What was claimed before training is decided, with one correction for the whole family. Every other comparison"
        " here is a look at the data: no p-value among them is corrected, and none decides anything.",
    )
    if run.seeds > 1:
        yield (strong("Intervals. "), _coverage(run.seeds))
    yield (
        strong("No difference "),
        "is shown by an equivalence claim with a margin, never by a large p-value.",
    )
    if run.has_best_rule and run.score == "accuracy":
        yield (strong("The best possible rule "), _best_rule(run))
    if run.study.grow is not None:
        yield (
            strong("Growth. "),
            f"The first {run.study.grow.seeds} seeds settled how deep arms grew, by their validation scores. Claims of"
            " a depth that they settled are decided by the other seeds; means and intervals here are over all, and at"
            " that depth the first ones flatter them a little.",
        )
    if run.study.stop is not None:
        yield (
            strong("Looks. "),
            "Training may have ended because claims were decided. Each look had alpha divided by the number of looks,"
            " so verdicts keep their level; means and intervals of the other numbers take no account of it, and lean a"
            " little towards what ended the training.",
        )


def _population(run: StudyRun) -> str:
    spec = run.study.data
    if getattr(spec, "fresh", False):
        return "Each seed drew new training rows from one generator, so they speak of such rows, and of one test part."
    if spec.shuffle:
        return (
            "One seed drives its split, labels, initial weights, the order of rows and noise. So they speak of seeds"
            " and splits of this one data set, whose parts overlap from seed to seed, and not of other data."
        )
    return (
        "One seed drives initial weights, the order of rows, labels and noise, and all seeds have the same training and"
        " test rows. So they speak of seeds on this one split of this one data set, and not of other data."
    )


def _smallest(seeds: int) -> str:
    smallest = min(1.0, 2 * 0.5**seeds)
    return f", whose smallest is {p(smallest)}" if seeds < 10 else ""


def _coverage(seeds: int) -> str:
    known = (
        "In simulations (docs/statistics.md) Student's 95 % interval covers .94 to .95 where values are normal or"
        " mildly skewed (skewness 1), and .90 with 10 seeds and .93 with 30 where they are very skewed (skewness 2);"
        " the BCa bootstrap covers .89 with 10 seeds and .93 to .94 with 30. One-sided tests of very skewed values"
        " reject too often on the side away from the tail: .13 with 10 seeds and .10 with 30, in place of .05."
    )
    return known if seeds >= 10 else f"{known} With fewer than 10 seeds nothing has been simulated; expect worse."


def _best_rule(run: StudyRun) -> str:
    names = [name for name in ("test_accuracy_mean", "fine_tuned_test_accuracy_mean") if name in run.table]
    highest = run.table[names].max().max()
    told = (
        f"scores {BEST_RULE:.3f} on these test rows, since they are what they are: a mean test accuracy above that is a"
        " leak or a bug until shown otherwise."
    )
    return told if is_missing(highest) else f"{told} The highest here is {shown(highest)}."


def study_file(run: StudyRun) -> Section:
    """The study, every setting spelled out."""
    text = yaml.safe_dump(run.study.canonical(), sort_keys=False, allow_unicode=True)
    return Section("Study file", [Code(text, "study.yaml, every setting spelled out")])


__all__ = ["ORIGIN", "caveats", "costs", "origin_of", "reproduction", "study_file"]
