"""Files of every format that gpt2lib reads, damaged at random and by rule."""

import csv
import io
import json
import lzma
import re
import tempfile
from pathlib import Path

import pandas as pd
from conftest import write_notebook
from faults import Net
from faults_damage import damaged, damaged_json, each
from faults_weights import caches, pickles, weights
from hypothesis import strategies as st

from gpt2lib.common.whole import write_json, write_text
from gpt2lib.data import glue, pretraining
from gpt2lib.data.load import TABLES, read_sonnets, read_table
from gpt2lib.study.board import _line
from gpt2lib.study.notebook import notebook_parameters
from gpt2lib.study.plan import plan
from gpt2lib.study.rows import read_run
from gpt2lib.study.rows import read_table as read_collected
from gpt2lib.study.tables import collect
from gpt2lib.tasks.scoring import score

LITERALS = ["5", "-1", "nan", "inf", '""', '"x"', '"../x"', '"run:it/x"', "true", "[]", "[1, 1]", "[1979-05-27]", "{}"]
LITERALS += ["9999999999999999999999", '["sst"]', "[[1]]", "1979-05-27T07:32:00Z", "{ a = 1 }", '{ seed = ["a"] }']
LITERALS += ["{ share = [0.5, 0.25] }", "{ seed = [0, 1] }", '{ share = "sst" }', "[0, 1]", "{ number = 3 }", '"one"']


def files(net: Net) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate((tables, whole_tables, studies, records, collecting, weights, caches, pickles)):
            room = Path(folder) / str(number) / "room"  # what lies beside it would be outside
            room.mkdir(parents=True)
            kind(net, room)


def tables(net: Net, room: Path) -> None:
    rows = '0\ta1\tA fine film .\t3\n1\tb2\tA dull one .\t1\n2\tc3\t"a ""quoted"" one"\t0\n'

    def read(path: Path) -> None:
        examples = read_table(path, TABLES["sst"])
        assert len({e.id for e in examples}) == len(examples) and all(e.text and 0 <= e.label < 5 for e in examples)

    path = room / "ids-sst-dev.csv"
    each(net, "tables", path, 40, damaged(f"\tid\tsentence\tsentiment\n{rows}".encode()), lambda: read(path))
    for name, text in {
        "glue/rte": "index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n1\tC.\tD.\tnot_entailment\n",
        "glue/cola": 'gj04\t1\t\tA "quote.\ngj04\t0\t*\tC.\n',
    }.items():
        path = room / "dev.tsv"
        each(
            net,
            "tables",
            path,
            15,
            damaged(text.encode()),
            lambda name=name: glue.read_tsv(room / "dev.tsv", glue.GLUE[name]),
        )
        path.unlink()
    sonnets = "".join(f"{i}\n\n" + "A line,\n" * 14 for i in (1, 2)).encode()

    def read_poems() -> None:
        poems = read_sonnets(room / "sonnets.txt")
        assert len({e.id for e in poems}) == len(poems) and all(8 <= len(e.text.splitlines()) <= 20 for e in poems)

    each(net, "tables", room / "sonnets.txt", 20, damaged(sonnets), read_poems)
    predictions = room / "study-test.parquet"
    pd.DataFrame({"run": "a", "task": "sst", "id": ["x1", "x2"], "label": [4, 1]}).to_parquet(predictions)

    def read_labels() -> None:
        assert score(predictions, room / "labels.csv")["test_accuracy"].between(0, 1).all()

    each(net, "tables", room / "labels.csv", 20, damaged(b"id,label\nx1,4\nx2,0\n"), read_labels)
    labels = room / "labels.csv"
    labels.write_text("id,label\nx1,4\nx2,0\n")
    each(net, "tables", predictions, 10, damaged(predictions.read_bytes()), read_labels)
    for name in ("part.txt", "part.txt.xz"):
        text = b"a line\nanother\\nof two\n"
        valid = lzma.compress(text) if name.endswith("xz") else text
        each(
            net, "tables", room / name, 10, damaged(valid), lambda name=name: list(pretraining.read_corpus(room / name))
        )


