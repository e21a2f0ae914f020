#!/usr/bin/env python3
"""Measures one-machine figures of the core beside the local disk, and prints a Markdown table.

    cargo build --release && python3 bench/core.py [--sr PATH] [--dir DIR] [--rounds N] [--files N] [--json FILE]

It starts `sr up` in a fresh directory below --dir (default: a temporary one), on loopback, and ends it by its process
id. Local copies and O_DSYNC writes run on the same disk, interleaved with the rest, so that ratios mean something on a
noisy machine. Each figure is the median of the rounds, with the smallest and the largest. Nothing else should run.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

GIB = 1 << 30


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--dir", help="where to work: needs 20 GiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=100_000, help="files of the metadata and recovery parts")
    parser.add_argument("--json", help="write the figures here too")
    return parser.parse_args()


class Cloud:
    """`sr up` in a directory, and commands against it."""

    def __init__(self, sr, home):
        self.sr, self.home = sr, home
        self.env = {**os.environ, "HOME": str(home), "SR_CONTEXT": str(home / "cloud" / "context.toml")}
        self.process = None

    def start(self):
        """Starts it; answers the seconds to `ready`."""
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [self.sr, "up", "--dir", str(self.home / "cloud"), "--listen", "127.0.0.1:0"],
            env=self.env, stdout=subprocess.PIPE, stderr=open(self.home / "log", "a"), text=True)
        for line in self.process.stdout:
            if line.strip() == "ready":
                return time.monotonic() - begin
        sys.exit(f"sr up ended: see {self.home / 'log'}")

    def stop(self, how=signal.SIGINT):
        self.process.send_signal(how)
        self.process.wait(60)

    def run(self, *words):
        """Runs a command; answers its seconds."""
        begin = time.monotonic()
        subprocess.run([self.sr, *words], env=self.env, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begin

    def bench(self, *words):
        """Runs `sr bench --json`; answers its figures by name."""
        done = subprocess.run([self.sr, "bench", "--json", *words], env=self.env, check=True,
                              capture_output=True, text=True)
        return {line["what"]: line for line in map(json.loads, done.stdout.splitlines())}

    def usage(self):
        """CPU seconds so far and resident MiB of the server."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), resident / 1024


def copy_and_sync(source, target):
    """`cp` and fsync of the copy."""
    begin = time.monotonic()
    subprocess.run(["cp", str(source), str(target)], check=True)
    file = os.open(target, os.O_RDONLY)
    os.fsync(file)
    os.close(file)
    took = time.monotonic() - begin
    os.unlink(target)
    return took


