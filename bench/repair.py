#!/usr/bin/env python3
"""Measures repair: what is done about a storage server that is lost, how fast, and what the load beside notices of it.

    cargo build --release && python3 bench/repair.py [--sr PATH] [--dir DIR] [--rounds 3] [--gib 4] [--limit 20M]
        [--json FILE]

Real processes on loopback: one `sr meta` and five `sr storage`, each its own host, two copies, a new cluster for each
measurement. Members that are gone are replaced after 5 s here (`sr repair after`; the default is 10 minutes).

    pause       a server is killed with SIGKILL under a load of small puts and reads, which are checked as in failover.py:
                the longest time in which none finished, and the time until the first chain is being filled, beyond those 5 s
    speed       the same without a load and without a limit: from the first chain that is being filled until nothing is to be
                moved (but chains whose only copy was lost, of a class with one); beside what the local disk writes and
                syncs, measured just before in the same place with as many bytes. All servers share that one disk
    limit       the same with a limit for each server: what each one that is left sends per second, by its own metrics if
                they say so, else by what all its connections send, as `ss` says, else by what the new members got
    foreground  puts and reads of 16 MiB files alone (before the loss, and after the repair), and while a repair runs at
                the default limit

It needs six times --gib of disk. Nothing else should run.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from cluster import Cluster
from core import GIB, Table
from failover import Load, pause

SERVERS = (11, 12, 13, 14, 15)
AFTER = 5
"""Seconds after which a member that is gone is replaced; whole ones, as the command wants them."""
PIECE = 16 << 20
STEADY, WINDOW, PATIENCE = 2.0, 10.0, 900.0
SENT = ("fill", "transfer", "sent", "resync", "catch_up")
"""A metric whose name has one of these and `bytes` says how much a server sent to fill members."""
NOISE = 64 << 10
"""Bytes sent between two looks that are heartbeats and the like."""


@contextlib.contextmanager
def cluster(options, gib, limit=None):
    """A new cluster with so much data on it."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="sr-repair-", dir=options.dir))
    try:
        made = Cluster(options.sr, home, SERVERS)
        try:
            made.order("repair", "after", f"{AFTER}s")
            if limit is not None:
                made.order("repair", "limit", limit)
            source = home / "source"
            with open(source, "wb") as file:
                file.write(os.urandom(PIECE))
            files = home / "files"
            files.mkdir()
            for number in range(int(gib * GIB / PIECE)):
                (files / str(number)).hardlink_to(source)
            made.order("put", "-r", str(files), "/files")
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(home)


def held(made, server):
    """Bytes that the target of a server holds."""
    return next(line["live"] for line in made.look("status") if line["record"] == "target" and line["node"] == server)


def movement(made):
    found = made.look("repair", "status")
    return found[0] if found else None


def until(made, what, holds):
    """Waits until the movement is so; answers when the look that saw it began."""
    begin = time.monotonic()
    while time.monotonic() < begin + PATIENCE:
        looked = time.monotonic()
        now = movement(made)
        if now and holds(now):
            return looked
        time.sleep(0.03)
    sys.exit(f"not {what} after {PATIENCE:.0f} s: {now}")


def begun(now):
    return bool(now["moving"])


def done(now):
    """Nothing is left to do, but what has no copy to be filled from."""
    left = now["moving"] or now["waiting"] or now["stuck"]
    return not left and now["missing"] and all(one["chains"] <= now["down"] for one in now["missing"])


def whole(made):
    """Ends with an error unless all files have all their copies."""
    found = made.client("fsck", "/files")
    if found.returncode:
        sys.exit(f"sr fsck /files: {(found.stdout + found.stderr).decode()[-1000:]}")


