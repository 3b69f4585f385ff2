"""Bits per byte of the bases on real texts that gpt2-mini was not trained on, for the README's table of bases.

python tools/measure_bases.py      # needs GPT2LIB_DATA and GPT2LIB_CORPUS; minutes; writes report/results/bases.csv
"""

import random
from pathlib import Path

import pandas as pd

from gpt2lib import load_base
from gpt2lib.data import load_task
from gpt2lib.data.pretraining import corpus, every_nth_held_out
from gpt2lib.model.base import base_name
from gpt2lib.tasks.probe import bits_per_byte

BASES = ("untrained:gpt2-mini", "gpt2-mini", "smollm2-135m")
SHORT = ("sst", "quora", "questions")  # of which more texts are needed for as many bytes
PATH = Path(__file__).resolve().parent.parent / "report" / "results" / "bases.csv"


def texts() -> dict[str, list[str]]:
    """Of each kind some texts, at most 800 bytes of each: dev parts of the tasks, held-out documents of the corpus."""
    kinds = {name: every_nth_held_out(documents, every=100)[1] for name, documents in corpus().items()}
    kinds |= {task: [e.text for e in load_task(task, quiet=True).dev] for task in ("sst", "cfimdb", "quora")}
    kinds["sonnets"] = [e.text for e in load_task("sonnets", quiet=True).train]
    rng = random.Random(0)
    drawn = {
        name: rng.sample(kinds[name], min(60 if name in SHORT else 12, len(kinds[name]))) for name in sorted(kinds)
    }
    return {name: [text.encode()[:800].decode(errors="ignore") for text in some] for name, some in drawn.items()}


if __name__ == "__main__":
    rows, read = [], texts()
    for base in BASES:
        body, tokenizer = load_base(base)
        for name, some in read.items():
            row = {
                "base": base_name(base),
                "text": name,
                "texts": len(some),
                "bytes": sum(len(t.encode()) for t in some),
            }
            rows.append(row | {"bits_per_byte": bits_per_byte(body, tokenizer, some)})
    pd.DataFrame(rows).to_csv(PATH, index=False, float_format="%.3f")
