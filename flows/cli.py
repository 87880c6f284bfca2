"""The command line. Each command reads its request, refuses what is wrong in one line, and calls what does the work.

Nothing heavy is imported until a command needs it: help and refusals answer at once, and only ``run`` loads
TensorFlow, when there is something to train.

Exit status: 0 done; 1 something failed, such as a store that is damaged; 2 the request was wrong: another study, run,
setting, folder, account or version is to be named; 75 another process is at it.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows import environment, stdout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flows.cluster import Scale
    from layerwise.study import Study

DONE, FAILED, WRONG_REQUEST, BUSY = 0, 1, 2, 75

INTERRUPTED = "interrupted."

BY_TIME = "auto"
"""What ``--repeat`` without a name is taken for."""


class Commands(click.Group):
    """A group that keeps its commands in the order a newcomer meets them, and names the nearest to a wrong one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's signature
        """The commands as they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C is answered here, for Click would print an empty line first."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(_refuse(INTERRUPTED, FAILED))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, Any]:
        """Find a command, or say which one was probably meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(self.commands)}."
            raise click.UsageError(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        import layerwise

        click.echo(f"layerwise {layerwise.__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """Greedy layer-wise pretraining as studies: tracked, reproducible, decided.

    A study is one short file that asks a question. `layerwise run STUDY` trains every arm over every seed, records
    each depth in MLflow, runs as a Prefect flow, and prints the answer.
    """


overriding = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace one setting: training.epochs=50."
)

_settings = [
    click.argument("study"),
    click.option("--seeds", type=click.INT, metavar="N", help="Train this many seeds instead of the study's number."),
    overriding,
]


def study_settings(command: Any) -> Any:
    """STUDY, --seeds and --set: what every command that reads a study takes."""
    for decorate in reversed(_settings):
        command = decorate(command)
    return command


_page = [
    click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the page to this file."),
    click.option("--markdown", is_flag=True, help="Print it as Markdown, and write no file."),
    click.option("--no-open", is_flag=True, help="Do not open it in the browser."),
]


def page_options(command: Any) -> Any:
    """--output, --markdown and --no-open: what every command that writes a page takes."""
    for decorate in reversed(_page):
        command = decorate(command)
    return command


model_version = click.option("--version", type=click.IntRange(1), metavar="N", help="Of the registered model.")


@cli.command()
@study_settings
@click.option(
    "--repeat",
    is_flag=False,
    flag_value=BY_TIME,
    default="",
    metavar="[NAME]",
    help="Compute everything afresh in runs of its own; the same NAME again goes on with that repeat.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and stop.")
@click.option("--require-claims", is_flag=True, help="Exit 1 where a claim is refuted or undecided.")
@click.option(
    "--runner",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="Train here, one block after the other; or on Dask's workers, side by side.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Of Dask: so many processes; one for each core."
)
@click.option("--address", metavar="URL", help="Of Dask: the scheduler of a cluster that exists, tcp://host:port.")
def run(study: str, seeds: int | None, overrides: tuple[str, ...], repeat: str, **how: Any) -> None:
    """Train a study, or complete it, and print its answer and what it says of each claim.

    STUDY is the name of a ready-made study (`layerwise list`) or a study file. A study that is finished is answered
    from MLflow and trains nothing; one that was interrupted goes on where it stopped.
    """
    asked = _load(study, seeds, overrides)
    name, scale = _repeat_name(repeat), _scale(how["runner"], how["workers"], how["address"])
    if how["dry_run"]:
        from flows.showing import show_study

        show_study(asked, environment.root(), repeat=name)
        return
    from flows.running import run_study_command

    again = _to_go_on(study, seeds, overrides, name, how) if repeat == BY_TIME else ""
    wanted = {"require_claims": how["require_claims"], "scale": scale, "again": again}
    try:
        sys.exit(run_study_command(asked, repeat=name, root=environment.root(), **wanted))
    except KeyboardInterrupt:
        what = f"`{again}`" if again else "the same again"
        sys.exit(_refuse(f"interrupted; run {what}, and it goes on where it stopped.", FAILED))


@cli.command("list")
def list_studies() -> None:
    """List the ready-made studies."""
    from flows.showing import list_shipped

    list_shipped()


@cli.command()
@study_settings
def show(study: str, seeds: int | None, overrides: tuple[str, ...]) -> None:
    """Show what a study trains at each stage, what exists already, and what is left to do."""
    from flows.showing import show_study

    show_study(_load(study, seeds, overrides), environment.root())


@cli.command()
@click.argument("study")
@click.option("--seeds", "pilot", type=click.INT, metavar="N", help="Train this many seeds now, instead of ten.")
@overriding
def plan(study: str, pilot: int | None, overrides: tuple[str, ...]) -> None:
    """Train a few seeds, and say how many it would take to decide each claim.

    What is trained is not tracked; a later run finds it, and trains only the other seeds.
    """
    from flows.planning import plan_study_command

    sys.exit(plan_study_command(_load(study, None, overrides), pilot=pilot, root=environment.root()))


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@page_options
def compare(runs: tuple[str, ...], output: Path | None, markdown: bool, no_open: bool) -> None:
    """Compare tracked runs on the same data with the first of them, paired by the seeds they share.

    RUN is the id of a run, the name of a study for its newest finished run, or study:repeat for a repeat; with /arm
    behind it, or the id of an arm's run, it is that arm alone.
    """
    _one_way_out(output, markdown)
    from flows.comparing import compare_command

    shown = {"output": output, "as_text": markdown, "may_open": not no_open}
    sys.exit(compare_command(runs, **shown, root=environment.root()))


@cli.command()
@click.argument("run")
@page_options
def report(run: str, output: Path | None, markdown: bool, no_open: bool) -> None:
    """Write the report of a run as one HTML file, say where, and open it in the browser.

    RUN is the name of a study, for its newest finished run; STUDY:REPEAT, for a repeat; or the id of a run in MLflow.
    """
    _one_way_out(output, markdown)
    from flows.reporting import report_command

    sys.exit(report_command(run, output=output, as_text=markdown, may_open=not no_open, root=environment.root()))


@cli.command()
@click.argument("run")
@click.option(
    "--data", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Where the run's data file is now."
)
@click.option("--code", multiple=True, metavar="MODULE:NAME", help="Let the run's study call this installed function.")
@click.option("--allow-other-code", is_flag=True, help="Compare although this code is not the one that made the run.")
def reproduce(run: str, data: tuple[Path, ...], code: tuple[str, ...], allow_other_code: bool) -> None:
    """Compute a tracked run again from what it logged, and say whether it has the same bits.

    RUN is a study that was run, STUDY:REPEAT, or the id of a run. Nothing of what was trained is used. The verdict is
    added to the run: EXACT, WITHIN TOLERANCE, or DIFFERENT, which exits with 1.
    """
    from flows.reproducing import Allowed, reproduce_command

    sys.exit(reproduce_command(run, Allowed(data, code, allow_other_code), environment.root()))


@cli.command()
@click.argument("run")
@click.option("--depth", type=click.INT, metavar="N", help="Of so many hidden layers.")
@click.option("--arm", metavar="NAME", help="Which arm left it.")
@click.option("--seed", type=click.INT, metavar="N", help="Of which seed; the first, if nothing says another.")
@click.option("--encoder", is_flag=True, help="Its hidden layers alone, which give features.")
@click.option("--untuned", is_flag=True, help="As it was before fine tuning.")
@click.option("--name", metavar="NAME", help="Of the registered model, instead of the study's, or STUDY-encoder.")
def register(
    run: str, depth: int | None, arm: str | None, seed: int | None, encoder: bool, untuned: bool, name: str | None
) -> None:
    """Register a network of a run, or its encoder alone, as a model to serve.

    RUN is a study that was run, STUDY:REPEAT, or the id of a run; /ARM behind it is as good as --arm. An encoder is
    that of the network which validation chose, or the study declares, unless options say another. Nothing is trained,
    and scores say nothing here.
    """
    from flows.registering import Asked, register_command

    asked = Asked(arm, depth, seed, untuned)
    sys.exit(register_command(run, asked, encoder=encoder, name=name, root=environment.root()))


@cli.command()
@click.argument("model")
@model_version
@click.option("--port", type=click.IntRange(1, 65535), default=5001, show_default=True, help="Port of this machine.")
def serve(model: str, version: int | None, port: int) -> None:
    """Serve a registered model over HTTP on loopback, until Ctrl-C.

    MODEL is the name of a study whose model is registered, NAME@ALIAS, NAME/VERSION, a models:/ URI, or a run that
    registered one.
    """
    from flows.serving import serve_command

    sys.exit(serve_command(model, version=version, port=port, root=environment.root()))


@cli.command()
@click.argument("model")
@click.argument("file", type=click.Path(path_type=Path))
@model_version
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write .csv or .parquet to this file, in the place of what it holds.",
)
@click.option("--separator", default=",", metavar="CHAR", help="Between the values of a CSV file, instead of a comma.")
def predict(model: str, file: Path, version: int | None, output: Path | None, separator: str) -> None:
    """Answer every row of a CSV or Parquet file with a registered model.

    MODEL is what `layerwise serve` takes. Columns are found by name, and others, such as the label, are left alone.
    """
    if len(separator) != 1 or not separator.isascii():
        raise click.UsageError(f"--separator {separator!r}: expected one character.")
    _refuse_no_file(output)
    from flows.predicting import Asked, predict_command

    sys.exit(predict_command(Asked(model, version, file, separator), output, environment.root()))


@cli.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@click.option("--work-pool", metavar="NAME", help="Deploy to this work pool of PREFECT_API_URL, and serve nothing.")
@click.option("--prefect-port", type=click.IntRange(1, 65535), default=4200, show_default=True, help="Port of Prefect.")
def schedule(file: Path | None, work_pool: str | None, prefect_port: int) -> None:
    """Run studies at the times that a file of schedules says, and judge each run, until Ctrl-C.

    FILE is schedules.yaml, if left out. It lists study, cron and timezone; and, where wanted, name, require_claims, and
    notify, an address that is called when a run fails. Studies are taken in as they are now.
    """
    from flows.schedules import DEFAULT
    from flows.scheduling import schedule_command

    root = environment.root()
    sys.exit(schedule_command(file or root / DEFAULT, work_pool=work_pool, prefect_port=prefect_port, root=root))


@cli.command()
@click.argument("run")
def accept(run: str) -> None:
    """Accept a run: scheduled runs of its study are judged against it from now on.

    RUN is a study that was run, STUDY:REPEAT, or the id of a run. The first scheduled run is accepted by itself.
    """
    from flows.judging import accept_command

    sys.exit(accept_command(run, environment.root()))


@cli.command()
@click.option("--fix", is_flag=True, help="Close runs of dead processes, and remove what they left half-made.")
@click.option("--all", "thorough", is_flag=True, help="Verify everything that is stored, however long it takes.")
def doctor(fix: bool, thorough: bool) -> None:
    """Look at this folder's runs, results and surroundings; exit with 1 if something needs attention.

    That is a line that begins with `look`. One that begins with `note` holds nothing up, and exits with 0.
    """
    from flows.doctor import doctor_command

    sys.exit(doctor_command(environment.root(), fix=fix, thorough=thorough))


@cli.command()
@click.option("--older-than", metavar="AGE", help="Also results that were stored longer ago: 30d, 12h, 8w.")
@click.option("--of-deleted", is_flag=True, help="Also results that only deleted runs used.")
@click.option("--yes", is_flag=True, help="Remove them; without it they are only counted.")
def clean(older_than: str | None, of_deleted: bool, yes: bool) -> None:
    """Count, or remove, stored results that nobody needs any more: damaged and unfinished ones, and those asked for.

    Every result is read, to find damaged ones. Runs are never touched. A result that is wanted again is computed again.
    """
    from flows.cleaning import Wanted, clean_command

    wanted = Wanted(None if older_than is None else _seconds(older_than), older_than or "", of_deleted)
    sys.exit(clean_command(wanted, environment.root(), really=yes))


@cli.command()
@click.option("--mlflow-port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port of MLflow.")
@click.option("--prefect-port", type=click.IntRange(1, 65535), default=4200, show_default=True, help="Port of Prefect.")
def ui(mlflow_port: int, prefect_port: int) -> None:
    """Serve the MLflow and Prefect pages of this folder's runs on loopback, until Ctrl-C."""
    from flows.pages import serve_pages

    sys.exit(serve_pages(environment.root(), mlflow_port=mlflow_port, prefect_port=prefect_port))


@cli.command()
@click.argument("address", metavar="URL")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="So many processes; one for each core.")
def worker(address: str, workers: int | None) -> None:
    """Train for runs with `--address URL`, until Ctrl-C; URL is that of a Dask scheduler, tcp://host:port.

    LAYERWISE_ROOT must be the folder that these runs have, under the same path.
    """
    _check_address("URL", address)
    from flows.worker import worker_command

    sys.exit(worker_command(address, workers=workers, root=environment.root()))


def _load(study: str, seeds: int | None, overrides: tuple[str, ...]) -> Study:
    from layerwise import imported
    from layerwise.study import load

    imported.tell(_tell)  # reading a study whose data a loader makes runs the loader
    changes = {} if seeds is None else {"seeds": seeds}
    return load(study, overrides=overrides, **changes)


def _tell(line: str) -> None:
    try:
        click.echo(line)
    except BrokenPipeError:
        stdout.leave_unread()


def _one_way_out(output: Path | None, markdown: bool) -> None:
    if markdown and output is not None:
        raise click.UsageError("--markdown prints and --output writes; give one of them.")
    _refuse_no_file(output)


def _refuse_no_file(output: Path | None) -> None:
    """Refuse to write where no file is: what stands there would be replaced, a device too."""
    if output is not None and (not output.name or (output.exists() and not output.is_file())):
        raise click.UsageError(f"--output {str(output)!r}: expected a file, or a name that nothing has yet.")


def _seconds(age: str) -> float:
    """An age such as 30d in seconds."""
    import re

    found = re.fullmatch(r"(\d{1,6})([hdw])", age)
    if found is None:
        raise click.UsageError(
            f"--older-than {age!r}: expected a number of hours, days or weeks, such as 12h, 30d or 8w."
        )
    return int(found[1]) * {"h": 3600, "d": 86400, "w": 604800}[found[2]]


def _scale(runner: str, workers: int | None, address: str | None) -> Scale | None:
    """The workers that are asked for; None to train here."""
    if runner == "local":
        if workers is not None or address is not None:
            raise click.UsageError("--workers and --address say how Dask trains; add --runner dask, or leave them out.")
        return None
    if workers is not None and address is not None:
        raise click.UsageError("--workers starts processes here, and --address names others; give one of them.")
    if address is not None:
        _check_address("--address", address)
    from flows.cluster import Scale

    return Scale(workers=workers, address=address)


def _check_address(name: str, address: str) -> None:
    import re

    found = re.fullmatch(r"(?:tcp|tls)://[^\s/:@]+:(\d{1,5})", address)
    if found is None or not 0 < int(found[1]) < 65536:
        raise click.UsageError(f"{name} {address!r}: expected tcp://host:port or tls://host:port of a Dask scheduler.")


def _repeat_name(repeat: str) -> str:
    """The name of a deliberate repeat; without one it is the time, so that each is a repeat of its own."""
    import re
    from datetime import UTC, datetime

    if repeat == BY_TIME:
        return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}|", repeat):
        raise click.UsageError(f"--repeat {repeat!r}: use at most 64 letters, digits, '.', '_' and '-'.")
    return repeat


