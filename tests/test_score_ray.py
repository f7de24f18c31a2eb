"""`pyimgano score --engine ray`: the rows of the local engine, whatever is lost.

Ray's own multi-node cluster on one machine stands for several machines.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle_copies import copy_of, edit_document
from pyimgano.scoring.ray_workers import room_for
from score_runs import (
    DEMO,
    finish,
    n_parts,
    parts_of,
    report_of,
    rows_of,
    start,
    wait_for,
    write_photos,
)

# A head without cores, so that what is killed is another node. One line on stdin adds
# or removes a node; one on stdout says what is there.
CLUSTER = """
    import json, sys
    from ray.cluster_utils import Cluster
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print(json.dumps({"nodes": len(nodes)}), flush=True)
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = write_photos(tmp_path_factory.mktemp("archive") / "photos", 120)
    found[5].write_bytes(found[5].read_bytes()[:300])
    return found


@pytest.fixture(scope="module")
def scored(photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local engine gives."""
    output = tmp_path_factory.mktemp("scored") / "scores"
    code, said = finish(start(*arguments(photos, output)))
    assert code == 1, said
    return output


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CLUSTER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of a cluster."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise AssertionError("the cluster ended")


def arguments(photos: list[Path], output: Path, *more: str | Path) -> list[Any]:
    folder = photos[0].parent
    command: list[Any] = ["--bundle", DEMO, "--input", folder, "--output", output]
    return [*command, "--part-size", "6", "--workers", "2", *more]


def ray_actors() -> list[int]:
    """Ids of the processes that score."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if b"MapWorker" in line:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_both_engines_write_the_same_bytes_though_a_worker_is_killed(
    photos: list[Path], scored: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    process = start(*arguments(photos, output, "--engine", "ray"))
    wait_for(lambda: n_parts(output) >= 2)
    os.kill(ray_actors()[0], signal.SIGKILL)
    code, said = finish(process, within=240)
    assert code == 1, said
    assert parts_of(output) == parts_of(scored)
    assert report_of(output)["state"] == "finished"


@pytest.mark.slow
def test_a_lost_node_loses_no_row_and_doubles_none(
    photos: list[Path],
    scored: Path,
    tmp_path: Path,
    cluster: subprocess.Popen[str],
) -> None:
    address = answer(cluster)["address"]
    output = tmp_path / "scores"
    more = ["--engine", "ray", "--ray-address", address]
    process = start(*arguments(photos, output, *more))
    wait_for(lambda: n_parts(output) >= 2)
    assert cluster.stdin is not None
    cluster.stdin.write("remove\n")
    cluster.stdin.flush()
    code, said = finish(process, within=300)
    assert answer(cluster) == {"nodes": 1}
    assert code == 1, said
    assert parts_of(output) == parts_of(scored)


@pytest.mark.slow
def test_a_killed_command_goes_on_with_the_other_engine(
    photos: list[Path], scored: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    process = start(*arguments(photos, output, "--engine", "ray"))
    wait_for(lambda: n_parts(output) >= 2)
    process.kill()
    process.communicate()
    wait_for(lambda: not ray_actors())  # its cluster ends with it
    assert n_parts(output) < len(parts_of(scored))
    code, said = finish(start(*arguments(photos, output)))
    assert code == 1
    assert "are scored already" in said
    assert parts_of(output) == parts_of(scored)
    assert [row["index"] for row in rows_of(output)] == list(range(120))


@pytest.mark.slow
def test_a_bundle_that_differs_on_a_node_is_refused(
    photos: list[Path], tmp_path: Path
) -> None:
    bundle = copy_of(DEMO, tmp_path / "bundle")
    output = tmp_path / "scores"
    command = arguments(photos, output, "--engine", "ray")
    command[1] = bundle
    process = start(*command)
    # The command has opened it when it lists, and its workers come some seconds later.
    wait_for(lambda: (output / "_score.json").exists())
    edit_document(bundle, lambda document: document.update(created="2020-01-01"))
    code, said = finish(process, within=240)
    assert code == 2, said
    assert "sha256" in said
    assert not n_parts(output)


@pytest.mark.slow
def test_no_cluster_at_an_address_is_told(photos: list[Path], tmp_path: Path) -> None:
    more = ["--engine", "ray", "--ray-address", "127.0.0.1:1"]
    process = start(*arguments(photos, tmp_path / "scores", *more))
    code, said = finish(process, within=120)
    assert code == 2, said
    assert "no Ray cluster can be joined" in said


def test_actors_fit_on_the_nodes_that_are_alive() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 5.0}},
        {"Alive": True, "Resources": {"memory": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
        {"Alive": True, "Resources": {"CPU": 2.0}},
    ]
    assert room_for(nodes, 1) == 7
    assert room_for(nodes, 2) == 3
    assert room_for(nodes, 8) == 0


@pytest.mark.slow
def test_sigterm_ends_a_command_of_ray_as_it_ends_others(
    photos: list[Path], tmp_path: Path
) -> None:
    """Ray would make it an exit with 15."""
    output = tmp_path / "scores"
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{photo}\n" for photo in photos * 40), encoding="utf-8")
    process = start(
        *("--bundle", DEMO, "--input", names, "--output", output),
        *("--engine", "ray", "--workers", "1", "--part-size", "50"),
    )
    wait_for(lambda: list(output.glob("_index/*.done")))
    process.terminate()
    code, said = finish(process)
    assert code == 143, said
    parts = report_of(output)["parts"]
    assert 1 <= parts["finished"] < parts["planned"]
