#!/usr/bin/env python3
"""Measures how long `sr up` takes to be ready again after `kill -9` under load, and that nothing acknowledged is lost.

    cargo build --release && python3 bench/recovery.py [--sr PATH] [--dir DIR] [--files N] [--kills N] [--json FILE]

It starts `sr up` in a fresh directory below --dir (default: a temporary one), on loopback, and puts N files of 1 KiB.
Then, several times: `put -r` of trees of small files goes on, one after the other, until the server is killed by its
process id at a random moment; it is started again; and what was acknowledged is looked for: the number of all files,
the last tree that was put before the kill, and a sample of all the others, byte by byte. A tree is acknowledged when its
`put` has ended well; of the one under way some files are there, each whole. It ends with an error when any is not.

--files 1000000 takes about six minutes, 8 GiB of disk and two million inodes. Nothing else should run. --seed draws the
same moments again. With SR_LOG=env=debug,kv=debug,chunk=debug,info the server's log (printed at the end with --log)
says where each start spent its time.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from core import Cloud, Table

SIZE = 1024
"""Bytes of a file."""
PART = 50_000
"""Files of one `put -r` while filling."""
LOAD = 2_000
"""Files of one `put -r` while waiting for the kill."""
PER_DIRECTORY = 500
SAMPLE = 2_000
"""Files of each check that are read back."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--dir", help="where to work")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=7)
    parser.add_argument("--load", type=float, default=12.0, help="seconds of load before a kill, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", help="write the figures here too")
    parser.add_argument("--log", action="store_true", help="print the server's log at the end")
    return parser.parse_args()


def content(name):
    """What the file of this name holds: other bytes for each name, the same each time."""
    return hashlib.shake_128(name.encode()).digest(SIZE)


def make_tree(root, count):
    """Makes a tree of small files; answers its path."""
    for first in range(0, count, PER_DIRECTORY):
        directory = root / f"d{first // PER_DIRECTORY}"
        directory.mkdir(parents=True)
        for number in range(first, min(first + PER_DIRECTORY, count)):
            (directory / f"f{number}").write_bytes(content(f"{root.name}/f{number}"))
    return root


