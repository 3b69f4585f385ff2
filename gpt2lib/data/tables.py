"""Reading text from files that others wrote: a right result, or one error with the file and its line."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from gpt2lib.common.checks import brief, shown

NOT_THERE = {"na", "n/a", "nan", "-nan", "null", "none"}  # what readers of tables take for a missing value


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark. Raises ValueError for other bytes."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: the byte {content[error.start]:#x} is not UTF-8; save it so") from None


def read_rows(path: Path, separator: str = "\t", quoted: bool = True) -> list[tuple[int, list[str]]]:
    """The rows of a table, each with the number of the line on which it begins; lines that are empty are none.

    quoted: a field may stand in quotes, and then run over several lines. Raises ValueError for damaged quoting, and for
    a quoted field that holds a separator and a line's end: it was never closed, and has swallowed rows.
    """
    rows, line = [], 1
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=separator, quoting=quoting, strict=True)
    try:
        for row in reader:
            if any(separator in field and "\n" in field for field in row):
                raise csv.Error("a quote is opened and not closed")
            if row:
                rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        why = "a quote is opened and not closed" if "end of data" in str(error) else error
        raise ValueError(f"{path}, line {line}: no row of a table ({why})") from None
    return rows


def places_of(columns: Iterable[str], header: list[str], path: Path) -> list[int]:
    """Where each of the columns stands. Raises ValueError for one that is not there, or there twice."""
    if missing := [column for column in columns if header.count(column) != 1]:
        raise ValueError(
            f"{path}, line 1: no column {', '.join(missing)}, or two; the header has {brief(', '.join(header))}"
        )
    return [header.index(column) for column in columns]


def check_ids(ids: Iterable[tuple[int, str]], path: Path) -> None:
    """Refuses, by line, an id that occurs twice, or that a table of predictions could not give back as it was."""
    first: dict[str, int] = {}
    for line, id_ in ids:
        if not re.fullmatch(r"[\w.:/+-]+", id_) or id_.lower() in NOT_THERE:
            raise ValueError(
                f"{path}, line {line}: the id {shown(id_)} must be of letters, digits and _ . : / + -, and no NA"
            )
        if id_ in first:
            raise ValueError(f"{path}, line {line}: the id {shown(id_)} is that of line {first[id_]}, too")
        first[id_] = line
