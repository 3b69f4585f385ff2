"""Whoever holds the labels can score a study's test predictions."""

import pandas as pd
import pytest

from gpt2lib.tasks.scoring import score


@pytest.fixture
def study(tmp_path):
    """Predictions of two SST runs and one Quora run, and the study's table."""
    rows = [("a", "sst", "x1", 4), ("a", "sst", "x2", 0), ("b", "sst", "x1", 4), ("b", "sst", "x2", 1)]
    rows += [("c", "quora", "q1", 1), ("c", "quora", "q2", 1)]
    pd.DataFrame(rows, columns=["run", "task", "id", "label"]).to_parquet(tmp_path / "mini-test.parquet")
    pd.DataFrame({"run": ["a", "b", "c"], "accuracy": [0.1, 0.2, 0.3]}).to_csv(tmp_path / "mini.csv", index=False)
    return tmp_path


def test_each_file_of_labels_scores_its_own_runs_and_the_table_grows(study):
    (study / "sst.csv").write_text("\tid\tsentence\tsentiment\n0\tx1\tgood\t4\n1\tx2\tbad\t0\n")
    (study / "quora.csv").write_text("id,is_duplicate\nq1,1.0\nq2,0.0\n")
    before = (study / "mini.csv").read_bytes()
    scored = score(study / "mini-test.parquet", study / "sst.csv").set_index("run")["test_accuracy"]
    assert scored.to_dict() == {"a": 1.0, "b": 0.5}
    assert not (study / "mini-scores.csv").exists()  # unless asked to
    for labels in ("sst.csv", "quora.csv", "sst.csv"):
        score(study / "mini-test.parquet", study / labels, write=True)
    table = pd.read_csv(study / "mini-scores.csv").set_index("run")
    assert table["test_accuracy"].to_dict() == {"a": 1.0, "b": 0.5, "c": 0.5}
    assert (study / "mini.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,wrong\nx1,1\n", "line 1: needs a column id and one of"),
        ("id,label\nx1,1\nx2,good\n", "line 3: label is 'good', not a number"),
        ("id,label\nx1,1\nx1,1\n", "line 3: the id 'x1' is that of line 2, too"),
        ("id,label\nx1,1\nx2,-1\n", "-1 is no class of sst; possible: 0 to 4"),
        ("id,label\nx1,1\nx2,99\n", "99 is no class of sst"),
        ("id,label\nx1,1\nx2,0.7\n", "line 3: label is '0.7', not the number of a class"),
        ("id,label\nx1,1\nx2,inf\n", "line 3: label is 'inf', not a number"),
        ("id,label\nx1,1\nx2\n", "line 3: 1 columns, the header has 2"),
        ("", "line 1: needs a column id"),
        ("id,label\nx1,1\nx2,\xe9\n", "line 3: the byte 0xe9 is not UTF-8"),
        ("id,label\ny1,1\ny2,1\n", "its 2 ids are those of no run"),
    ],
)
def test_what_is_wrong_with_the_labels_is_said(study, content, message):
    (study / "labels.csv").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        score(study / "mini-test.parquet", study / "labels.csv", write=True)
    assert not (study / "mini-scores.csv").exists()


def test_a_broken_table_of_predictions_is_named(study):
    (study / "labels.csv").write_text("id,label\nx1,1\n")
    (study / "broken-test.parquet").write_bytes(b"not a table")
    with pytest.raises(ValueError, match=r"broken-test.parquet: no table of predictions"):
        score(study / "broken-test.parquet", study / "labels.csv")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        score(study / "missing-test.parquet", study / "labels.csv")


def test_predictions_of_no_known_task_are_refused(study):
    (study / "labels.csv").write_text("id,label\nx1,1\nx2,1\n")
    table = pd.read_parquet(study / "mini-test.parquet")
    table.loc[table["run"] == "b", "task"] = "sst9"
    table.to_parquet(study / "mini-test.parquet")
    with pytest.raises(ValueError, match=r"mini-test.parquet: no task is called 'sst9'; possible: sst,"):
        score(study / "mini-test.parquet", study / "labels.csv")
