"""The report's pages of the site: its PDFs, and a page of figures and tables for each study, from its tables."""

from pathlib import Path

import pandas as pd

from gpt2lib.report.figures import title
from gpt2lib.tasks.task import TASKS

STUDIES = {"mini": "gpt2-mini, 5.4 million parameters", "smollm2": "SmolLM2-135M"}  # which study has which base
REPORT = """# The report

Every number in it is read from tables that the runs left; nothing is typed by hand. Results on different bases never
share a row.

{documents}

{pages}
"""
RESULTS = """# Results: {base}

{figures}

## Dev results

Means over the seeds, with 95 % intervals over seeds and dev examples.

{results}

## Differences from LoRA

Paired, in points of accuracy or in nats a token (below 0 is better there); p after Holm's correction.

{differences}

## The tables themselves

{tables}
"""


def write(source: Path, captions: dict[str, str]) -> None:
    """report.md and results-STUDY.md into the pages' folder, which holds report/ and figures/. captions: by figure."""
    studies = [study for study in STUDIES if (source / "figures" / study / "methods.csv").is_file()]
    names = {"report.pdf": "The report"} | {f"{study}.pdf": f"The report on {STUDIES[study]}" for study in studies}
    documents = [
        f"- [{name} (PDF)](report/{file})" for file, name in names.items() if (source / "report" / file).is_file()
    ]
    pages = toctree([f"results-{study}" for study in studies], "Figures and tables")
    text = REPORT.format(documents="\n".join(documents), pages=pages)
    (source / "report.md").write_text(text, encoding="utf-8")
    for study in studies:
        folder = source / "figures" / study
        drawn = [name for name in captions if (folder / f"{name}.svg").is_file()]
        text = RESULTS.format(
            base=STUDIES[study],
            figures="\n".join(figure(f"figures/{study}/{name}.svg", captions[name]) for name in drawn),
            results=results(pd.read_csv(folder / "methods.csv")),
            differences=differences(pd.read_csv(folder / "comparisons.csv")),
            tables="\n".join(f"- [{t.name}](figures/{study}/{t.name})" for t in sorted(folder.glob("*.csv"))),
        )
        (source / f"results-{study}.md").write_text(text, encoding="utf-8")


def figure(file: str, caption: str) -> str:
    return f"```{{figure}} {file}\n:alt: {caption.split('.')[0]}\n\n{caption}\n```\n"


def toctree(pages: list[str], caption: str, *options: str) -> str:
    return "\n".join(["```{toctree}", f":caption: {caption}", *options, "", *pages, "```", ""])


def results(methods: pd.DataFrame) -> str:
    """A line a method, a column a task: the mean and its interval."""
    tasks = methods.groupby("task", sort=False)["metric"].first()
    rows = []
    for name, group in methods.groupby("method", sort=False):
        by_task = group.set_index("task")
        rows.append(
            [title(name), *(value(by_task.loc[task]) if task in by_task.index else "–" for task in tasks.index)]
        )
    return markdown(["method", *(f"{title(task)}, {metric}" for task, metric in tasks.items())], rows)


def value(row: pd.Series) -> str:
    unit = 100 if row["metric"] == "accuracy" else 1
    # not to be broken between the numbers
    interval = "" if pd.isna(row["low"]) else f"\u00a0({unit * row['low']:.1f}\u2060–\u2060{unit * row['high']:.1f})"
    return f"**{unit * row['value']:.1f}**{interval}"


def differences(comparisons: pd.DataFrame) -> str:
    rows = []
    for row in comparisons.itertuples():
        digits = 1 if TASKS[row.task].classes else 3  # points of accuracy, or nats a token
        numbers = (f"{number:.{digits}f}".replace("-", "−") for number in (row.difference, row.low, row.high))
        difference, low, high = numbers
        p = "< 0.001" if row.p_holm < 0.001 else f"{row.p_holm:.3f}"
        rows.append([title(row.task), title(row.method), difference, f"{low} to {high}", p])
    return markdown(["task", "method", "minus LoRA", "95 % interval", "p"], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])
