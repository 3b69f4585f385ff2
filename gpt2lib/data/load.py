"""The tasks' data: where the files are found, and how they are read and checked.

The formats are those of the CS224N default project: tab-separated tables with a leading index column (SST, CFIMDB,
Quora), and numbered sonnets in plain text. `load_task` is what notebooks call.
"""

import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gpt2lib.common.checks import one_line, shown
from gpt2lib.common.machine import cache_folder
from gpt2lib.data import glue, toy
from gpt2lib.data.example import Example
from gpt2lib.data.tables import check_ids, places_of, read_rows, read_text

COURSE = "https://raw.githubusercontent.com/cfifty/public_cs224n_gpt/main/data/"
TOY_SHARES = {"toy": 1.0, "toy-few": 0.02}  # of the toy data, by the name of the source
PROMPT_LINES = 3  # of a sonnet, given; the other eleven are to be written

# the course's own files, with the sha256 that a download must have; None: not in its repository in a known version
HASHES = {
    "ids-sst-train.csv": "03b2b625c090f94a6afd59f114cde5282e2053aab0b101e87ed695d8a0c5b1df",
    "ids-sst-dev.csv": "a186ce94577635fbe10beaaddd50f16cccf6c30973221cefdf90deed2a584bfe",
    "ids-sst-test-student.csv": "bdd5a767faa0c26782117e37767ece154c30d5d04fb8727d09c71e3850a55c7b",
    "ids-cfimdb-train.csv": "140fc513045a966109faed46a5c7a898767b96714d71bcb9c15f659129fadcea",
    "ids-cfimdb-dev.csv": "3087f571b66860fe5d035b5a018d08202ad3fd3720e4821c04b2acf6c7ded559",
    "ids-cfimdb-test-student.csv": "7ae611548c9eac879e9ebb406cc9f8ae68ff12f78090e4965af5cbdfa06240f4",
    "quora-train.csv": None,
    "quora-dev.csv": None,
    "quora-test-student.csv": None,
    "sonnets.txt": "722836995bea43c112897546c7d09a81458b740bb510596f7e81104ca3ab624e",
    "sonnets_held_out_dev.txt": "309ae8da81a24de61a261c291c1299f5c6bfbf4e6b7d1d5b50bd15b6c1770afd",
    "TRUE_sonnets_held_out_dev.txt": "fb41ee87e70107f554b658c8de07a6ae905298db09da84794dfaa2a61e892a1f",
    "sonnets_held_out.txt": "41417eafa263e822f1bb9e52fbdbe0ff910982d2f7663231afd3b7d6b3174ae6",
}


@dataclass(frozen=True)
class TaskData:
    """The three parts of a task's data, lists of `Example`. class_names: what the labels mean, in order; none where a
    text is to be written."""

    name: str
    source: str
    class_names: tuple[str, ...]
    train: list[Example]
    dev: list[Example]
    test: list[Example]

    def sample(self, examples: int, seed: int = 0) -> "TaskData":
        """The same data with so many of the training examples, drawn by the seed; 0 keeps them all."""
        if not examples or examples >= len(self.train):
            return self
        return replace(self, train=random.Random(seed).sample(self.train, examples))

    def __str__(self):
        made_up = " (toy data, made up)" if self.source == "toy" else ""
        return f"{self.name}: {len(self.train)} train, {len(self.dev)} dev, {len(self.test)} test{made_up}"


@dataclass(frozen=True)
class Table:
    """The columns of one task's tables, and what its labels mean; the label column is absent from its test file."""

    prefix: str
    columns: tuple[str, ...]
    label: str
    class_names: tuple[str, ...]

    def read(self, file: Callable[[str], Path]) -> tuple[list[Example], list[Example], list[Example]]:
        """The train, dev and test part. file: where a file of that name is."""
        train, dev = (read_table(file(f"{self.prefix}-{part}.csv"), self) for part in ("train", "dev"))
        return train, dev, read_table(file(f"{self.prefix}-test-student.csv"), self, labelled=False)


@dataclass(frozen=True)
class Poems:
    """The names of one task's files of numbered poems; of the test part the first lines are there."""

    files: tuple[str, str, str]
    class_names: tuple[str, ...] = ()

    def read(self, file: Callable[[str], Path]) -> tuple[list[Example], list[Example], list[Example]]:
        """As `Table.read`."""
        train, dev, test = map(file, self.files)
        return read_sonnets(train), read_sonnets(dev), read_sonnets(test, lines=PROMPT_LINES)


SENTIMENTS = ("very negative", "negative", "neutral", "positive", "very positive")
TABLES = {
    "sst": Table("ids-sst", ("id", "sentence"), "sentiment", SENTIMENTS),
    "cfimdb": Table("ids-cfimdb", ("id", "sentence"), "sentiment", ("negative", "positive")),
    "quora": Table("quora", ("id", "sentence1", "sentence2"), "is_duplicate", ("no", "yes")),
}
POEMS = {"sonnets": Poems(("sonnets.txt", "TRUE_sonnets_held_out_dev.txt", "sonnets_held_out.txt"))}
COURSE_TASKS = TABLES | POEMS  # the course's; `glue.GLUE` has the others


