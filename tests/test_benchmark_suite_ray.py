"""Suites on Ray: the same table, lost workers and nodes, refusals.

Ray runs in processes of its own: it warns, and here warnings are errors.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult
from factories import write_dataset
from pyimgano.pipelines.ray_cells import RESTARTS, shortage

Run = Callable[..., CommandResult]
QUICK = ("--no-process-costs", "--no-pixel-metrics", "--threads", "1")
LIMIT_S = 300
GIB = 1024**3
# What two runs of one detector may differ in.
MEASURED = ("latency_ms.", "cpu_ms.", "decode_ms.", "fit_seconds", "start.", "peak_")

# A cluster of a head without cores and one node; a line on stdin ends the node
# without warning and begins another, the next line ends all.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
node = cluster.add_node(num_cpus=2)
print(cluster.address, flush=True)
if sys.stdin.readline():
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=2)
    sys.stdin.readline()
cluster.shutdown()
"""

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")
reads_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="finds processes in /proc"
)


def small(size: int) -> dict[str, Any]:
    options = {"image_size": [size, size]}
    return {"name": "pixel_stats", "options": options, "label": f"m{size}"}


def write_suite(folder: Path, manifest: Path) -> Path:
    """Write a suite of two cells: m16, then m24."""
    dataset = {"dataset": "manifest", "manifest_path": str(manifest)}
    payload = {"models": [small(16), small(24)], "datasets": [dataset]}
    path = folder / "suite.json"
    path.write_text(json.dumps(payload), encoding="utf-8")
    return path


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path, write_dataset(tmp_path / "data", size=(32, 32)))


def command(suite: Path, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pyimgano.cli", "benchmark", "--suite", str(suite)),
        *("--output", str(output), *QUICK, *more),
    ]


def finished(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )


