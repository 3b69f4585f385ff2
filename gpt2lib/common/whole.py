"""Files that are whole or not there: written beside, then renamed, so that no reader and no kill meets half of one."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gpt2lib.common.checks import brief, one_line


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place; what was there stays if writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """A folder to write several files to that belong together: they appear in `folder` only when all of them are whole,
    in the order in which they were written, and none does if writing one fails. (A machine that stops between two of
    the last renames, which write nothing, can still leave some of them.)"""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        yield partial
        for path in sorted(partial.iterdir(), key=lambda path: path.stat().st_mtime_ns):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(partial)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that gets its name, `folder`, when it is whole, and is gone if filling it fails. Where another
    process made it meanwhile, that one stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        yield partial
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_tensors(path: Path, tensors: dict) -> None:
    """A safetensors file, whole. Raises OSError where it cannot be written, on a full disk for one."""

    def write(partial: Path) -> None:
        partial.touch()
        mode = partial.stat().st_mode  # what the user's umask leaves; safetensors would write for the owner alone
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.chmod(mode)

    try:
        write_whole(path, write)
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None


def read_tensors(path: Path) -> dict:
    """The tensors of a safetensors file by name. Raises FileNotFoundError, or ValueError for a file that is damaged,
    cut short, or holds values that are no finite numbers."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged or cut short ({one_line(error)}); fetch or write it again") from None
    # a sum is ten times as fast as asking each value, and of a base's 130 million it says that all is well
    odd = [name for name, values in tensors.items() if not values.sum(dtype=torch.float32).isfinite()]
    if wrong := [name for name in odd if not tensors[name].isfinite().all()]:
        raise ValueError(f"{path}: damaged ({brief(wrong[0])} holds values that are no numbers)")
    return tensors


def read_json(path: Path):
    """What a JSON file holds. Raises ValueError, naming file and line, for one that is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not JSON (not UTF-8)") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of brackets
        raise ValueError(f"{path}: not JSON ({type(error).__name__})") from None


def write_json(path: Path, content) -> None:
    """The content as indented JSON, whole."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_table(path: Path, table, digits: int | None = None) -> None:
    """A pandas table as CSV, whole. digits: of its numbers; None: all."""
    format_ = digits and f"%.{digits}g"
    write_whole(path, lambda partial: table.to_csv(partial, index=False, float_format=format_))


def write_text(path: Path, text: str) -> None:
    """The text in UTF-8, whole."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
