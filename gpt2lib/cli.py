"""The command line: parse, call, one line for an error."""

import os
import signal
import sys
from pathlib import Path

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gpt2lib")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
@click.pass_obj
def cli(state, debug):
    """GPT-2 from scratch, and adapters that train few of its parameters.

    Studies run notebooks in batches; the report is built from the tables they leave.
    """
    state["debug"] = debug


@cli.command()
@click.argument("study", metavar="FILE")
@click.option("--runs", default="runs", show_default=True, help="Folder that holds one folder a study.")
@click.option("--results", default="report/results", show_default=True, help="Where the collected tables go.")
@click.option("--jobs", type=click.IntRange(1), help="Runs at a time [default: one a core, up to eight; one on a GPU].")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where the runs happen."
)
@click.option(
    "--address", default="", help="With --engine ray: the cluster's address, or auto [default: start Ray here]."
)
@click.option("--plan", "plan_only", is_flag=True, help="List the runs and what they will cost; run nothing.")
@click.option(
    "--tflops",
    type=click.FloatRange(0, min_open=True),
    help="With --plan: the speed of matrix products [default: measured here].",
)
@click.option(
    "--rehearse", is_flag=True, help="Two updates of every kind of run, on toy data and random weights of its size."
)
@click.option("--collect", "collect_only", is_flag=True, help="Collect what is done; run nothing.")
@click.option("--keep-collected", is_flag=True, help="Runs whose rows are in the collected table count as done.")
@click.option("--force", is_flag=True, help="Collect even if the table loses rows of runs that are no longer planned.")
def study(
    study, runs, results, jobs, engine, address, plan_only, tflops, rehearse, collect_only, keep_collected, force
):
    """Do the runs of a study that are missing, and collect all results.

    FILE is a TOML file such as notebooks/studies/demo.toml. A run that was interrupted goes on from its last
    checkpoint; a failed one does not stop the others and is named at the end. Collecting combines: rows of runs that
    were done elsewhere stay.
    """
    from gpt2lib.study.engines import Processes, Ray
    from gpt2lib.study.runner import Study

    if address and engine != "ray":
        raise click.UsageError("--address is for --engine ray")
    if plan_only and collect_only:
        raise click.UsageError("give --plan or --collect")
    if rehearse and (keep_collected or collect_only):
        raise click.UsageError("a rehearsal is not collected")
    batch = Study(study, runs, rehearse, results if keep_collected else None)
    if plan_only:
        _show_plan(batch, tflops)
        return
    if collect_only:
        errors = batch.damaged
    else:
        click.get_current_context().obj["resumes"] = True
        errors = batch.run(Ray(jobs, address) if engine == "ray" else Processes(jobs), click.echo)
    for name, error in errors.items():
        click.echo(f"failed: {name}: {error}", err=True)
    if not rehearse and (collect_only or batch.here):
        click.echo(f"collected into {batch.collect(results, force)}")
    if errors:
        sys.exit(1)


def _show_plan(batch, tflops: float | None) -> None:
    from gpt2lib.study.cost import UTILISATION, estimate, measured_flops

    in_bf16 = all(run.parameters.get("precision") == "bf16" for run in batch.runs)
    speed = UTILISATION * (tflops * 1e12 if tflops else measured_flops("bf16" if in_bf16 else "float32"))
    hours, unknown = 0.0, 0
    click.echo(f"{'':7} {'hours':>6} {'GB':>5} {'trained':>11}  run: notebook(parameters)")
    for run in batch.runs:
        settings = ", ".join(f"{key}={value}" for key, value in run.parameters.items())
        if run.trials:
            settings += f", {run.tuned}=best of {', '.join(dict.fromkeys(map(str, run.trials.values())))}"
        cost, done = estimate(run), batch.done(run)
        state = "damaged" if run.name in batch.damaged else "done" if done else "missing"
        columns = f"{'?':>6} {'?':>5} {'?':>11}"
        if cost:
            columns = f"{cost.flops / speed / 3600:6.2f} {cost.memory / 1e9:5.1f} {cost.trained:11,}"
            hours += 0 if done else cost.flops / speed / 3600
        unknown += not cost and not done
        click.echo(f"{state:7} {columns}  {run.name}: {run.notebook.stem}({settings})")
    without = f", without {unknown} whose data or notebook says too little" if unknown else ""
    click.echo(
        f"{len(batch.runs)} runs; about {hours:.1f} hours one after the other at {speed / 1e12:.2f} TFLOP/s{without}"
    )


