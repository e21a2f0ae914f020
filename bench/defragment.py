#!/usr/bin/env python3
"""Measures what clients notice when members of etcd are defragmented, and prints a Markdown table.

    cargo build -p cli && cargo xtask inputs
    python3 bench/defragment.py --sr target/debug/sr [--fill MiB] [--members 3,1]

It starts members of etcd with so many MiB in use, a metadata server over them and three storage servers, on loopback. While eight creates
are in flight, it has each member defragmented in turn, one second apart, the leader last, as the metadata servers do; and shows how long that
took, and the latencies of the creates with and without. It ends what it started by process ids.
"""

import argparse
import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.request

import engines


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sr", default=str(engines.TARGET / "release" / "sr"))
    parser.add_argument("--inputs", default=str(engines.TARGET / "inputs"), help="where `cargo xtask inputs` put the engines")
    parser.add_argument("--fill", type=int, default=500, help="MiB in use")
    parser.add_argument("--members", default="3,1")
    parser.add_argument("--files", type=int, default=10_000)
    return parser.parse_args()


def ask(address, path, request):
    with urllib.request.urlopen(f"http://127.0.0.1:{address}/v3/{path}", json.dumps(request).encode(), timeout=600) as answer:
        return json.loads(answer.read())


def start(options, home, processes, members):
    """Starts members; answers their ports for clients."""
    ports = [(engines.port(), engines.port()) for _ in range(members)]
    url = "http://127.0.0.1:{}".format
    cluster = ",".join(f"m{number}={url(peer)}" for number, (_, peer) in enumerate(ports))
    for number, (client, peer) in enumerate(ports):
        processes.start([pathlib.Path(options.inputs) / "bin" / "etcd", f"--name=m{number}", f"--data-dir={home / f'etcd-{number}'}",
                         f"--listen-client-urls={url(client)}", f"--advertise-client-urls={url(client)}",
                         f"--listen-peer-urls={url(peer)}", f"--initial-advertise-peer-urls={url(peer)}",
                         f"--initial-cluster={cluster}", "--max-txn-ops=16384", "--max-request-bytes=33554432",
                         "--quota-backend-bytes=8589934592"])
    for client, _ in ports:
        engines.wait_for(client)
    time.sleep(3)
    return [client for client, _ in ports]


def creates(cluster, options):
    words = [options.sr, "bench", "metadata", "--json", "--files", str(options.files), "--in-flight", "8", "--in", "/"]
    return subprocess.Popen(words, env=cluster.env, stdout=subprocess.PIPE, text=True)


def figure(running):
    lines = [json.loads(line) for line in running.communicate()[0].splitlines()]
    return next(line for line in lines if line["what"].startswith("create"))


def leads(address):
    status = ask(address, "maintenance/status", {})
    return status["leader"] == status["header"]["member_id"]


def measure(options, members):
    home = pathlib.Path(tempfile.mkdtemp(prefix="sr-defragment-"))
    processes = engines.Processes(home)
    try:
        ports = start(options, home, processes, members)
        for number in range(options.fill):
            value = base64.b64encode(os.urandom(1 << 20)).decode()
            ask(ports[0], "kv/put", {"key": base64.b64encode(b"fill %d" % number).decode(), "value": value})
        place = "etcd://" + ",".join(f"127.0.0.1:{port}" for port in ports) + "/bench"
        cluster = engines.Cluster(options, home, processes, place, 1)
        quiet = figure(creates(cluster, options))
        running, took = creates(cluster, options), []
        for port in sorted(ports, key=leads):
            time.sleep(1)
            begin = time.monotonic()
            ask(port, "maintenance/defragment", {})
            took.append(time.monotonic() - begin)
        ended = running.poll() is not None
        return quiet, figure(running), took, ended
    finally:
        processes.end()
        shutil.rmtree(home, ignore_errors=True)


def main():
    options = arguments()
    print("| members | MiB in use | defragmented in (s) | | p50 (ms) | p99 (ms) | longest (ms) |\n|---|---|---|---|---|---|---|")
    for members in map(int, options.members.split(",")):
        quiet, busy, took, ended = measure(options, members)
        times = ", ".join(f"{seconds:.1f}" for seconds in took)
        for what, line in [("without", quiet), ("with, but it ended before" if ended else "with", busy)]:
            print(f"| {members} | {options.fill} | {times} | {what} | {line['p50_ms']:.1f} | {line['p99_ms']:.1f} | {line['max_ms']:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
