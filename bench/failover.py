#!/usr/bin/env python3
"""Measures how long reads and writes pause when one of three storage servers dies or hangs, and draws an SVG.

    cargo build --release && python3 bench/failover.py [--sr PATH] [--rounds 5] [--out docs/images/failover.svg] [--json FILE]

Each round starts a new cluster of real processes on loopback: `sr meta` and three `sr storage`, two copies. Writers
overwrite files with `sr put` (durable when it returns), readers get them with `sr cat`, one process per operation. In
half of the rounds a server gets SIGKILL, in the others SIGSTOP and, six seconds later, SIGCONT. A pause is the longest
time in which no operation of a kind finished. Every read is checked: its bytes must be those of one version of the file,
and no older than the newest that was acknowledged before the read began; so a woken server that served old bytes would
be noticed. An operation that fails, or a wrong byte, ends the measurement; only a read of a file that was replaced while it
was read, and whose old bytes were cleared away by then, is done again (how many is said), and its time goes on. Nothing
else should run.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

from cluster import Cluster

SERVERS = (11, 12, 13)
WRITERS, READERS, FILES, LENGTH = 4, 4, 16, 64 << 10
STEADY, AWAY, AFTER, BIN = 2.0, 6.0, 3.0, 0.05
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, GAP = 860, 520, 60, 20, 44, 44, 60
COLORS = {"write": "#1f5fa8", "read": "#b04a1e"}


def content(writer, file, version):
    """The bytes of one version of a file: they say what they are, and all depend on it."""
    head = f"{writer} {file} {version}\n".encode()
    return (head + hashlib.shake_128(head).digest(LENGTH))[:LENGTH]


class Load:
    """Writers and readers, and what they finished when."""

    def __init__(self, cluster):
        self.cluster, self.lock, self.over, self.wrong, self.again = cluster, threading.Lock(), False, [], 0
        names = [(writer, file) for writer in range(WRITERS) for file in range(FILES)]
        self.begun, self.acknowledged = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        self.finished = {"write": [], "read": []}  # (begin, end) of each operation
        for writer, file in names:
            self.write(writer, file)
        self.finished["write"].clear()
        workers = [threading.Thread(target=self.writer, args=(number,)) for number in range(WRITERS)]
        workers += [threading.Thread(target=self.reader, args=(number,)) for number in range(READERS)]
        self.workers = workers

    def start(self):
        for worker in self.workers:
            worker.start()

    def end(self):
        """Ends the load, and reads every file once more."""
        self.over = True
        for worker in self.workers:
            worker.join()
        for name in self.begun:
            self.read(*name)
        if self.wrong:
            sys.exit("\n".join(self.wrong))

    def note(self, kind, begin):
        with self.lock:
            self.finished[kind].append((begin, time.monotonic()))

    def write(self, writer, file):
        name = (writer, file)
        version = self.begun[name] = self.begun[name] + 1
        local = self.cluster.home / f"file-{writer}"
        local.write_bytes(content(writer, file, version))
        begin = time.monotonic()
        done = self.cluster.client("put", str(local), f"/{writer}-{file}")
        if done.returncode:
            self.wrong.append(f"a put failed: {done.stderr.decode()}")
        self.acknowledged[name] = version
        self.note("write", begin)

    def read(self, writer, file):
        name = (writer, file)
        oldest, started, begin = self.acknowledged[name], self.begun[name], time.monotonic()
        done = self.cluster.client("cat", f"/{writer}-{file}")
        while done.returncode and self.begun[name] != started:
            started = self.begun[name]
            done = self.cluster.client("cat", f"/{writer}-{file}")
            self.again += 1
        self.note("read", begin)
        if done.returncode:
            self.wrong.append(f"a read failed: {done.stderr.decode()}")
            return
        version = int(done.stdout.split(b"\n", 1)[0].split()[2])
        if done.stdout != content(writer, file, version):
            self.wrong.append(f"/{writer}-{file}: wrong bytes")
        if not oldest <= version <= self.begun[name]:
            self.wrong.append(f"/{writer}-{file}: version {version} is old: {oldest} was acknowledged")

    def writer(self, number):
        draw = random.Random(number)
        while not self.over and not self.wrong:
            self.write(number, draw.randrange(FILES))

    def reader(self, number):
        draw = random.Random(1000 + number)
        while not self.over and not self.wrong:
            self.read(draw.randrange(WRITERS), draw.randrange(FILES))


def play(sr, victim, fault):
    """One round. Answers for each kind the times of its operations, with the fault at 0."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="sr-failover-"))
    cluster = Cluster(sr, home, SERVERS)
    try:
        load = Load(cluster)
        load.start()
        time.sleep(STEADY)
        zero = time.monotonic()
        cluster.signal(victim, signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
        time.sleep(AWAY)
        if fault == "stop":
            cluster.signal(victim, signal.SIGCONT)
        time.sleep(AFTER)
        until = time.monotonic()
        load.end()
        shift = {kind: [(begin - zero, end - zero) for begin, end in done if end <= until]
                 for kind, done in load.finished.items()}
        return {"victim": victim, "fault": fault, "again": load.again, **shift}
    finally:
        cluster.stop()
        shutil.rmtree(home)


def pause(operations):
    """The longest time from the fault on in which none finished, and the longest one that was under way in it."""
    ends = sorted(end for _, end in operations)
    gaps = [after - max(before, 0.0) for before, after in zip(ends, ends[1:]) if after > 0]
    return max(gaps), max(end - begin for begin, end in operations if end > 0)


def draw(rounds, out):
    """Bytes finished per second over time, of one round of each fault."""
    low, high = -STEADY, AWAY + AFTER
    panel = (HEIGHT - TOP - BOTTOM - GAP) / 2
    x = lambda t: LEFT + (WIDTH - LEFT - RIGHT) * (t - low) / (high - low)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             'font-size="13">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    for number, (fault, title) in enumerate([("kill", "SIGKILL to one of three storage servers at 0 s"),
                                             ("stop", f"SIGSTOP at 0 s, SIGCONT at {AWAY:.0f} s")]):
        one = [round for round in rounds if round["fault"] == fault]
        one = sorted(one, key=lambda round: pause(round["write"])[0])[len(one) // 2]
        base = TOP + number * (panel + GAP) + panel
        rates = {}
        for kind in COLORS:
            bins = [0.0] * math.ceil((high - low) / BIN)
            for _, end in one[kind]:
                at = int((end - low) / BIN)
                if 0 <= at < len(bins):
                    bins[at] += LENGTH / BIN / 1e6
            rates[kind] = bins
        top = 4 * math.ceil(max(max(bins) for bins in rates.values()) / 4)
        parts.append(f'<text x="{LEFT}" y="{base - panel - 10}">{title}: MB/s finished, per 50 ms</text>')
        for step in range(5):
            y = base - panel * step / 4
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{top * step // 4}</text>')
        for second in range(int(low), int(high) + 1):
            parts.append(f'<text x="{x(second):.1f}" y="{base + 18:.1f}" text-anchor="middle">{second}</text>')
        for mark in [0.0] + ([AWAY] if fault == "stop" else []):
            parts.append(f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{base - panel:.1f}" y2="{base:.1f}" '
                         'stroke="#888" stroke-dasharray="4 3"/>')
        for kind, bins in rates.items():
            points = " ".join(f"{x(low + (at + 0.5) * BIN):.1f},{base - panel * rate / top:.1f}"
                              for at, rate in enumerate(bins))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{COLORS[kind]}" stroke-width="1.2"/>')
    for number, (kind, color) in enumerate(COLORS.items()):
        parts.append(f'<text x="{WIDTH - RIGHT - 150 * number}" y="{TOP - 10}" text-anchor="end" fill="{color}">'
                     f'{kind}s, {WRITERS if kind == "write" else READERS} at a time</text>')
    parts += [f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">seconds</text>', "</svg>"]
    pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(out).write_text("\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default=str(root / "docs" / "images" / "failover.svg"))
    parser.add_argument("--json", help="write the times of all operations here too")
    options = parser.parse_args()
    rounds = []
    for number in range(options.rounds):
        for fault in ("kill", "stop"):
            done = play(options.sr, SERVERS[number % len(SERVERS)], fault)
            rounds.append(done)
            figures = ", ".join("{}: pause {:.2f} s, longest one {:.2f} s".format(kind, *pause(done[kind]))
                                for kind in COLORS)
            print(f"{fault} server {done['victim']}: {figures}, {done['again']} reads again", file=sys.stderr, flush=True)
    print("| what | median | spread | wanted |\n|---|---|---|---|")
    words = {"kill": "a storage server is killed", "stop": "one hangs (SIGSTOP), and wakes"}
    for fault, event in words.items():
        for kind in COLORS:
            pauses, longest = zip(*(pause(one[kind]) for one in rounds if one["fault"] == fault))
            for what, values in [(f"no {kind} finishes", pauses), (f"... the longest {kind}", longest)]:
                print(f"| {event}: {what} | {statistics.median(values):.2f} s | {min(values):.2f} to "
                      f"{max(values):.2f} | < 5 s |")
    draw(rounds, options.out)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rounds))


if __name__ == "__main__":
    main()