@cli.command()
@click.option("--study", default="smollm2", show_default=True, help="The collected study to report on.")
@click.option("--results", default="report/results", show_default=True, help="Where its tables are.")
@click.option("--figures", default="figures", show_default=True, help="Where the figures go, a folder a study.")
@click.option("--source", default="report/report.typ", show_default=True, help="The report's Typst source.")
@click.option("--output", help="The PDF [default: report/report.pdf, or report/STUDY.pdf for another than smollm2].")
def report(study, results, figures, source, output):
    """Redraw the figures and rebuild the PDF from collected tables; trains nothing."""
    from gpt2lib.report.pdf import build

    default = "report/report.pdf" if study == "smollm2" else f"report/{study}.pdf"
    click.echo(f"wrote {build(study, Path(results), Path(figures), Path(source), Path(output or default))}")


@cli.command()
@click.option("--source", help="A folder in the course's layout, or 'toy' [default: GPT2LIB_DATA, data/, download].")
@click.argument("tasks", nargs=-1)
def data(source, tasks):
    """Find, read and check the data of TASKS (all four by default), and count it."""
    from gpt2lib.data.load import COURSE_TASKS, load_task

    for task in tasks or COURSE_TASKS:
        load_task(task, source)


@cli.command()
@click.argument("predictions")
@click.argument("labels")
@click.option("--write", is_flag=True, help="Keep the accuracies, in STUDY-scores.csv beside them.")
def score(predictions, labels, write):
    """Score a study's test predictions against a table of true labels.

    PREDICTIONS is a file such as report/results/smollm2-test.parquet; LABELS is the course's test table with its label
    column filled. The accuracies are printed; with --write they are kept in STUDY-scores.csv beside the predictions.
    """
    from gpt2lib.tasks.scoring import score

    click.echo(score(predictions, labels, write).to_string(index=False, float_format="{:.4f}".format))


ADAPTER = [
    click.option("--adapter", help="The folder adapter/ of a run [default: the LoRA that comes with gpt2lib]."),
    click.option("--base", help="The base that it belongs to: a name or a folder [default: as the adapter says]."),
]


def with_adapter(command):
    for option in reversed(ADAPTER):
        command = option(command)
    return command


