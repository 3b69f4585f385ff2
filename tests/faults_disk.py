"""Disks that fill, and studies that are killed at random moments: nothing is lost, and nothing is half there."""

import contextlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import torch
from conftest import write_notebook
from faults import Net
from safetensors.torch import load_file

KILLS = 20
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


def kills(net: Net) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attack(net, Path(folder), net.part(KILLS))


def attack(net: Net, folder: Path, count: int) -> None:
    """A study of one short run is done undisturbed. Then the same study is begun `count` times, and each time ended at
    a random moment: killed with all its processes, or by a disk that holds no more. The next call finishes it: its
    weights must be the undisturbed run's, bit for bit, and there must be one whole record and nothing else."""
    rng = random.Random(net.seed)
    study = written(folder)
    began = time.monotonic()
    assert start(study, folder / "undisturbed").wait() == 0
    duration = time.monotonic() - began

    def finished() -> None:
        """Finish it undisturbed, compare, and make room for another one."""
        assert start(study, folder / "struck").wait() == 0, "it could not be finished"
        compare(folder)
        shutil.rmtree(folder / "struck")

    def killed() -> None:
        process = start(study, folder / "struck")
        time.sleep(rng.uniform(0.3, 1.0) * duration)
        kill_all(process)
        whole_so_far(folder)

    def full() -> None:
        process = start(study, folder / "struck", room=rng.randrange(1_000, 50_000))  # a checkpoint is about half of it
        if process.wait():  # else there was room enough
            said = process.stderr_text().strip()
            assert "\n" not in said and said.startswith(("failed: run: ", "gpt2lib: ")), said
        whole_so_far(folder)

    for number in range(count):
        blow = full if number % 4 == 3 else killed
        net.attempt("kills and full disks", f"{blow.__name__} {number}", blow, may_refuse=False, limit=20 * duration)
        if number == count - 1 or rng.random() < 0.3 or (folder / "struck" / "short" / "run").exists():
            net.attempt("the same bits after", f"blow {number}", finished, may_refuse=False, limit=20 * duration)


def written(folder: Path) -> Path:
    (folder / "notebooks" / "studies").mkdir(parents=True)
    write_notebook(folder / "notebooks" / "short.ipynb", NOTEBOOK)
    study = folder / "notebooks" / "studies" / "short.toml"
    study.write_text('[[runs]]\nnotebook = "short"\nname = "run"\n')
    return study


class Started(subprocess.Popen):
    def stderr_text(self) -> str:
        return self.errors.read_text(encoding="utf-8", errors="replace")


def start(study: Path, runs: Path, room: int | None = None) -> Started:
    """room: bytes that a file may have on the disk that is about to be full, as the system lets anybody say it."""
    command = [sys.executable, "-m", "gpt2lib.cli", "study", str(study), "--runs", str(runs)]
    command += ["--results", str(runs / "results")]
    runs.mkdir(exist_ok=True)
    errors = runs / "stderr.txt"

    def limited() -> None:
        if room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    with errors.open("w") as file:
        process = Started(command, stdout=subprocess.DEVNULL, stderr=file, start_new_session=True, preexec_fn=limited)
    process.errors = errors
    return process


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to the study, its papermill and its kernel: as if the machine had lost power."""
    parent = psutil.Process(process.pid)
    for one in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def whole_so_far(folder: Path) -> None:
    """Whatever lies under its own name is whole: the checkpoint can be read, and a run's folder holds a record."""
    study = folder / "struck" / "short"
    if (checkpoint := study / ".work" / "run" / "checkpoint.pt").is_file():
        assert "trained" in torch.load(checkpoint, weights_only=True)
    if (study / "run").exists():
        assert json.loads((study / "run" / "result.json").read_text())["run"] == "run"


def compare(folder: Path) -> None:
    """The struck study's one run is whole, and its weights are the undisturbed one's."""
    one, other = (folder / name / "short" / "run" for name in ("undisturbed", "struck"))
    for file in ("adapter/adapter.safetensors", "adapter/head.safetensors"):
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), f"{file} differs"
    records = list((folder / "struck" / "short").glob("*/result.json"))
    assert len(records) == 1, records
    results = [json.loads((run / "result.json").read_text()) for run in (one, other)]
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["steps"] == results[1]["steps"]
    assert not list(other.rglob("*.partial*")) and not (other / "checkpoint.pt").exists()


