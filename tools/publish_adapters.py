"""Put a study's best LoRA of each task into the package, each with a card.

python tools/publish_adapters.py smollm2 [RUNS]     # RUNS: the folder that holds the study's runs, runs/ by default

Best is what the runs chose their weights by, on the held-out tenth of the training data; dev has no say.
"""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd

from gpt2lib.common.whole import write_text
from gpt2lib.report.collected import collected
from gpt2lib.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
LIMITS = {
    "sst": "Sentences from film reviews in English, of 2004 and before. Five classes that people disagree on, too: "
    "neighbouring ones are often exchanged.",
    "cfimdb": "Film reviews in English; of a longer one the end is read. The texts are reviews rewritten by hand to "
    "say the opposite (Kaushik et al. 2020), without their originals.",
    "quora": "Pairs of questions in English, of Quora in 2017. What counts as the same question was decided there, and "
    "not always rightly.",
    "sonnets": "131 of Shakespeare's sonnets. It writes lines of about the right length and few rhymes; what it writes "
    "is not checked for sense, and some lines may stand in a sonnet word for word.",
}
CARD = """# LoRA for {title} on {base}

{use}

| | |
|---|---|
| base | `{base}`, its lowest {depth} blocks |
| trained | rank {rank}, scale {scale:g}, on {targets} of blocks {first} to {last}: {trained:,} parameters |
| data | {examples} of {title}, {epochs} passes; a tenth held out to choose rate ({lr:g}) and epoch |
| held out | {metric} {selected} (the best of {seeds} seeds, which is why this one is here) |
| dev, looked at once | {metric} {dev}; mean over the seeds {mean}{floor} |
| made by | `gpt2lib study notebooks/studies/{study}.toml`, run `{run}`, revision {revision} |

**Limits.** {limits} Trained for a course: let it decide nothing about people. Research use: the data's terms hold.
"""
USE = {
    "sonnets": '`gpt2lib write "three lines"`, or `load_adapted("sonnets").write("three lines")`.',
    "quora": '`gpt2lib predict quora "one question" "another"`, or `load_adapted("quora").predict([(one, another)])`.',
}


def publish(study: str, runs_folder: Path) -> None:
    results = ROOT / "report" / "results"
    runs, _, _ = collected(study, results)
    for task in TASKS:
        mine = runs[(runs["part"] == "main") & runs["counts"] & (runs["task"] == task) & (runs["name"] == "lora")]
        if mine.empty:
            continue
        metric, sign = TASKS[task].metric, TASKS[task].sign
        order = pd.DataFrame({"by": sign * mine[f"selection_{metric}"], "loss": -mine["selection_loss"]})
        best = mine.loc[order.sort_values(["by", "loss"]).index[-1]]
        source = runs_folder / study / best["run"] / "adapter"
        if not (source / "task.json").is_file():
            print(f"{task}: {source} is not here; what is in the package stays")
            continue
        folder = ROOT / "gpt2lib" / "weights" / "adapters" / best["base_model"] / task
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            shutil.copyfile(path, folder / path.name)
        write_text(folder / "README.md", card(study, task, best, mine))
        print(f"{task}: {best['run']}, {sum(p.stat().st_size for p in folder.iterdir()):,} bytes")


def card(study: str, task: str, best: pd.Series, mine: pd.DataFrame) -> str:
    metric = TASKS[task].metric
    given = json.loads(best["parameters"])

    def shown(value: float) -> str:
        return f"{100 * value:.1f} %" if metric == "accuracy" else f"{value:.2f}"

    floor = f"; a bag of words {shown(best['bag_of_words_accuracy'])}" if metric == "accuracy" else ""
    if metric == "perplexity":
        floor = f"; before training {shown(best['perplexity_before'])}"
    return CARD.format(
        title=TASKS[task].title,
        base=best["base_model"],
        use=USE.get(task) or f'`gpt2lib predict {task} "a text"`, or `load_adapted("{task}").predict(["a text"])`.',
        depth=given["depth"],
        rank=given["rank"],
        scale=given["alpha"] / given["rank"],
        targets=" ".join(given["targets"]),
        first=given["layers"][0],
        last=given["layers"][1] - 1,
        trained=int(best["trained_params"]),
        examples=f"{given['examples']:,} examples" if given["examples"] else "all training examples",
        epochs=given["epochs"],
        lr=best["lr"],
        metric=metric,
        selected=shown(best[f"selection_{metric}"]),
        seeds=len(mine),
        dev=shown(best[metric]),
        mean=shown(mine[metric].mean()),
        floor=floor,
        study=study,
        run=best["run"],
        revision=best["revision"],
        limits=LIMITS[task],
    )


if __name__ == "__main__":
    publish(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "runs"))
