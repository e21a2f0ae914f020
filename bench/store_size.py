#!/usr/bin/env python3
"""Measures what the metadata of a file takes in each engine, and prints a Markdown table.

    cargo build -p cli && cargo xtask inputs
    python3 bench/store_size.py --sr target/debug/sr [--engines local,etcd,postgres] [--files N] [--json FILE]

For each engine it starts the engine, a metadata server over it and three storage servers of one target each, on loopback, and stores a
tree of small files of one chunk each, 100 in a directory, with names such as cameras and offices give. The largest size is what was seen
while they were stored, with the history of up to ten minutes; kept is what is left of it when history is forgotten: in etcd after a
compaction and a defragmentation, which this does at once, in PostgreSQL without the tables of the history, in the local store without
its log. A change is a file that is created, or removed, by a program that has eight of them in flight: what is left of it is history alone.
It ends what it started by process ids. A debug build will do: sizes do not depend on it.
"""

import argparse
import base64
import json
import pathlib
import shutil
import tempfile
import threading
import time
import urllib.request

import engines

NAMES = ["IMG_20250314_{:06}.jpg", "Report {:05} (final).pdf", "sensor-{:08}.csv", "{:05}.o"]
DIRECTORY = 100
CHANGES = 20_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sr", default=str(engines.TARGET / "release" / "sr"))
    parser.add_argument("--inputs", default=str(engines.TARGET / "inputs"), help="where `cargo xtask inputs` put the engines")
    parser.add_argument("--engines", default="etcd,postgres,local")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--json", help="write the figures here too")
    return parser.parse_args()


def make_tree(folder, files):
    for number in range(files):
        directory = folder / f"{number // DIRECTORY // 100:03}" / f"album {number // DIRECTORY:05}"
        if number % DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / NAMES[number % len(NAMES)].format(number)).write_bytes(b"%08d" % number * 8)


def ask(place, path, request):
    """Asks etcd over its gateway for JSON."""
    address = place.split("//")[1].split("/")[0]
    body = json.dumps(request).encode()
    with urllib.request.urlopen(f"http://{address}/v3/{path}", body, timeout=600) as answer:
        return json.loads(answer.read())


def sizes(cluster, engine):
    """What the store takes, and what of that is in use, or kept without history."""
    lines = [json.loads(line) for line in cluster.sr("status", "--json").splitlines()]
    store = next(line for line in lines if line["record"] == "store")
    if engine == "etcd":
        member = next(line for line in lines if line["record"] == "member")
        return member["bytes"], member["used"]
    if engine == "postgres":
        return store["bytes"], store["bytes"] - store["history"]
    log = sum(path.stat().st_blocks * 512 for path in (pathlib.Path(store["place"]) / "log").iterdir())
    return store["bytes"], store["bytes"] - log


def forget(place):
    """Has etcd forget all history, and give back what is free."""
    revision = ask(place, "kv/range", {"key": base64.b64encode(b"\0").decode()})["header"]["revision"]
    ask(place, "kv/compaction", {"revision": revision, "physical": True})
    ask(place, "maintenance/defragment", {})


class Largest:
    """Looks at the size all the time."""

    def __init__(self, cluster, engine):
        self.cluster, self.engine, self.bytes, self.ends = cluster, engine, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ends.wait(2):
            self.bytes = max(self.bytes, sizes(self.cluster, self.engine)[0])

    def end(self):
        self.ends.set()
        self.thread.join()
        return max(self.bytes, sizes(self.cluster, self.engine)[0])


def measure(options, engine, tree):
    home = pathlib.Path(tempfile.mkdtemp(prefix="sr-size-"))
    processes = engines.Processes(home)
    try:
        place = engines.start_engine(engine, options, home, processes)
        cluster = engines.Cluster(options, home, processes, place, 1)
        empty = sizes(cluster, engine)[1]
        largest, begin = Largest(cluster, engine), time.monotonic()
        try:
            cluster.sr("put", "-r", tree, "/tree")
        finally:
            peak, seconds = largest.end(), time.monotonic() - begin
        if engine == "etcd":
            forget(place)
        whole, kept = sizes(cluster, engine)
        cluster.sr("bench", "metadata", "--files", CHANGES // 2, "--in-flight", 8, "--in", "/")
        whole_then, used_then = sizes(cluster, engine)
        change = (used_then - kept if engine == "etcd" else whole_then - whole) / CHANGES
        # What a defragmentation leaves is the file.
        kept = whole if engine == "etcd" else kept
        return {"engine": engine, "files": options.files, "seconds": seconds, "empty": empty, "largest": peak, "kept": kept,
                "change": change}
    finally:
        processes.end()
        shutil.rmtree(home, ignore_errors=True)


def main():
    options = arguments()
    options.rounds = 1
    tree = pathlib.Path(tempfile.mkdtemp(prefix="sr-tree-"))
    try:
        make_tree(tree, options.files)
        rows = [measure(options, engine, tree) for engine in options.engines.split(",")]
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    print("| engine | files | stored in | largest | a file then | kept | a file | a change |\n|---|---|---|---|---|---|---|---|")
    mib, each = lambda size: f"{size / 2**20:,.0f} MiB", lambda size, row: f"{(size - row['empty']) / row['files']:,.0f} B"
    for row in rows:
        print(f"| {row['engine']} | {row['files']:,} | {row['seconds']:,.0f} s | {mib(row['largest'])} | {each(row['largest'], row)} "
              f"| {mib(row['kept'])} | {each(row['kept'], row)} | {row['change']:,.0f} B |")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