def load_task(name: str, source: str | Path | None = None, quiet: bool = False) -> TaskData:
    """Find, read and check the data of "sst", "cfimdb", "quora", "sonnets", or "glue/rte", "glue/mrpc", "glue/cola",
    "glue/sst2", and print how much there is.

    source: a folder in the course's layout, or "toy" for small made-up data (of the first four; "toy-few" for a
    handful of it, to try whether something runs); without it GPT2LIB_DATA, then data/ in the checkout, then a
    download. GLUE lies under glue/ there; its test part is empty, for its labels are not public. Raises ValueError for
    an unknown task or a malformed file (with its line), and FileNotFoundError that says what to put where.
    """
    if name not in (*COURSE_TASKS, *glue.GLUE):
        raise ValueError(f"no task is called {shown(name)}; possible: {', '.join((*COURSE_TASKS, *glue.GLUE))}")
    if source in TOY_SHARES and name in glue.GLUE:
        raise ValueError(f"there is no toy data for {name}; toy data is made for {', '.join(COURSE_TASKS)}")
    if source in TOY_SHARES:
        source_name, folder = "toy", toy.write(cache_folder() / f"{source}-{toy.VERSION}", TOY_SHARES[source])
    else:
        source_name, folder = "real", Path(source) if source else None
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"source={str(source)!r} is no folder; give one in the course's layout, or 'toy'")

    if name in glue.GLUE:
        task = glue.GLUE[name]
        if found := glue.find_folder(task, _places(folder)):
            train, dev = (glue.read_tsv(found / f"{part}.tsv", task) for part in ("train", "dev"))
        elif folder is not None:
            raise FileNotFoundError(f"{folder} holds no glue/{task.folder}/train.tsv and dev.tsv")
        else:
            train, dev = glue.from_hub(name)
        data = TaskData(name, source_name, task.class_names, train, dev, [])
    else:
        task = COURSE_TASKS[name]
        data = TaskData(name, source_name, task.class_names, *task.read(lambda file: find_file(file, folder)))
    if not quiet:
        print(data)
    return data


def find_file(name: str, folder: Path | None = None) -> Path:
    """The path of one of the course's files: in `folder` alone if given, else in the places that `load_task` names."""
    places = _places(folder)
    for place in places:
        if (place / name).is_file():
            return place / name
    looked = " or ".join(str(place) for place in places)
    if folder is not None or HASHES[name] is None:
        raise FileNotFoundError(
            f"{name} is not in {looked}; put the CS224N default project's file there, "
            "or set GPT2LIB_DATA to a folder that has it, or use source='toy'"
        )
    import pooch  # only a download needs it

    try:
        return Path(
            pooch.retrieve(
                COURSE + name,
                known_hash=f"sha256:{HASHES[name]}",
                path=cache_folder() / "course",
                fname=name,
                progressbar=True,
            )
        )
    except ValueError as error:  # pooch's word for a wrong hash; it has deleted the file
        raise ValueError(f"{name}: the download is not the course's file ({one_line(error)})") from None
    except Exception as error:  # requests' many kinds of "not reachable"
        raise FileNotFoundError(
            f"{name} is not in {looked} and could not be downloaded ({type(error).__name__}); "
            "put the CS224N default project's file there, or set GPT2LIB_DATA, or use source='toy'"
        ) from None


def _places(folder: Path | None) -> list[Path]:
    if folder is not None:
        return [folder]
    configured = os.environ.get("GPT2LIB_DATA")
    checkout = Path(__file__).resolve().parents[2] / "data"
    return [Path(configured), checkout] if configured else [checkout]


def read_table(path: Path, table: Table, labelled: bool = True) -> list[Example]:
    """Read one of the course's tables. Raises ValueError naming file and line for whatever is not as it should be."""
    wanted = table.columns + ((table.label,) if labelled else ())
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path}, line 1: the file is empty; expected a header with {', '.join(wanted)}")
    (_, header), *rows = rows
    where = dict(zip(wanted, places_of(wanted, header, path), strict=True))
    examples, lines = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(row)} columns, the header has {len(header)}")
        id_, *texts = (row[where[column]].strip() for column in table.columns)
        if not id_ or not texts[0]:
            raise ValueError(f"{path}, line {line}: the {'id' if not id_ else table.columns[1]} is empty")
        label = _label(row[where[table.label]], table, f"{path}, line {line}") if labelled else None
        examples.append(Example(id_, *texts, label=label))
        lines.append(line)
    if not examples:
        raise ValueError(f"{path}, line 2: there is no row under the header")
    check_ids(((line, e.id) for line, e in zip(lines, examples, strict=True)), path)
    return examples


def _label(text: str, table: Table, where: str) -> int:
    try:
        value = float(text)  # Quora writes 0.0 and 1.0
    except ValueError:
        value = -1.0
    if value not in range(len(table.class_names)):
        raise ValueError(f"{where}: {table.label} is {shown(text)}; possible: 0 to {len(table.class_names) - 1}")
    return int(value)


def read_sonnets(path: Path, lines: int | None = None) -> list[Example]:
    """Read numbered sonnets: a number alone on a line, then the poem. Indentation and empty lines are dropped.

    lines: how many each must have; None allows 8 to 20 (sonnet 99 has fifteen lines, 126 twelve). What stands before
    the first number is a title. Raises ValueError naming file and line.
    """
    sonnets: list[tuple[str, int, list[str]]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if re.fullmatch(r"\s*\d+\s*", line):
            sonnets.append((line.strip(), number, []))
        elif sonnets and line.strip():
            sonnets[-1][2].append(line.strip())
    if not sonnets:
        raise ValueError(f"{path}, line 1: no numbered sonnet; expected a number alone on a line, then its lines")
    check_ids(((number, id_) for id_, number, _ in sonnets), path)
    for id_, number, poem in sonnets:
        if lines is not None and len(poem) != lines:
            raise ValueError(f"{path}, line {number}: sonnet {id_} has {len(poem)} lines, expected {lines}")
        if lines is None and not 8 <= len(poem) <= 20:
            raise ValueError(f"{path}, line {number}: sonnet {id_} has {len(poem)} lines, expected about 14")
    return [Example(id_, "\n".join(poem)) for id_, _, poem in sonnets]