def whole_tables(net: Net, room: Path) -> None:
    """Files that are as they should be, whatever their texts hold: read exactly, and never refused."""
    letters = st.characters(exclude_categories=["Cs"])
    text = st.text(letters, min_size=1, max_size=60).filter(lambda t: t.strip() and not ("\t" in t and "\n" in t))

    def attempt(rows: list[tuple[str, int]]) -> None:
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter="\t", lineterminator="\r\n")
        writer.writerow(["", "id", "sentence", "sentiment"])
        writer.writerows([i, f"id{i}", text, float(label)] for i, (text, label) in enumerate(rows))
        path = room / "ids-sst-dev.csv"
        path.write_bytes(out.getvalue().encode())

        def read() -> None:
            seen = [(e.text, e.label) for e in read_table(path, TABLES["sst"])]
            assert seen == [(text.strip(), label) for text, label in rows], seen

        net.attempt("whole tables", repr(rows), read, watch=room, may_refuse=False)

    net.draw(40, st.lists(st.tuples(text, st.integers(0, 4)), min_size=1, max_size=5), attempt)
    line = st.text(letters, min_size=1, max_size=30).filter(
        lambda t: len(t.splitlines()) == 1 and re.search(r"\D", t.strip())
    )

    def attempt_poem(lines: list[str]) -> None:
        (room / "sonnets.txt").write_bytes(("A title\n\n154\n\n" + "\n".join(lines) + "\n").encode())

        def read() -> None:
            (poem,) = read_sonnets(room / "sonnets.txt")
            assert poem.text.split("\n") == [line.strip() for line in lines]

        net.attempt("whole tables", repr(lines), read, watch=room, may_refuse=False)

    net.draw(20, st.lists(line, min_size=8, max_size=20), attempt_poem)


def studies(net: Net, room: Path) -> None:
    (room / "studies").mkdir()
    write_notebook(room / "one.ipynb")
    path = room / "studies" / "study.toml"

    def read() -> None:
        runs = plan(path)
        names = [run.name for run in runs]
        assert len(set(names)) == len(names)
        for run in runs:
            assert run.needs <= set(names) and (room / run.name).resolve().parent == room.resolve()

    keys = ["name", "part", "tune_seeds", "parameters", "grid", "tune", "trial_parameters", "notebook"]
    chosen = st.dictionaries(st.sampled_from(keys), st.sampled_from(LITERALS), max_size=4)
    made = chosen.map(
        lambda d: "\n".join(["[[runs]]", *(f"{k} = {v}" for k, v in ({"notebook": '"one"'} | d).items())])
    )
    each(net, "studies", path, 60, made.map(str.encode), read)
    top = st.tuples(st.sampled_from(["runs", "defaults", "other"]), st.sampled_from(LITERALS))
    each(net, "studies", path, 10, top.map(lambda t: f"{t[0]} = {t[1]}\n".encode()), read)
    valid = (
        b'[defaults]\nseed = 7\n[[runs]]\nnotebook = "one"\ngrid = { mode = ["good", "fine"], share = [0.25, 0.75] }\n'
    )
    each(net, "studies", path, 30, damaged(valid), read)
    path.write_bytes(valid)
    whole = json.loads((room / "one.ipynb").read_text())

    def read_notebook() -> None:
        notebook_parameters.cache_clear()
        read()

    each(net, "studies", room / "one.ipynb", 20, damaged_json(whole), read_notebook, names=str(room))


