"""Files that are whole or not there: written beside, then renamed, so that no reader and no kill ever meets half of one."""

import json
import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place; what was there stays if writing fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict) -> None:
    """A safetensors file, whole. Raises OSError where it cannot be written, on a full disk for one."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        write_whole(path, lambda partial: save_file(tensors, partial, metadata={"format": "pt"}))
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None


def write_json(path: Path, content) -> None:
    """The content as indented JSON, whole."""
    write_whole(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8"))