class Trees:
    """The trees that were acknowledged: name in the cloud, name of the content, number of files."""

    def __init__(self, cloud, work):
        self.cloud, self.work = cloud, work
        self.acknowledged = []
        self.started = []

    def put(self, source, count):
        """Starts to put a tree under a new name."""
        name = f"/t{len(self.started)}"
        self.started.append((name, source.name, count))
        return subprocess.Popen([self.cloud.sr, "put", "-r", str(source), name], env=self.cloud.env,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def done(self):
        self.acknowledged.append(self.started[-1])

    def count(self):
        """Files that `find` sees in all trees, by tree."""
        listing = subprocess.run([self.cloud.sr, "find", "/", "-type", "f"], env=self.cloud.env, check=True,
                                 capture_output=True, text=True).stdout
        counts = {}
        for line in listing.splitlines():
            tree = "/" + line.split("/", 2)[1]
            counts[tree] = counts.get(tree, 0) + 1
        return counts

    def read(self, name, directory):
        """Reads a directory of the cloud back; answers its files' bytes by name."""
        copy = self.work / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run([self.cloud.sr, "get", "-r", f"{name}/{directory}", str(copy)], env=self.cloud.env, check=True,
                       stdout=subprocess.DEVNULL)
        files = {path.name: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        shutil.rmtree(copy)
        return files

    def check(self, chance):
        """Every acknowledged file is counted, and a sample is read; also of the tree that was under way."""
        counts = self.count()
        for name, _, count in self.acknowledged:
            if counts.get(name, 0) != count:
                sys.exit(f"{name}: {count} files were acknowledged, {counts.get(name, 0)} are there")
        some = min(SAMPLE // PER_DIRECTORY, len(self.acknowledged))
        sample = [self.acknowledged[-1], self.started[-1], *chance.sample(self.acknowledged, some)]
        for tree in sample:
            name, source, count = tree
            whole = tree in self.acknowledged
            directory = chance.randrange((count + PER_DIRECTORY - 1) // PER_DIRECTORY)
            if not whole and not self.exists(f"{name}/d{directory}"):
                continue
            files = self.read(name, f"d{directory}")
            first = directory * PER_DIRECTORY
            wanted = [f"f{number}" for number in range(first, min(first + PER_DIRECTORY, count))]
            if whole and sorted(files) != sorted(wanted):
                sys.exit(f"{name}/d{directory}: {len(files)} of {len(wanted)} files came back")
            for file, bytes in files.items():
                if bytes != content(f"{source}/{file}"):
                    sys.exit(f"{name}/d{directory}/{file}: other bytes than were put")
        return sum(counts.values())

    def exists(self, path):
        return subprocess.run([self.cloud.sr, "stat", path], env=self.cloud.env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0


def fill(trees, source, files):
    """Puts the files in parts; answers the rate."""
    begin = time.monotonic()
    for first in range(0, files, PART):
        count = min(PART, files - first)
        tree = source if count == PART else make_tree(trees.work / "rest", count)
        if trees.put(tree, count).wait() != 0:
            sys.exit("put failed")
        trees.done()
    return files / (time.monotonic() - begin)


def load_until_killed(trees, source, seconds):
    """Puts trees until the time comes, and kills the server then; answers its memory before, in MiB."""
    end = time.monotonic() + seconds
    put = trees.put(source, LOAD)
    while time.monotonic() < end:
        try:
            if put.wait(max(0.0, end - time.monotonic())) != 0:
                sys.exit("put failed before the kill")
        except subprocess.TimeoutExpired:
            break
        trees.done()
        put = trees.put(source, LOAD)
    _, resident = trees.cloud.usage()
    trees.cloud.stop(signal.SIGKILL)
    # It waits for the server to come back, for some time: it is not to go on then.
    put.kill()
    put.wait()
    return resident


def main():
    options = arguments()
    chance = random.Random(options.seed)
    work = pathlib.Path(tempfile.mkdtemp(prefix="sr-recovery-", dir=options.dir))
    table, cloud = Table(), None
    print("| what | median | spread | wanted |\n|---|---|---|---|")
    try:
        home = work / "home"
        home.mkdir()
        cloud = Cloud(options.sr, home)
        cloud.start()
        trees = Trees(cloud, work)
        part = make_tree(work / "part", min(PART, options.files))
        load = make_tree(work / "load", LOAD)
        rate = fill(trees, part, options.files)
        table.add(f"put -r of {options.files:,} files of 1 KiB, 2 copies, durable", [rate], "files/s")
        table.add("... memory of the server then", [cloud.usage()[1]], "MiB")
        ready, memory, after, count = [], [], [], []
        for _ in range(options.kills):
            memory.append(load_until_killed(trees, load, chance.uniform(0.5, options.load)))
            ready.append(cloud.start())
            after.append(cloud.usage()[1])
            print(f"killed: {ready[-1]:.2f} s to ready, {memory[-1]:.0f} MiB before, {after[-1]:.0f} after",
                  file=sys.stderr, flush=True)
            count.append(trees.check(chance))
        table.add("ready again after kill -9 under load", ready, "s", "< 3")
        table.add("... memory before the kill", memory, "MiB")
        table.add("... memory when ready", after, "MiB")
        table.add("... files there, none acknowledged is missing", count, "files")
        cloud.stop()
        table.add("ready after a clean end", [cloud.start()], "s")
        cloud.stop()
    finally:
        if cloud and cloud.process and cloud.process.poll() is None:
            cloud.stop(signal.SIGKILL)
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(table.rows, indent=1))
        if options.log and (work / "home" / "log").exists():
            sys.stderr.write((work / "home" / "log").read_text())
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