def _to_go_on(study: str, seeds: int | None, overrides: tuple[str, ...], repeat: str, how: Mapping[str, Any]) -> str:
    """The command that goes on with a repeat, whose name nobody gave."""
    import shlex

    asked = [study, *(() if seeds is None else ("--seeds", str(seeds)))]
    asked += [word for setting in overrides for word in ("--set", setting)]
    if how["runner"] != "local":
        asked += [word for key in ("runner", "workers", "address") if how[key] for word in (f"--{key}", str(how[key]))]
    return shlex.join(["layerwise", "run", *asked, "--repeat", repeat])


def main() -> None:
    """The ``layerwise`` command: every refusal is one line on standard error, without a traceback."""
    from flows import signals
    from flows.server import end_process

    try:
        _degrade_output()
        signals.heed()
        end_process(run_command())
    except KeyboardInterrupt:  # in the moment between the answer and the end
        end_process(_refuse(INTERRUPTED, FAILED))


def _degrade_output() -> None:
    """Write what an output's encoding has no sign for as its number, instead of failing over it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # which it is not where a shell has closed it, as with `>&-`
            stream.reconfigure(errors="backslashreplace")


def run_command() -> int:
    """Do what the command line of this process asks; returns the exit status.

    An answer that could not be printed is no answer.
    """
    status = _run_command()
    return FAILED if status == DONE and stdout.is_lost() else status


def _run_command() -> int:
    from layerwise.study import StudyError
    from tasks.scratch import ScratchFull

    try:
        cli.main(prog_name="layerwise", standalone_mode=False)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else DONE
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.exceptions.NoArgsIsHelpError as nothing_asked:
        click.echo(nothing_asked.format_message())
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        sys.stderr.close()
    except (environment.DiskFull, ScratchFull, OSError) as error:  # or a place is not what it should be
        return _refuse(_in_words(error), FAILED)
    except (click.ClickException, StudyError, environment.EnvironmentProblem) as error:
        return _refuse(_in_words(error), WRONG_REQUEST)
    except (KeyboardInterrupt, click.Abort):
        return _refuse(INTERRUPTED, FAILED)
    return DONE


def _in_words(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "layerwise"
        said = error.format_message()
        return f"{said}{'' if said.endswith(('.', '?')) else '.'} `{command} --help` shows what it takes."
    if isinstance(error, OSError) and _was_printing(error):
        return stdout.lose(error)
    if isinstance(error, OSError):
        from tasks import durable

        place, why = error.filename or environment.root(), error.strerror or error
        remedy = "free space on that disk" if durable.is_full(error) else "mend that"
        return f"{place}: {why}; {remedy}, or name another place in LAYERWISE_ROOT."
    return error.format_message() if isinstance(error, click.ClickException) else str(error)


def _was_printing(error: OSError) -> bool:
    """Whether it was standard output that failed; the system names no file then."""
    from traceback import walk_tb

    return any(frame.f_code is click.echo.__code__ for frame, _ in walk_tb(error.__traceback__))


def _refuse(message: str, status: int) -> int:
    from layerwise.study.parts import printable

    with suppress(OSError):  # what nobody reads, or can be written nowhere, changes no status
        click.echo(f"layerwise: {printable(' '.join(message.split()))}", err=True)
    return status


if __name__ == "__main__":
    main()
