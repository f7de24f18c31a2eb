"""Scores a long list of pictures by both engines, undisturbed and while killing them.

    python benchmarks/score_archive.py --bundle B --pictures DIR --rows 200000 \\
        --kills --output results
    python benchmarks/score_archive.py --bundle B --pictures DIR --rows 20000 \\
        --rounds 3 --output results

The list names the pictures of DIR again and again. With --kills each engine scores it
once while a worker, a node (Ray's own cluster of several nodes on this machine) and the
command itself are killed with SIGKILL, and is started again until it is done; an engine
that is done is not scored again by the next start. Without, 1 and 2 workers of each
engine, with a thread each, take turns. The files of rows of all must be equal to the
byte. The last lines on stdout are Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pyimgano_runtime.sources import list_inputs

CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(json.dumps(cluster.address), flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(0), allow_graceful=False)
    nodes.append(cluster.add_node(num_cpus=1))
cluster.shutdown()
"""


def main() -> int:
    """Run, compare, print."""
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    listing = options.output / "list.txt"
    pictures = [str(path.absolute()) for path in list_inputs([str(options.pictures)])]
    with listing.open("w", encoding="utf-8") as stream:
        for number in range(options.rows):
            stream.write(pictures[number % len(pictures)] + "\n")
    found = list(disturbed(options) if options.kills else in_turns(options))
    digests = {one["rows_sha256"] for one in found}
    for one in found:
        one["equal"] = len(digests) == 1
    name = "score_kills.json" if options.kills else "score_throughput.json"
    (options.output / name).write_text(json.dumps(found, indent=1), encoding="utf-8")
    print("\n".join(table(found, options)))
    whole = all(one["rows"] == one["indices"] == options.rows for one in found)
    return 0 if len(digests) == 1 and whole else 1


def parse() -> argparse.Namespace:
    """Give the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--part-size", type=int, default=1000)
    parser.add_argument("--engines", nargs="*", default=["local", "ray"])
    parser.add_argument("--workers", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kills", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("results"))
    return parser.parse_args()


def in_turns(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Score by each engine with each number of workers, round by round."""
    for number in range(options.rounds):
        for engine in options.engines:
            for workers in options.workers:
                output = options.output / f"{engine}-{workers}"
                shutil.rmtree(output, ignore_errors=True)
                process = start(options, output, engine, workers)
                process.wait()
                yield facts(output, [process.returncode]) | {
                    "engine": engine,
                    "workers": workers,
                    "round": number,
                }
                tell(f"{engine}, {workers} workers: done")


