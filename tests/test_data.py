"""Data: the course's files are read whole, and each kind of damage is one error with its file and line."""

import shutil

import pytest
from conftest import REPOSITORY

from gpt2lib.data import COURSE_TASKS, HASHES, find_file, load_task, tokenize
from gpt2lib.data.glue import GLUE
from gpt2lib.model.base import load_tokenizer

TABLE = "\tid\tsentence\tsentiment\n0\ta1\tA fine film .\t3\n1\tb2\tA dull one .\t1\n"


@pytest.mark.parametrize(
    ("task", "counts"),
    [("sst", (8544, 1101, 2210)), ("cfimdb", (1707, 245, 488)), ("quora", None), ("sonnets", (131, 12, 12))],
)
def test_the_courses_files(real_data, task, counts, capsys):
    data = load_task(task)
    if counts:
        assert (len(data.train), len(data.dev), len(data.test)) == counts
    assert f"{len(data.train)} train, {len(data.dev)} dev, {len(data.test)} test" in capsys.readouterr().out
    assert all(example.label is None for example in data.test)
    if task == "sonnets":
        assert all(len(example.text.splitlines()) == 3 for example in data.test)
        assert data.dev[0].id == "132" and data.dev[0].text.startswith("Thine eyes I love, and they, as pitying me,")
    else:
        assert {example.label for example in data.train} == set(range(len(data.class_names)))
        assert all(example.text == example.text.strip() for example in data.train)
    if task == "quora":  # odd quoting: doubled quotes inside quoted fields
        assert any(example.text.startswith('"In Breaking Bad') for example in data.test)


@pytest.mark.parametrize("task", COURSE_TASKS)
def test_toy_data_is_seeded_balanced_and_called_toy(task, toy_folder, tmp_path):
    from gpt2lib.data import toy

    data = load_task(task, "toy")
    assert data.source == "toy" and "toy" in str(data)
    again = toy.write(tmp_path / "again")
    assert all(file.read_bytes() == (again / file.name).read_bytes() for file in toy_folder.iterdir())
    texts = {(e.text, e.pair) for e in data.train}
    assert not any((e.text, e.pair) in texts for e in [*data.dev, *data.test])
    if data.class_names:
        labels = [e.label for e in data.train]
        assert min(labels.count(label) for label in range(len(data.class_names))) > 0.03 * len(labels)