def local_rate(directory, count):
    """Bytes per second that the disk takes, written and synced."""
    block, path = os.urandom(8 << 20), directory / "raw"
    begin = time.monotonic()
    with open(path, "wb", buffering=0) as file:
        for _ in range(max(count // len(block), 1)):
            file.write(block)
        os.fsync(file.fileno())
    took = time.monotonic() - begin
    path.unlink()
    return max(count // len(block), 1) * len(block) / took


def measure_pause(options, victim, figures):
    with cluster(options, 0.25, "0") as made:
        load = Load(made)
        load.start()
        try:
            time.sleep(STEADY)
            zero = time.monotonic()
            made.kill(victim)
            first = until(made, "filling", begun)
            until(made, "repaired", done)
            over = time.monotonic()
        finally:
            load.over = True
        load.end()
        for kind, word in (("write", "writes"), ("read", "reads")):
            operations = [(begin - zero, end - zero) for begin, end in load.finished[kind] if end <= over]
            gap, longest = pause(operations)
            figures[f"pause of {word}"].append(gap)
            figures[f"longest {kind}"].append(longest)
        figures["first filled"].append(first - zero - AFTER)
        whole(made)


def measure_speed(options, victim, figures):
    with cluster(options, options.gib, "0") as made:
        lost = held(made, victim)
        raw = local_rate(made.home, lost)
        zero = time.monotonic()
        made.kill(victim)
        first = until(made, "filling", begun)
        last = until(made, "repaired", done)
        whole(made)
        figures["lost"].append(lost / 1e6)
        figures["raw"].append(raw / 1e6)
        figures["restored in"].append(last - first)
        figures["restored"].append(lost / (last - first) / 1e6)
        figures["ratio"].append(lost / (last - first) / raw)
        figures["whole again"].append(last - zero - AFTER)


class Sent:
    """How much servers have sent to fill others, over time, and by what we know it."""

    def __init__(self, made, servers):
        self.made, self.how = made, "all their connections"
        self.samples, self.connections = {server: [] for server in servers}, {server: {} for server in servers}

    def look(self):
        for server, samples in self.samples.items():
            at, found = time.monotonic(), self.made.metrics(server)
            families = {name.split("{")[0] for name in found}
            family = next((name for name in families if "bytes" in name and any(word in name for word in SENT)), None)
            if family:
                self.how = family
                samples.append((at, sum(value for name, value in found.items() if name.split("{")[0] == family)))
            else:
                # Those that have ended count, too.
                self.connections[server].update(self.made.sent(server))
                samples.append((at, sum(self.connections[server].values())))

    def total(self):
        return sum(all[-1][1] - all[0][1] for all in self.samples.values())

    def rates(self):
        """Of each that sent, from the first look after it began to the last one before it ended."""
        for all in self.samples.values():
            moves = [after for before, after in zip(all, all[1:]) if after[1] > before[1] + NOISE]
            if len(moves) > 1:
                yield (moves[-1][1] - moves[0][1]) / (moves[-1][0] - moves[0][0])


def measure_limit(options, victim, figures):
    with cluster(options, options.gib, options.limit) as made:
        left = [server for server in SERVERS if server != victim]
        limit = movement(made)["limit"]
        lost, before = held(made, victim), sum(held(made, server) for server in left)
        made.kill(victim)
        sent, first, now = Sent(made, left), None, None
        while not (now and done(now)):
            sent.look()
            now = movement(made)
            first = first or (time.monotonic() if now and begun(now) else None)
        last = time.monotonic()
        sent.look()
        grown = sum(held(made, server) for server in left) - before
        rates, how = list(sent.rates()), sent.how
        if sent.total() < 0.9 * grown:
            # It is not known what each sends: what the new members got, by source on average.
            rates, how = [grown / (last - first) / len(left)], "growth of the new members"
        figures["rate of a source"] += [one / 1e6 for one in rates]
        figures["rate to limit"] += [one / limit for one in rates]
        print(f"limit: {lost / 1e6:,.0f} MB lost, {grown / 1e6:,.0f} MB made again in {last - first:.1f} s; by {how} "
              f"({sent.total() / 1e6:,.0f} MB): " + ", ".join(f"{one / 1e6:.1f} MB/s" for one in rates),
              file=sys.stderr, flush=True)
        whole(made)


class Foreground:
    """Puts and reads of large files, and how many bytes were done when."""

    def __init__(self, made, jobs):
        self.made, self.over, self.finished, self.lock, self.failed = made, False, [], threading.Lock(), []
        self.workers = [threading.Thread(target=self.work, args=(put, job)) for put in (True, False) for job in range(jobs)]
        for worker in self.workers:
            worker.start()

    def work(self, put, job):
        count = 0
        while not self.over:
            count += 1
            words = ["cat", f"/files/{(job * 7 + count) % 16}"]
            if put:
                words = ["put", str(self.made.home / "source"), f"/load-{job}-{count % 4}"]
            begin = time.monotonic()
            # What is read goes nowhere.
            process = subprocess.run([self.made.sr, *words], env=self.made.env, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.PIPE)
            with self.lock:
                self.finished.append((begin, time.monotonic()))
                if process.returncode:
                    self.failed.append(process.stderr.decode())

    def rate(self, low, high):
        """Bytes per second between two moments; what began before or ended after counts in part."""
        with self.lock:
            shares = [max(min(end, high) - max(begin, low), 0.0) / (end - begin) for begin, end in self.finished]
        return sum(shares) * PIECE / (high - low)

    def end(self):
        self.over = True
        for worker in self.workers:
            worker.join()
        if self.failed:
            sys.exit(f"the load failed: {self.failed[0]}")


def measure_foreground(options, victim, figures):
    with cluster(options, options.gib) as made:
        load = Foreground(made, options.jobs)
        try:
            time.sleep(STEADY)
            before = time.monotonic()
            time.sleep(WINDOW)
            zero = time.monotonic()
            made.kill(victim)
            first = until(made, "filling", begun)
            last = until(made, "repaired", done)
            time.sleep(STEADY)
            after = time.monotonic()
            time.sleep(WINDOW)
            end = time.monotonic()
        finally:
            load.end()
        alone, later, beside = load.rate(before, zero), load.rate(after, end), load.rate(first, last)
        figures["alone"] += [alone / 1e6, later / 1e6]
        figures["beside"].append(beside / 1e6)
        figures["share"].append(beside / statistics.mean([alone, later]))
        figures["repair beside"].append(last - first)
        whole(made)


PARTS = {"pause": measure_pause, "speed": measure_speed, "limit": measure_limit, "foreground": measure_foreground}


def rows(limit):
    """Part, figure, name, unit, wanted."""
    return [
        ("pause", "pause of writes", "a server is killed: pause of writes", "s", "< 5 s"),
        ("pause", "longest write", "... the longest write", "s", "< 5 s"),
        ("pause", "pause of reads", "a server is killed: pause of reads", "s", "< 5 s"),
        ("pause", "longest read", "... the longest read", "s", "< 5 s"),
        ("pause", "first filled", f"first chain being filled, beyond the {AFTER} s set (default 600 s)", "s", "< 5 s"),
        ("speed", "lost", "data on the lost target", "MB", ""),
        ("speed", "raw", "as many bytes written and synced locally", "MB/s", ""),
        ("speed", "restored in", "repaired without a limit, from the first chain filled on", "s", ""),
        ("speed", "whole again", f"... from the kill on, beyond the {AFTER} s", "s", ""),
        ("speed", "restored", "... data restored", "MB/s", ""),
        ("speed", "ratio", "... as a ratio to the local disk, which all servers share", "x", ">= 0.5"),
        ("limit", "rate of a source", f"repaired at most {limit} from each server: sent by each", "MB/s", ""),
        ("limit", "rate to limit", "... as a ratio to the limit", "x", "0.9 to 1.1"),
        ("foreground", "alone", "puts and reads of 16 MiB, alone", "MB/s", ""),
        ("foreground", "beside", "... while a repair runs at the default limit", "MB/s", ""),
        ("foreground", "share", "... as a ratio to alone", "x", ">= 0.6"),
        ("foreground", "repair beside", "... how long the repair took", "s", ""),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--dir", help="where to work: needs six times --gib")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gib", type=float, default=4.0, help="data of a cluster, without copies")
    parser.add_argument("--limit", default="20M", help="bytes a second from each server, of the third part")
    parser.add_argument("--jobs", type=int, default=2, help="puts, and as many reads, at a time of the last part")
    parser.add_argument("--parts", default=",".join(PARTS), help="only these, with commas between")
    parser.add_argument("--json", help="write the figures here too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parts = options.parts.split(",")
    figures = {name: [] for _, name, *_ in rows(options.limit)}
    for number in range(options.rounds):
        for part in parts:
            PARTS[part](options, SERVERS[number % len(SERVERS)], figures)
            print(f"round {number + 1}: {part} done", file=sys.stderr, flush=True)
    table = Table()
    print("| what | median | spread | wanted |\n|---|---|---|---|")
    for part, figure, name, unit, wanted in rows(options.limit):
        if part in parts:
            table.add(name, figures[figure], unit, wanted)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(table.rows, indent=1))


if __name__ == "__main__":
    main()