def disturbed(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Score by each engine while what it runs is killed."""
    for engine in options.engines:
        output = options.output / f"{engine}-kills"
        kept = output.with_suffix(".json")
        if kept.is_file():  # of an earlier start of this script
            yield json.loads(kept.read_text(encoding="utf-8"))
            continue
        shutil.rmtree(output, ignore_errors=True)
        kills = ["worker", "command", "worker", "command"]
        if engine == "local":
            codes = killed(options, output, engine, kills, None, [])
        else:
            kills.insert(1, "node")
            with cluster() as (process, address):
                more = ["--ray-address", address]
                codes = killed(options, output, engine, kills, process, more)
        found = facts(output, codes) | {"engine": engine, "workers": 2, "kills": kills}
        kept.write_text(json.dumps(found), encoding="utf-8")
        yield found


def killed(
    options: argparse.Namespace,
    output: Path,
    engine: str,
    kills: list[str],
    nodes: subprocess.Popen[str] | None,
    more: list[str],
) -> list[int]:
    """Kill one after another, evenly over the parts; give exit codes of the starts."""
    n_parts = -(-options.rows // options.part_size)
    codes = []
    process = start(options, output, engine, 2, *more)
    for number, what in enumerate(kills, 1):
        wait_for(output, n_parts * number // (len(kills) + 1), process)
        tell(f"{engine}: {len(parts(output))} of {n_parts} parts, now kills a {what}")
        if what == "worker":
            os.kill(workers_of(process.pid, engine)[0], signal.SIGKILL)
        elif what == "node":
            assert nodes is not None
            assert nodes.stdin is not None
            nodes.stdin.write("\n")
            nodes.stdin.flush()
        else:
            process.kill()
            codes.append(process.wait())
            process = start(options, output, engine, 2, *more)
    codes.append(process.wait())
    return codes


@contextmanager
def cluster() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Give a cluster of two nodes with a core each; a line on its stdin kills one."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    address = ""
    while not address.startswith('"'):
        address = process.stdout.readline()
    try:
        yield process, json.loads(address)
    finally:
        process.stdin.close()
        process.wait()


def start(
    options: argparse.Namespace, output: Path, engine: str, workers: int, *more: str
) -> subprocess.Popen[bytes]:
    """Start the command."""
    command = [sys.executable, "-m", "pyimgano.cli", "score"]
    command += ["--bundle", str(options.bundle), "--output", str(output)]
    command += ["--input", str(options.output / "list.txt"), "--engine", engine]
    command += ["--workers", str(workers), "--threads", "1"]
    command += ["--part-size", str(options.part_size)]
    with (options.output / f"{engine}.log").open("ab") as log:
        return subprocess.Popen([*command, *more], stdout=log, stderr=log)


def parts(output: Path) -> list[Path]:
    """Give the files of rows, in order."""
    return sorted(output.glob("part-*.parquet"))


def wait_for(output: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many parts are there."""
    while len(parts(output)) < count:
        if process.poll() is not None:
            raise SystemExit(f"{output}: ended early, exit code {process.returncode}")
        time.sleep(0.1)


def workers_of(command: int, engine: str) -> list[int]:
    """Give the ids of the processes that score."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
            status = path.with_name("stat").read_text(encoding="utf-8")
        except OSError:
            continue  # it ended
        parent = int(status.rpartition(")")[2].split()[1])
        wanted = b"spawn_main" in line and parent == command
        if engine == "ray":
            wanted = b"MapWorker" in line
        if wanted:
            found.append(int(path.parent.name))
    return found


def facts(output: Path, codes: list[int]) -> dict[str, Any]:
    """Give what is in an output folder."""
    digest = hashlib.sha256()
    indices: set[int] = set()
    n_rows = 0
    for path in parts(output):
        digest.update(path.read_bytes())
        column = pq.read_table(path, columns=["index"])["index"].to_pylist()
        n_rows += len(column)
        indices.update(column)
    report = json.loads((output / "_report.json").read_text(encoding="utf-8"))
    begin, end = memory(output)
    return {
        "rows": n_rows,
        "indices": len(indices),
        "rows_sha256": digest.hexdigest(),
        "exit_codes": codes,
        "per_second": report["this_start"]["per_second"],
        "seconds": report["this_start"]["seconds"],
        "command_mb": report["this_start"]["peak_rss_mb"],
        "worker_mb_tenth": begin,
        "worker_mb_end": end,
        "parts_begun_again": len(report["this_start"]["parts_begun_again"]),
        "counts": report["counts"],
    }


def memory(output: Path) -> tuple[float, float]:
    """Give the largest memory of a worker after a tenth of the parts, and of all."""
    done = [
        json.loads(path.read_text(encoding="utf-8"))["peak_rss_mb"]
        for path in sorted((output / "_index").glob("*.done"))
    ]
    return max(done[: max(1, len(done) // 10)]), max(done)


def table(found: list[dict[str, Any]], options: argparse.Namespace) -> list[str]:
    """Give the Markdown table."""
    if options.kills:
        lines = [
            "| engine | killed with SIGKILL | starts | rows | doubled | missing | "
            "equal to the byte | worker MB, first tenth / all | command MB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for one in found:
            lines.append(
                f"| {one['engine']} | {', '.join(one['kills'])} | "
                f"{len(one['exit_codes'])} | {one['rows']:,} | "
                f"{one['rows'] - one['indices']} | {options.rows - one['indices']} | "
                f"{'yes' if one['equal'] else 'NO'} | {one['worker_mb_tenth']:.0f} / "
                f"{one['worker_mb_end']:.0f} | {one['command_mb']:.0f} |"
            )
        return lines
    lines = [
        "| engine | workers | pictures a second | against local, 1 worker |",
        "|---|---|---|---|",
    ]
    base = [o for o in found if (o["engine"], o["workers"]) == ("local", 1)]
    for engine in options.engines:
        for workers in options.workers:
            own = [o for o in found if (o["engine"], o["workers"]) == (engine, workers)]
            rates = [one["per_second"] for one in own]
            ratios = [
                one["per_second"] / other["per_second"]
                for one, other in zip(own, base, strict=False)
            ]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""
            middle = f"{statistics.median(ratios):.2f} x [{spread}]" if ratios else ""
            rate = statistics.median(rates)
            lines.append(f"| {engine} | {workers} | {rate:.0f} | {middle} |")
    return lines


def tell(line: str) -> None:
    """Show that it lives."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