def test_where_files_are_looked_for(toy_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_DATA", str(toy_folder))
    assert load_task("sst").train == load_task("sst", toy_folder).train
    monkeypatch.setenv("GPT2LIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"quora-train\.csv is not in .*GPT2LIB_DATA.*toy"):
        load_task("quora")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_task("sst", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="possible: sst, cfimdb, quora, sonnets"):
        load_task("sts")


def test_downloads_are_checked(tmp_path, monkeypatch):
    import pooch

    asked = {}

    def retrieve(url, known_hash, path, fname, progressbar):
        asked[fname] = (url, known_hash)
        raise ValueError("SHA256 hash of downloaded file does not match")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setenv("GPT2LIB_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="not the course's file"):
        find_file("sonnets.txt")
    url, known_hash = asked["sonnets.txt"]
    assert url.startswith("https://") and known_hash == f"sha256:{HASHES['sonnets.txt']}"


def damaged(toy_folder, tmp_path, name, content) -> None:
    shutil.copytree(toy_folder, tmp_path / "data", dirs_exist_ok=True)
    (tmp_path / "data" / name).write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: the file is empty"),
        ("\tid\ttext\tsentiment\n", "line 1: no column sentence"),
        ("\tid\tsentence\n0\ta\tfine\n", "line 1: no column sentiment"),
        ("\tid\tsentence\tsentiment\n", "line 2: there is no row"),
        (TABLE + "2\tc3\tcut sho", "line 4: 3 columns, the header has 4"),
        (TABLE + "2\tc3\tgood\t5\n", "line 4: sentiment is '5'; possible: 0 to 4"),
        (TABLE + "2\tc3\tgood\t\n", "line 4: sentiment is ''"),
        (TABLE + "2\tc3\tgood\t2.5\n", "line 4: sentiment is '2.5'"),
        (TABLE + "2\tc3\tgood\tnan\n", "line 4: sentiment is 'nan'"),
        (TABLE + "2\tc3\t  \t2\n", "line 4: the sentence is empty"),
        (TABLE + "2\t\tgood\t2\n", "line 4: the id is empty"),
        (TABLE + '2\tc3\t"an open quote\t2\n3\td4\tswallowed\t1\n', "line 4: .*a quote is opened and not closed"),
        (TABLE + '2\tc3\t"an open quote\t2\n3\td4\tswallowed"\t1\n', "line 4: .*a quote is opened and not closed"),
        (TABLE + '2\tc3\t"closed" early\t2\n', "line 4: no row of a table"),
        (TABLE + "2\tc3\t" + "x" * 200_000 + "\t2\n", "line 4: no row of a table .*131072"),
        (TABLE + "2\ta1\tagain\t2\n", "line 4: the id 'a1' is that of line 2, too"),
        (TABLE + "2\tNA\tgood\t2\n", "line 4: the id 'NA' must be of letters"),
        (TABLE + "2\ta,b\tgood\t2\n", "line 4: the id 'a,b' must be"),
        (TABLE + '2\t"c\n3"\tgood\t2\n', r"line 4: the id 'c\\n3' must be"),
        (TABLE.replace("\tid", "id\tid", 1), "line 1: no column id, or two"),
        (TABLE.encode() + "2\tc3\tcaf\u00e9\t2\n".encode("latin-1"), "line 4: the byte 0xe9 is not UTF-8"),
    ],
)
def test_each_malformed_table_is_one_error_with_its_line(toy_folder, tmp_path, content, message):
    damaged(toy_folder, tmp_path, "ids-sst-dev.csv", content)
    with pytest.raises(ValueError, match=rf"ids-sst-dev\.csv, {message}"):
        load_task("sst", tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: no numbered sonnet"),
        ("only a title\n", "line 1: no numbered sonnet"),
        ("1\n\none line\n", "line 1: sonnet 1 has 1 lines"),
        ("1\n\n" + "line\n" * 14 + "\n2\n", "line 18: sonnet 2 has 0 lines"),
        (("1\n" + "line\n" * 14) * 2, "line 16: the id '1' is that of line 1, too"),
        (b"1\n" + b"line\n" * 13 + b"caf\xe9\n", "line 15: the byte 0xe9 is not UTF-8"),
    ],
)
def test_each_malformed_sonnet_is_one_error_with_its_line(toy_folder, tmp_path, content, message):
    damaged(toy_folder, tmp_path, "sonnets.txt", content)
    with pytest.raises(ValueError, match=rf"sonnets\.txt, {message}"):
        load_task("sonnets", tmp_path / "data")


def test_a_byte_order_mark_is_no_text(toy_folder, tmp_path):
    for name in ("sonnets.txt", "ids-sst-dev.csv"):
        damaged(toy_folder, tmp_path, name, b"\xef\xbb\xbf" + (toy_folder / name).read_bytes())
    for task in ("sonnets", "sst"):
        assert load_task(task, tmp_path / "data") == load_task(task, toy_folder)


def test_a_quoted_text_may_run_over_lines(toy_folder, tmp_path):
    damaged(
        toy_folder, tmp_path, "ids-sst-dev.csv", TABLE + '2\tc3\t"two\nlines, ""both"" good"\t2\n\n3\td4\tfine\t9\n'
    )
    with pytest.raises(ValueError, match="line 7: sentiment is '9'"):
        load_task("sst", tmp_path / "data")