# each writes a file of about 40 to 400 KB into a folder that has room for less, and is then asked what it left
WRITERS = {
    "a model": "random_model(n_embd=64, vocab_size=300).save_pretrained(folder)",
    "an adapter": "adapters.save(attach(random_model(n_embd=64), LoRA(rank=32, targets=tuple('qkvo'))), folder)",
    "an adapter for peft": "to_peft(attach(random_model(n_embd=64), LoRA(rank=32, targets=tuple('qkvo'))), folder)",
    "a checkpoint": "Checkpoint(folder, {}, True).save(weights=torch.zeros(50_000))",
    "JSON": "write_json(folder / 'a.json', list(range(20_000)))",
    "token ids": "tokenize(['a text'] * 20_000, load_tokenizer('gpt2-mini'))",
    "toy data": "toy.write(folder / 'toy')",
    "tables": "record.write_tables(folder, {'one': pd.DataFrame({'a': range(20_000)})}, {})",
    "a study's tables": "tables.collect('s', [rows.Record(dict(run=str(i), study='s', counts='False')) "
    "for i in range(5_000)], folder)",
}
SETUP = """
import json, os, resource, sys
from pathlib import Path
import pandas as pd
import torch
sys.path.insert(0, sys.argv[1])
from conftest import random_model
from gpt2lib import adapters
from gpt2lib.adapters import LoRA, attach, to_peft
from gpt2lib.common.whole import write_json
from gpt2lib.data import tokenize, toy
from gpt2lib.model.base import load_tokenizer
from gpt2lib.study import record, rows, tables
from gpt2lib.training.checkpoint import Checkpoint
root, room, writers = Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
os.environ["GPT2LIB_CACHE"] = str(root / "token ids")
if room:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
for name, code in writers.items():
    folder = root / name
    folder.mkdir(exist_ok=True)
    try:
        eval(code)
        said = "nothing"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    left = {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    print(json.dumps([name, said, left]), flush=True)
    if not room:  # of a disk of its own, for the next one
        __import__("shutil").rmtree(folder)
"""


def disks(net: Net) -> None:
    """Writing to a disk that fills is an OSError of one line, and leaves what was there before or nothing: for each
    writer a limit on the size of files, and where the right to mount one is there, a small disk."""
    rng = random.Random(net.seed)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(net.part(6)):
            root = Path(folder) / str(number)
            root.mkdir()
            check(net, "a limit on files", ran(root, rng.choice([1, 100, 4096, 20_000])))
        disk = Path(folder) / "disk"
        disk.mkdir()
        mount = f"mount -t tmpfs -o size={rng.choice([16, 24, 36])}k none {disk} && exec"
        for line in ran(disk, 0, ["unshare", "-rm", "sh", "-c", f'{mount} "$0" "$@"']):
            check(net, "a small disk", [line])


def ran(root: Path, room: int, before: list[str] | None = None) -> list[list]:
    """What each writer said and left."""
    command = [sys.executable, "-c", SETUP, str(Path(__file__).parent), str(root), str(room), json.dumps(WRITERS)]
    done = subprocess.run([*(before or []), *command], capture_output=True, text=True, check=False, timeout=300)
    if before and done.returncode and not done.stdout:
        return []  # no right to mount a disk
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def check(net: Net, how: str, lines: list[list]) -> None:
    for name, said, left in lines:

        def clear(name=name, said=said, left=left) -> None:
            assert said == "nothing" or (said.startswith("OSError") and "\n" not in said and len(said) < 400), said
            assert not [file for file in left if "partial" in file], left
            if said != "nothing":
                # small files of several that belong together may be there, the one that did not fit is not
                assert max([0, *left.values()]) <= 20_000 and "result.json" not in left, left

        net.attempt("full disks", f"{name}, {how}", clear, may_refuse=False)