@cli.command()
@click.argument("task")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", help="Read texts from this file, or - for standard input: one a line, a pair's with a tab.")
@click.option(
    "--output",
    default="-",
    help="With --file: the tab-separated table, in place of what is there [default: printed].",
)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Texts at a time.")
@with_adapter
def predict(task, texts, file, output, batch_size, adapter, base):
    """Classes of texts, with their probabilities, from a model that was adapted to TASK.

    \b
    gpt2lib predict sst "a gorgeous, witty, seductive movie"
    gpt2lib predict quora "How do I learn to cook?" "What is a good way to learn cooking?"
    gpt2lib predict sst --file reviews.txt --output classes.tsv
    """
    from gpt2lib.common.whole import write_text
    from gpt2lib.tasks import TASKS, load_adapted
    from gpt2lib.tasks.adapted import texts_in

    if bool(texts) == bool(file):
        raise click.UsageError(
            "give either TEXT or --file (- for standard input); before a text that begins with -, --"
        )
    if len(texts) == 1 and os.path.isfile(texts[0]):
        raise click.UsageError(f"{texts[0]} is a file: give it by --file")
    if output != "-" and (not file or Path(output).is_dir() or Path(output).resolve() == Path(file).resolve()):
        raise click.UsageError("--output is for --file, and another file than that")
    if output != "-" and not Path(output).resolve().parent.is_dir():
        raise click.UsageError(f"there is no folder {Path(output).resolve().parent} for --output")
    if file not in (None, "-") and not Path(file).exists():
        raise FileNotFoundError(f"there is no file {file}")
    pairs = task in TASKS and TASKS[task].pairs
    if file:
        with click.open_file(file, encoding="utf-8-sig") as stream:
            try:
                texts = texts_in(stream.read(), "standard input" if file == "-" else file, pairs)
            except UnicodeDecodeError:
                raise ValueError(f"{'standard input' if file == '-' else file} is not UTF-8; save it so") from None
    elif pairs:
        texts = [tuple(texts)]
    adapted = load_adapted(task, adapter, base)
    table = adapted.predict(texts, batch_size, progress=f"{len(texts)} texts" if len(texts) > 1 else "")
    for number in table.index[table.pop("cut")]:
        last = f"only its last {adapted.max_length} tokens are read, as in training"
        last += ", and not all of the first of the two" if pairs else ""
        click.echo(f"text {number + 1}: {last}", err=True)
    if file:
        for i, column in enumerate(zip(*texts, strict=True) if pairs else [texts]):
            table.insert(i, f"text{i + 1}" if pairs else "text", column)
        content = table.to_csv(sep="\t", index=False, float_format="%.4f", lineterminator="\n")
        if output == "-":
            click.echo(content, nl=False)
        else:
            write_text(Path(output), content)
        return
    for text, (_, row) in zip(texts, table.iterrows(), strict=True):
        click.echo(text if isinstance(text, str) else "\n".join(text))
        for name in adapted.classes:
            click.echo(f"{'>' if name == row['prediction'] else ' ':>3} {name:15} {100 * row[name]:5.1f} %")


@cli.command()
@click.argument("lines", nargs=-1, required=True, metavar="LINE...")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another one, another sonnet.")
@click.option("--temperature", type=click.FloatRange(0), default=0.9, show_default=True, help="0: the likeliest words.")
@click.option(
    "--top-p", type=click.FloatRange(0, 1, min_open=True), default=0.9, show_default=True, help="The nucleus."
)
@with_adapter
def write(lines, seed, temperature, top_p, adapter, base):
    """Finish a sonnet from its first lines (three, as in training), and show it as it is written.

    LINES may be several arguments, or one with ends of lines or " / " between them.
    """
    from gpt2lib.tasks import load_adapted

    given = "\n".join(lines).replace(" / ", "\n")
    adapted = load_adapted("sonnets", adapter, base)
    shown = []

    def show(piece: str) -> None:
        shown.append(piece)
        click.echo(piece, nl=False)

    adapted.write(given, seed, temperature, top_p, show)
    if not shown[-1].endswith("\n"):
        click.echo()


def main() -> None:
    """What is wrong with the input is one line on stderr and exit code 2; a fault of ours is exit code 1."""
    # ended politely by a scheduler, or by a shell that made us ignore Ctrl-C: stop the notebooks that are running, too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    state = {"debug": False, "resumes": False}
    try:
        cli(standalone_mode=False, obj=state)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted" + "; the same command goes on from here" * state["resumes"], err=True)
        sys.exit(130)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        click.echo(
            f"gpt2lib: {error.format_message()} (see {context.command_path if context else 'gpt2lib'} --help)", err=True
        )
        sys.exit(error.exit_code)
    except Exception as error:
        if state["debug"]:
            raise
        if isinstance(error, ValueError | OSError):
            click.echo(f"gpt2lib: {error}", err=True)
            sys.exit(2)
        last = (str(error).strip().splitlines() or [""])[-1]
        click.echo(
            f"gpt2lib: a fault of gpt2lib, {type(error).__name__}: {last} (gpt2lib --debug ... shows where)", err=True
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
