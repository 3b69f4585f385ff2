"""Kill a study at random moments, again and again, and show that nothing is lost:

    python tests/faults.py --kills 20

A study of one short run is first done undisturbed. Then the same study is started and killed, with all its processes,
at random moments, until it was killed as often as asked; the next call finishes it. Its weights must be the undisturbed
run's, bit for bit, and there must be one complete record.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import jupytext
import torch
from safetensors.torch import load_file

NOTEBOOK = textwrap.dedent("""
    # %% tags=["parameters"]
    seed: int = 0
    out: str = ""

    # %%
    import torch
    from gpt2lib import GPT2, GPT2Config
    from gpt2lib.adapters import AlphaLoRA
    from gpt2lib.model.base import base_name
    from gpt2lib.data import load_task
    from gpt2lib.model.base import load_tokenizer
    from gpt2lib.study.record import write_run
    from gpt2lib.tasks import Encoder, prepare
    from gpt2lib.training import TrainingSettings, evaluate, fit

    tokenizer = load_tokenizer("gpt2-mini")
    torch.manual_seed(seed)
    body = GPT2(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=len(tokenizer), n_positions=64, resid_pdrop=0.1))
    data = load_task("sst", "toy").sample(320)
    model = prepare(data, body, tokenizer, AlphaLoRA(rank=2, every=3))
    encoder = Encoder("sst", tokenizer, 64)
    settings = TrainingSettings(epochs=20, batch_size=16, eval_every=100, seed=seed)

    # %%
    progress = fit(model, encoder(data.train), encoder(data.dev), settings, folder=out, checkpoint_seconds=0.2)

    # %%
    metrics, predictions = evaluate(model, encoder(data.dev))
    write_run(out, data, model, encoder, progress, settings, metrics, predictions, "tiny", "alpha-lora")
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        attack(Path(folder), arguments.kills, random.Random(arguments.seed))


def attack(folder: Path, kills: int, rng: random.Random, say=print) -> None:
    """Do all of it in `folder`; raises AssertionError if anything was lost."""
    (folder / "notebooks" / "studies").mkdir(parents=True)
    notebook = jupytext.reads(NOTEBOOK, "py:percent")
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    jupytext.write(notebook, folder / "notebooks" / "short.ipynb")
    study = folder / "notebooks" / "studies" / "short.toml"
    study.write_text('[[runs]]\nnotebook = "short"\nname = "run"\n')

    began = time.monotonic()
    whole = start(study, folder / "undisturbed")
    assert whole.wait() == 0
    duration = time.monotonic() - began
    say(f"undisturbed: {duration:.1f} s")

    killed, at_step = 0, []
    while killed < kills:
        process = start(study, folder / "killed")
        time.sleep(rng.uniform(0.3, 1.0) * duration)
        kill_all(process)
        work = folder / "killed" / "short" / ".work" / "run"
        if (folder / "killed" / "short" / "run").exists():  # it was done before the blow fell: begin again
            check(folder, say)
            subprocess.run(["rm", "-r", str(folder / "killed")], check=True)
        killed += 1
        progress = work / "progress.json"
        at_step.append(json.loads(progress.read_text())["step"] if progress.is_file() else 0)
        say(f"kill {killed}: checkpoint and progress near step {at_step[-1]}")
    while start(study, folder / "killed").wait():
        pass
    check(folder, say)


def start(study: Path, runs: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "gpt2lib.cli", "study", str(study), "--runs", str(runs)]
    command += ["--results", str(runs / "results")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to the study, its papermill and its kernel: as if the machine had lost power."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    family = [process.pid]
    for pid in family:
        family += children.get(pid, [])
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def check(folder: Path, say) -> None:
    """The killed study's one run is whole, and its weights are the undisturbed one's."""
    one, other = (folder / name / "short" / "run" for name in ("undisturbed", "killed"))
    for file in ("adapter/adapter.safetensors", "head.safetensors"):
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), f"{file} differs"
    records = list((folder / "killed" / "short").glob("*/result.json"))
    assert len(records) == 1, records
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["steps"] == results[1]["steps"]
    assert not list(other.glob("*.partial*")) and not (other / "checkpoint.pt").exists()
    say(f"whole: weights bit-identical, one record, accuracy {results[1]['metrics']['accuracy']:.3f}")


if __name__ == "__main__":
    main()
