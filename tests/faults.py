"""The net: attempts to break gpt2lib, each of which must end in a right result or in one clear line.

    python tests/faults.py                 # all of it
    python tests/faults.py --share 0.1     # a seeded part, as `make test` runs it

Kinds of attempts: files of every format that is read, damaged at random and by rule (faults_files); disks that fill,
and studies that are killed at random moments (faults_disk); settings of wrong sizes and types, and every adapter on
every family in every precision (faults_models). An attempt is survived by a right result, or by a ValueError or OSError
of one line that names the file or setting. It is lost by any other error, a wrong result, ten seconds without an
answer, or a file that was half written or lies elsewhere than it should.
"""

import argparse
import contextlib
import csv
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

SECONDS = 10  # that an answer may take
LONGEST = 700  # characters of one clear line


class Hang(BaseException):
    """No answer in time; not an Exception, so that no code that is tried can take it for an error of its own."""


class Net:
    """Makes attempts and counts what became of them, by kind."""

    def __init__(self, share: float = 1.0, seed: int = 0, say=print):
        """share: of the attempts of a whole run. seed: of all that is random."""
        self.share, self.seed, self.say = share, seed, say
        self.counts: dict[str, Counter] = {}
        self.seconds: dict[str, float] = {}
        self.lost: list[str] = []

    def attempt(
        self,
        kind: str,
        what: str,
        call,
        names: str = "",
        watch: Path | None = None,
        may_refuse: bool = True,
        limit=SECONDS,
    ) -> bool:
        """Whether it survived. call: its own assertions say whether its result is right. names: what an error's line
        must contain. watch: a folder that must be as it was. may_refuse: whether an error may be the right answer."""
        before, began = watch and contents(watch), time.monotonic()
        try:
            with within(limit):
                call()
            outcome = "right"
        except (ValueError, OSError) as error:
            said = str(error)
            clear = 0 < len(said) <= LONGEST and "\n" not in said and names in said and "weights_only" not in said
            outcome = "refused" if may_refuse and clear else f"{type(error).__name__} that says {said[:300]!r}"
        except Hang:
            outcome = f"no answer within {limit} s"
        except Exception as error:
            outcome = f"{type(error).__name__}: {str(error)[:300]}"
        if watch and contents(watch) != before:
            outcome = f"files changed: {sorted(set(contents(watch).items()) ^ set(before.items()))[:4]}"
        survived = outcome in ("right", "refused")
        self.counts.setdefault(kind, Counter())[outcome if survived else "lost"] += 1
        self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - began
        if not survived:
            self.lost.append(f"{kind}: {what}: {outcome}")
            self.say(f"LOST  {self.lost[-1]}")
        return survived

    def draw(self, examples: int, strategy, call) -> None:
        """Call with so many values of a hypothesis strategy, always the same ones for the same seed."""
        quiet = dict(database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])

        @seed(self.seed)
        @settings(max_examples=self.part(examples), **quiet)
        @given(strategy)
        def each(value):
            call(value)

        each()

    def part(self, count: int) -> int:
        """This run's share of so many attempts, at least one."""
        return max(1, round(self.share * count))

    def table(self) -> list[dict]:
        rows = []
        for kind, counts in self.counts.items():
            row = {"kind": kind, "attempts": counts.total(), "survived": counts["right"] + counts["refused"]}
            row |= {"right": counts["right"], "refused": counts["refused"], "lost": counts["lost"]}
            rows.append(row | {"seconds": round(self.seconds[kind])})
        total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "kind"}
        return [*rows, {"kind": "all", **total}]


@contextlib.contextmanager
def within(seconds: float):
    def late(signum, frame):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def contents(folder: Path) -> dict[str, int]:
    """The files below a folder, and when each was written."""
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    from faults_disk import disks, kills
    from faults_files import files
    from faults_models import models

    kinds = {"files": files, "models": models, "disks": disks, "kills": kills}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the attempts of a whole run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--table", type=Path, help="CSV file for the table")
    arguments = parser.parse_args()
    net = Net(arguments.share, arguments.seed)
    for name in arguments.kinds:
        kinds[name](net)
    rows = net.table()
    print(f"{'kind':28} {'attempts':>8} {'survived':>8} {'right':>6} {'refused':>7} {'lost':>5} {'seconds':>7}")
    for row in rows:
        print("{kind:28} {attempts:8} {survived:8} {right:6} {refused:7} {lost:5} {seconds:7}".format(**row))
    if arguments.table:
        with arguments.table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    sys.exit(bool(net.lost))


if __name__ == "__main__":
    main()
