"""What a study shows while it runs."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from gpt2lib.common.whole import read_json


class Board:
    """Events as they come, and one line for each run under way, rewritten in place on a terminal and said twice a
    minute elsewhere, if there is news."""

    def __init__(self, say):
        self.live = sys.stderr.isatty()
        self.say = tqdm.write if self.live else say
        self.bars, self.lines, self.shown = {}, {}, time.monotonic()

    def show(self, running: dict[str, Path]) -> None:
        """running: the working folder of each run."""
        if time.monotonic() - self.shown < (1 if self.live else 30):
            return
        self.shown = time.monotonic()
        for name in [name for name in self.bars if name not in running]:
            self.bars.pop(name).close()
        for name, work in running.items():
            if not (line := _line(name, work)):
                continue
            if not self.live:
                if self.lines.get(name) != line:
                    self.lines[name] = line
                    self.say(line)
                continue
            if name not in self.bars:
                self.bars[name] = tqdm(bar_format="{desc}", leave=False)
            self.bars[name].set_description_str(line)

    def close(self) -> None:
        for bar in self.bars.values():
            bar.close()


def _line(name: str, work: Path) -> str:
    """How far a run has come; "" if it does not say."""
    try:
        now = read_json(work / "progress.json")
        return (
            f"{name}: step {now['step']}/{now['steps']}, loss {now['loss']:.3f}, "
            f"{now['tokens_per_second']:.0f} tokens/s, {now['seconds_left'] / 60:.1f} min left"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ""