def records(net: Net, room: Path) -> None:
    result = {
        "study": "s",
        "run": "room",
        "part": "trials",
        "notebook": "one",
        "task": "sst",
        "method": "lora",
        "seed": 0,
    }
    result |= {"metric": "accuracy", "sign": 1, "metrics": {"accuracy": 0.5, "loss": 1.2}, "versions": {"torch": "2"}}
    result |= {"parameters": {"rank": 4, "targets": ["q"]}, "selection": {"accuracy": 0.4, "loss": 1.3}}

    def read() -> None:
        if (record := read_run(room)) is not None:
            trial = record.row["part"] == "trials"
            assert (not trial or len(record.score) == 2) and all(
                isinstance(value, str) for value in record.row.values()
            )

    each(net, "records", room / "result.json", 40, damaged_json(result), read)
    (room / "result.json").write_text(json.dumps(result))
    (room / "adapter").mkdir()
    attached = {"spec": {"rank": 4, "alpha": 8.0, "targets": ["q", "v"]}, "base": "x"}
    each(net, "records", room / "adapter" / "adapter.json", 10, damaged_json(attached), read, names="result.json")
    table = b'study,run,part,counts,parameters\nstudy,a,main,True,"{""rank"": 4}"\nstudy,b,main,True,{}\n'
    path = room / "study.csv"
    each(net, "records", path, 30, damaged(table), lambda: read_collected(path, "study"))
    progress = {"step": 3, "steps": 9, "loss": 0.5, "tokens_per_second": 7.0, "seconds_left": 60.0}

    def shown() -> None:
        assert isinstance(_line("run", room), str)

    each(net, "records", room / "progress.json", 20, damaged_json(progress), shown, may_refuse=False)


def collecting(net: Net, room: Path) -> None:
    """One file of a run, or of what was collected before, is damaged: the tables are right, or all as they were."""
    results, runs = room / "results", [room / name for name in ("a", "b")]
    for run in runs:
        record = {"study": "s", "run": run.name, "part": "main", "notebook": "one", "task": "sst", "method": "lora"}
        record |= {"seed": 0, "metric": "accuracy", "sign": 1, "metrics": {"accuracy": 0.5}, "versions": {}}
        write_json(run / "result.json", record | {"parameters": {}})
        write_text(run / "history.csv", "step,accuracy\n1,0.5\n2,0.25\n")
        write_text(run / "examples.csv", "id,label,prediction,loss,correct\nx1,1,1,0.5,True\nx2,0,1,1.5,False\n")
        write_text(run / "test-predictions.csv", "id \t Predicted_Sentiment\nx3, 1\nx4, 0\n")
        write_text(run / "tables" / "one.csv", "size,value\n1,0.5\n")
        write_json(run / "sonnets.json", [{"id": "1", "given": "a", "written": "b", "true": "c"}])
        write_json(run / "floors.json", {"given lines alone": {"chrf_whole": 3.5}})

    def collected(elsewhere: bool) -> dict[str, bytes]:
        records = [read_run(run) for run in runs]
        if elsewhere:  # of the second run only what was collected is there
            there = read_collected(results / "s.csv", "s")
            records[1:] = [there["b"]] if "b" in there else []
        collect("s", records, results)
        return {path.name: path.read_bytes() for path in results.iterdir()}

    good = collected(elsewhere=False)
    assert collected(elsewhere=True) == good

    def attempt(path: Path, content: bytes) -> None:
        whole = path.read_bytes()
        path.write_bytes(content)
        before = {p.name: p.read_bytes() for p in results.iterdir()}

        def call() -> None:
            try:
                collected(elsewhere=path.parent == results)
            except Exception:
                assert {p.name: p.read_bytes() for p in results.iterdir()} == before, "half of the tables changed"
                raise

        net.attempt("collecting", f"{path.name}: {content[:100]}", call, names=path.name)
        path.write_bytes(whole)
        for name, kept in good.items():
            (results / name).write_bytes(kept)

    for path in sorted(path for folder in (runs[0], results) for path in folder.rglob("*") if path.is_file()):
        net.draw(6, damaged(path.read_bytes()), lambda content, path=path: attempt(path, content))