@contextmanager
def started(*arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Give a suite at work; it is ended with the block, whatever happens in it."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # A shell's background job ignores Ctrl-C, and so do its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def board(output: Path) -> list[dict[str, str]]:
    with (output / "leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def cell_processes(output: Path) -> list[int]:
    """Give the ids of the processes that fill cells of a suite's output."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            files = [fd.readlink() for fd in (process / "fd").iterdir()]
        except OSError:
            continue
        if b"suite_cell" in words and any(str(output) in str(f) for f in files):
            found.append(int(process.name))
    return found


def wait_for_cell(output: Path, suite: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + LIMIT_S
    while not (found := cell_processes(output)):
        assert suite.poll() is None, f"it ended by itself: {suite.communicate()[1]}"
        assert time.monotonic() < deadline, "no cell began"
        time.sleep(0.02)
    return found[0]


def kill_worker_of(cell: int) -> None:
    """End the Ray worker that waits for a cell, as a lack of memory would."""
    status = Path(f"/proc/{cell}/status").read_text("ascii")
    parent = next(line for line in status.splitlines() if line.startswith("PPid:"))
    os.kill(int(parent.split()[1]), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{cell}").exists():
        assert time.monotonic() < deadline, "the cell outlived its worker"
        time.sleep(0.02)


@pytest.mark.slow
@needs_ray
def test_the_leaderboard_is_that_of_the_local_engine(
    suite: Path, tmp_path: Path
) -> None:
    """The second output is begun locally and gone on with on Ray."""
    local, mixed = tmp_path / "local", tmp_path / "mixed"
    assert finished(suite, local).returncode == 0
    assert finished(suite, mixed, "--only", "m16").returncode == 0
    on_ray = finished(suite, mixed, "--resume", "--engine", "ray")
    assert on_ray.returncode == 0, on_ray.stderr
    assert "1 of 2 cells are finished already" in on_ray.stderr
    assert "Ray: 1 node; a cell demands 1 CPU" in on_ray.stderr

    def facts(output: Path) -> list[dict[str, str]]:
        return [
            {key: text for key, text in row.items() if not key.startswith(MEASURED)}
            for row in board(output)
        ]

    assert len(board(local)) == 4  # two models, two engines
    assert facts(mixed) == facts(local)


@pytest.mark.slow
@needs_ray
@reads_proc
def test_a_cell_whose_worker_was_killed_begins_again(
    suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(suite, output, "--engine", "ray", "--jobs", "1") as process:
        kill_worker_of(wait_for_cell(output, process))
        stdout, stderr = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, stderr
    assert stdout.startswith("suite: 2 of 2 cells finished")  # nothing of Ray's
    assert "m16-s0: its worker or node was lost (once)" in stderr
    assert f"begins again, 1 of {RESTARTS}" in stderr
    assert {row["model"] for row in board(output)} == {"m16", "m24"}
    assert not list((output / "failures").glob("*"))

    before = {p: p.stat().st_mtime_ns for p in output.glob("cells/*/report.json")}
    resumed = finished(suite, output, "--engine", "ray", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "2 of 2 cells are finished already" in resumed.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.slow
@needs_ray
@reads_proc
def test_a_cell_that_loses_every_worker_fails_and_the_others_finish(
    suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(suite, output, "--engine", "ray", "--jobs", "1") as process:
        for _ in range(1 + RESTARTS):
            kill_worker_of(wait_for_cell(output, process))
        stderr = process.communicate(timeout=LIMIT_S)[1]
        assert process.returncode == 1, stderr
    assert "m16-s0: FAILED: WorkerLost: its worker or node was lost (4 times)" in stderr
    (record,) = (output / "failures").iterdir()
    assert json.loads(record.read_text("utf-8"))["kind"] == "WorkerLost"
    assert {row["model"] for row in board(output)} == {"m24"}


@pytest.mark.slow
@needs_ray
@reads_proc
def test_a_cell_whose_node_was_lost_runs_on_another(
    suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=os.environ | {"RAY_worker_niceness": "0"},
    )
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    try:
        joins = ("--engine", "ray", "--ray-address", cluster.stdout.readline().strip())
        with started(suite, output, *joins, "--jobs", "1") as process:
            wait_for_cell(output, process)
            cluster.stdin.write("lose the node\n")
            cluster.stdin.flush()
            stderr = process.communicate(timeout=LIMIT_S)[1]
            assert process.returncode == 0, stderr
    finally:
        cluster.communicate("end\n" * 2, timeout=LIMIT_S)
    assert "Ray: 2 nodes" in stderr
    assert "its worker or node was lost (once)" in stderr
    assert {row["model"] for row in board(output)} == {"m16", "m24"}


@pytest.mark.slow
@needs_ray
@reads_proc
def test_an_interrupted_suite_leaves_no_cell_at_work(
    suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with started(suite, output, "--engine", "ray") as process:
        wait_for_cell(output, process)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=60)[1]
        assert process.returncode == 130, stderr
    assert stderr.rstrip().endswith("interrupted")
    assert cell_processes(output) == []
    report = json.loads((output / "report.json").read_text("utf-8"))
    assert report["state"] == "incomplete"


@pytest.mark.slow
@needs_ray
@reads_proc
def test_a_cell_that_demands_no_gpu_sees_none(suite: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with started(suite, output, "--engine", "ray") as process:
        cell = wait_for_cell(output, process)
        environment = Path(f"/proc/{cell}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=" in environment


@pytest.mark.slow
@needs_ray
def test_a_cluster_without_room_for_one_cell_is_refused_at_the_start(
    suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    more = ("--engine", "ray", "--threads", "512", "--cell-gpus", "3")
    done = finished(suite, output, *more)
    assert done.returncode == 2
    assert "a cell demands 512 CPUs, 3 GPUs, and the largest node has " in done.stderr
    assert "0 GPUs" in done.stderr
    assert not output.exists()


@pytest.mark.slow
@needs_ray
def test_an_address_without_a_cluster_is_refused_within_a_minute(
    suite: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    begun = time.monotonic()
    done = finished(suite, output, "--engine", "ray", "--ray-address", "127.0.0.1:9")
    assert time.monotonic() - begun < 60
    assert done.returncode == 2
    assert "--ray-address 127.0.0.1:9: no Ray cluster can be joined" in done.stderr
    assert not output.exists()


def test_without_ray_the_extra_of_the_checkout_is_named(
    small_dataset: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    suite = write_suite(tmp_path, small_dataset)
    output = tmp_path / "out"
    done = run_cli(
        *("benchmark", "--suite", suite, "--output", output, "--engine", "ray")
    )
    assert done.code == 2
    assert 'pip install -c constraints.txt ".[ray]" in the checkout' in done.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--manifest-path", "m", "--engine", "ray", "--cell-gpus", "1"],
            [
                "--engine: has no effect without --suite",
                "--cell-gpus: has no effect without --suite",
            ],
        ),
        (
            ["--suite", "s", "--ray-address", "auto", "--cell-memory", "8G"],
            [
                "--ray-address: has no effect without --engine ray",
                "--cell-memory: has no effect without --engine ray",
            ],
        ),
        (
            ["--suite", "s", "--engine", "ray", "--cell-gpus", "1.5", "--seed", "1"],
            [
                "--cell-gpus: found 1.5, expected a part of one GPU",
                "--seed: has no effect with --suite",
            ],
        ),
        (["--suite", "s", "--engine", "dask"], ["'dask' is not one of"]),
        (["--suite", "s", "--cell-memory", "8X"], ["expected a size such as 4G"]),
        (["--suite", "s", "--cell-gpus", "nan"], ["is no finite number"]),
    ],
)
def test_options_that_do_not_go_together_are_refused_at_once(
    arguments: list[str], expected: list[str], run_cli: Run, tmp_path: Path
) -> None:
    done = run_cli("benchmark", *arguments, "--output", tmp_path / "out")
    assert done.code == 2
    assert [text for text in expected if text not in done.stderr] == []


@pytest.mark.parametrize(
    ("demand", "nodes", "expected"),
    [
        ({"CPU": 2}, [{"CPU": 1}, {"CPU": 2}], None),
        ({"CPU": 2}, [], "the cluster has no node that is alive"),
        (
            {"CPU": 4, "GPU": 0.5},
            [{"CPU": 8}, {"CPU": 2}],
            "a cell demands 0.5 GPUs, and the largest node has 0 GPUs",
        ),
        (
            {"CPU": 1, "memory": 16 * GIB},
            [{"CPU": 1, "memory": 4 * GIB}],
            "a cell demands 16G of memory, and the largest node has 4G of memory",
        ),
        (
            {"CPU": 8, "GPU": 1},
            [{"CPU": 8}, {"CPU": 1, "GPU": 1}],
            "a cell demands 8 CPUs, 1 GPU, which no node has together",
        ),
    ],
)
def test_what_no_node_has_is_told_with_both_numbers(
    demand: dict[str, float], nodes: list[dict[str, float]], expected: str | None
) -> None:
    assert shortage(demand, nodes) == expected