def test_a_test_file_needs_no_label_and_a_missing_file_is_named(toy_folder, tmp_path):
    damaged(toy_folder, tmp_path, "ids-sst-test-student.csv", "0\t\tid\tsentence\n1\t0.0\tx9\tA fine film .\n")
    (test,) = load_task("sst", tmp_path / "data").test
    assert (test.id, test.text, test.label) == ("x9", "A fine film .", None)
    (tmp_path / "data" / "ids-sst-dev.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"ids-sst-dev\.csv"):
        load_task("sst", tmp_path / "data")


GLUE_FILES = {
    "glue/rte": 'index\tsentence1\tsentence2\tlabel\n0\tA "quote.\tB.\tentailment\n1\tC.\tD.\tnot_entailment\n',
    "glue/mrpc": '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA "quote.\tB.\n0\t9\t10\tC.\tD.\n',
    "glue/cola": 'gj04\t1\t\tA "quote.\ngj04\t0\t*\tC.\n',
    "glue/sst2": 'sentence\tlabel\nA "quote. \t1\nC.\t0\n',
}


@pytest.mark.parametrize("name", GLUE)
def test_glues_own_files(tmp_path, name):
    folder = tmp_path / "glue" / GLUE[name].folder
    folder.mkdir(parents=True)
    for part in ("train", "dev"):
        (folder / f"{part}.tsv").write_text(GLUE_FILES[name], encoding="utf-8")
    data = load_task(name, tmp_path)
    pairs = len(GLUE[name].texts) == 2
    assert [(e.text, e.pair) for e in data.dev] == [
        ('A "quote.', "B." if pairs else None),
        ("C.", "D." if pairs else None),
    ]
    assert {e.label for e in data.train} == {0, 1} and len(data.class_names) == 2 and len(data.test) == 0
    lines = GLUE_FILES[name].splitlines()
    (folder / "dev.tsv").write_text(
        "\n".join([*lines, lines[-1].replace("0\t", "7\t", 1).replace("not_", "un").replace("C.\t0", "C.\t7")])
    )
    with pytest.raises(ValueError, match=rf"dev\.tsv, line {len(lines) + 1}: the label is .*; possible: "):
        load_task(name, tmp_path)
    (folder / "dev.tsv").write_text(lines[0] + "\ncut")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2: 1 columns"):
        load_task(name, tmp_path)
    (folder / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=GLUE[name].folder):
        load_task(name, tmp_path)


def test_glue_without_files_or_network_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_DATA", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"put GLUE's files at glue/RTE/train\.tsv"):
        load_task("glue/rte")
    with pytest.raises(ValueError, match="no toy data for glue/rte"):
        load_task("glue/rte", "toy")


@pytest.mark.parametrize(("name", "sizes"), [("rte", (2490, 277)), ("mrpc", (3668, 408)), ("cola", (8551, 1043))])
def test_real_glue(real_data, name, sizes):
    data = load_task(f"glue/{name}")
    assert (len(data.train), len(data.dev)) == sizes


def test_without_any_setting_the_checkout_is_looked_in(monkeypatch):
    monkeypatch.delenv("GPT2LIB_DATA", raising=False)
    monkeypatch.setitem(HASHES, "no-such-file.csv", None)
    with pytest.raises(FileNotFoundError, match=rf"^no-such-file\.csv is not in {REPOSITORY / 'data'}; .*GPT2LIB_DATA"):
        find_file("no-such-file.csv")


@pytest.mark.parametrize("task", ["sst", "cfimdb", "quora", "sonnets"])
def test_a_handful_of_toy_data_has_every_part_and_is_called_toy(task):
    few = load_task(task, "toy-few", quiet=True)
    assert few.source == "toy" and all(0 < len(part) < 30 for part in (few.train, few.dev, few.test))


TEXTS = ["A fine film .", "A dull one ."]


@pytest.mark.parametrize("damage", [b"", b"no archive", None], ids=["empty", "junk", "cut"])
def test_a_damaged_cache_of_tokens_is_made_again(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    tokenizer = load_tokenizer("gpt2-mini")
    ids = tokenize(TEXTS, tokenizer)
    (file,) = (tmp_path / "tokens").iterdir()
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    assert tokenize(TEXTS, tokenizer) == ids == tokenize(TEXTS, tokenizer)


def test_texts_that_differ_have_tokens_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2LIB_CACHE", str(tmp_path))
    tokenizer = load_tokenizer("gpt2-mini")
    assert len(tokenize(["a\0b"], tokenizer)) == 1 and len(tokenize(["a", "b"], tokenizer)) == 2
    assert len(tokenize(["a\0", "b"], tokenizer)[0]) != len(tokenize(["a", "\0b"], tokenizer)[0])


@pytest.mark.parametrize("damage", ["changed", "missing", "more"])
def test_damaged_toy_data_is_made_again(tmp_path, damage):
    from gpt2lib.data import toy

    folder = toy.write(tmp_path / "toy", 0.02)
    good = {file.name: file.read_bytes() for file in folder.iterdir()}
    file = folder / "sonnets.txt"
    if damage == "missing":
        file.unlink()
    else:
        file.write_text("1\n" if damage == "changed" else file.read_text() + "2\n")
    toy.write(folder, 0.02)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == good
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
