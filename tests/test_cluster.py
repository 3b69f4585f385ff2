"""A study on a Ray cluster: a lost worker loses no run and doubles none; a second call does nothing."""

import json
import threading
import time

import psutil
import pytest

from gpt2lib.study.runner import Study

ray = pytest.importorskip("ray", reason="ray is an optional extra")


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


RUNS = """
[[runs]]
notebook = "one"
name = "slow"
parameters = { mode = "slow" }
[[runs]]
notebook = "one"
grid = { number = [1, 2] }
"""


def test_a_killed_worker_loses_no_run_and_doubles_none(study, tmp_path, cluster):
    from gpt2lib.study.engines import Ray

    batch = Study(study(RUNS), tmp_path / "runs")
    engine = Ray(address=cluster.address)
    assert engine.jobs == 2

    def kill():
        work = batch.folder / ".work" / "slow"
        while not (work / "count.txt").is_file():
            time.sleep(0.1)
        notebook = psutil.Process(json.loads((work / "process.json").read_text())["pid"])
        notebook.parent().kill()  # the worker

    killer = threading.Thread(target=kill)
    killer.start()
    errors = batch.run(engine, lambda line: None)
    killer.join()
    assert not errors and all(map(batch.done, batch.runs))
    counts = {r.name: (batch.folder / r.name / "count.txt").read_text() for r in batch.runs}
    assert counts.pop("slow") == "xx" and set(counts.values()) == {"x"}  # begun twice, finished once

    assert not batch.run(engine, lambda line: None)
    assert (batch.folder / "slow" / "count.txt").read_text() == "xx"
    assert len(list(batch.folder.glob("*/result.json"))) == 3