def dsync_rate(path, seconds=3.0):
    """Random 4 KiB O_DSYNC overwrites of a 1 GiB file, one at a time, per second."""
    file = os.open(path, os.O_RDWR | os.O_DSYNC)
    block, count, begin = os.urandom(4096), 0, time.monotonic()
    while time.monotonic() - begin < seconds:
        os.pwrite(file, block, random.randrange(GIB // 4096) * 4096)
        count += 1
    os.close(file)
    return count / (time.monotonic() - begin)


class Table:
    def __init__(self):
        self.rows = []

    def add(self, name, values, unit, wanted=""):
        middle = statistics.median(values)
        self.rows.append({"name": name, "median": middle, "min": min(values), "max": max(values), "unit": unit,
                          "wanted": wanted})
        print(f"| {name} | {middle:,.2f} {unit} | {min(values):,.2f} to {max(values):,.2f} | {wanted} |", flush=True)


def large(cloud, work, rounds, table):
    """One large file: put with one and two copies, get, beside cp and fsync."""
    source = work / "large"
    with open(source, "wb") as file:
        for _ in range(64):
            file.write(os.urandom(16 << 20))
        os.fsync(file.fileno())
    local, one, two, get = [], [], [], []
    for round in range(rounds):
        local.append(copy_and_sync(source, work / "copy"))
        one.append(cloud.run("put", "--class", "single", str(source), f"/one-{round}"))
        local.append(copy_and_sync(source, work / "copy"))
        two.append(cloud.run("put", str(source), f"/two-{round}"))
        cloud.run("cat", "--length", str(GIB), f"/two-{round}")  # Into the page cache.
        get.append(cloud.run("cat", f"/two-{round}"))
        cloud.run("rm", f"/one-{round}")
        cloud.run("rm", f"/two-{round}")
    base = statistics.median(local)
    table.add("cp + fsync of 1 GiB, local", [GIB / t / 1e6 for t in local], "MB/s")
    table.add("put 1 GiB, 1 copy, durable", [GIB / t / 1e6 for t in one], "MB/s")
    table.add("... as a ratio to cp + fsync", [base / t for t in one], "x", "0.7")
    table.add("put 1 GiB, 2 copies, durable", [GIB / t / 1e6 for t in two], "MB/s")
    table.add("... as a ratio to cp + fsync", [base / t for t in two], "x", "0.4")
    table.add("get 1 GiB, cached, verified", [GIB / t / 1e6 for t in get], "MB/s", "1,000")


def small(cloud, work, rounds, files, table):
    """Many small files by `put -r`, `get -r`, `ls -R`, `rm -r`."""
    source = work / "small"
    for number in range(10_000):
        directory = source / f"d{number // 500}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(os.urandom(4096))
    put, get, remove, back = [], [], [], []
    for round in range(rounds):
        put.append(10_000 / cloud.run("put", "-r", str(source), f"/small-{round}"))
        # Kept to the end: removing them makes the disk busy for the next round.
        get.append(10_000 / cloud.run("get", "-r", f"/small-{round}", str(work / f"small-copy-{round}")))
        remove.append(cloud.run("rm", "-r", f"/small-{round}"))
        begin = time.monotonic()
        while totals(cloud)["garbage"] and time.monotonic() - begin < 60:
            time.sleep(0.05)
        back.append(time.monotonic() - begin)
    table.add("put -r of 10,000 files of 4 KiB, 2 copies, durable", put, "files/s", "2,000")
    table.add("get -r of them", get, "files/s", "5,000")
    table.add("rm -r of them", remove, "s", "< 2")
    table.add("... and their chunks are removed after", back, "s")


def totals(cloud):
    done = subprocess.run([cloud.sr, "df", "--json"], env=cloud.env, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[0])


def metadata(cloud, work, rounds, files, table):
    """Creates and stats at 64 in flight, and a listing of 100,000 entries."""
    create, stat, listing = [], [], []
    for _ in range(rounds):
        figures = cloud.bench("metadata", "--files", str(files), "--in-flight", "64")
        create.append(figures["create, durable"]["operations_per_second"])
        stat.append(figures["stat"]["operations_per_second"])
    tree = work / "empty"
    for directory in range(100):
        (tree / f"d{directory}").mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            (tree / f"d{directory}" / f"f{number}").touch()
    cloud.run("put", "-r", str(tree), "/listed")
    for _ in range(rounds):
        listing.append(cloud.run("ls", "-R", "/listed"))
    table.add("creates in one directory, 64 in flight, durable", create, "per s", "15,000")
    table.add("stats, 64 in flight", stat, "per s", "40,000")
    table.add("ls -R of 100,000 entries", listing, "s", "< 1")
    table.add("rm -r of 100,000 entries", [cloud.run("rm", "-r", "/listed")], "s", "< 2")


def overwrite(cloud, work, rounds, table):
    """Random durable 4 KiB overwrites, beside O_DSYNC on a local file."""
    local, cloud_rate, amplification = [], [], []
    for _ in range(rounds):
        local.append(dsync_rate(work / "large"))
        figures = cloud.bench("random", "--size", "1G", "--in-flight", "32", "--seconds", "5",
                              "--pid", str(cloud.process.pid))
        figure = figures["random overwrite, durable"]
        cloud_rate.append(figure["operations_per_second"])
        amplification.append(float(re.search(r"([\d.]+) per byte", figure["note"]).group(1)))
    base = statistics.median(local)
    table.add("random 4 KiB O_DSYNC overwrites, local, 1 in flight", local, "per s")
    table.add("random 4 KiB overwrites, 2 copies, durable, 32 in flight", cloud_rate, "per s")
    table.add("... as a ratio to local", [rate / base for rate in cloud_rate], "x", "3")
    table.add("... bytes written to the disk per byte overwritten (2 copies)", amplification, "x")


def main():
    options = arguments()
    work = pathlib.Path(tempfile.mkdtemp(prefix="sr-bench-", dir=options.dir))
    table = Table()
    print("| what | median | spread | asked |\n|---|---|---|---|")
    try:
        starts = []
        for round in range(options.rounds):
            home = work / f"start-{round}"
            home.mkdir()
            cloud = Cloud(options.sr, home)
            starts.append(cloud.start())
            cloud.stop()
            shutil.rmtree(home)
        table.add("sr up from nothing to ready, 3 targets", starts, "s", "< 2")
        home = work / "home"
        home.mkdir()
        cloud = Cloud(options.sr, home)
        cloud.start()
        time.sleep(5)
        before, _ = cloud.usage()
        time.sleep(10)
        after, resident = cloud.usage()
        table.add("idle CPU", [(after - before) * 10], "%", "< 1")
        table.add("idle memory", [resident], "MiB", "< 150")
        large(cloud, work, options.rounds, table)
        overwrite(cloud, work, options.rounds, table)
        small(cloud, work, options.rounds, options.files, table)
        metadata(cloud, work, options.rounds, options.files, table)
        cloud.stop(signal.SIGKILL)
        table.add("ready again after kill -9", [cloud.start()], "s", "< 3")
        cloud.stop()
    finally:
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(table.rows, indent=1))
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
