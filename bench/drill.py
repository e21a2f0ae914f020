#!/usr/bin/env python3
"""Breaks a cluster for twenty minutes, under load, and checks that no acknowledged byte is lost, wrong or out of reach.

    cargo build --release && python3 bench/drill.py [--sr PATH] [--seed N] [--events 200] [--minutes 20] [--copies 2]
        [--json FILE]

One `sr meta` and five `sr storage`, real processes, each in a network namespace of its own (that needs root; without it
they are on loopback, no network is cut, and the output says so). Six clients, one `sr` process per operation, put new
files, overwrite, read, move, remove and list. Meanwhile storage servers are killed with SIGKILL and started again, some
of them only after their chains were repaired (after 20 s here; the default is 10 minutes); stopped with SIGSTOP and
woken; cut off from everybody; two of them cannot send to each other, or one cannot to the other. Beside that the
metadata server is killed, stopped or cut off, and chains are moved back to servers that they were repaired away from
(`sr rebalance start`). At most copies - 1 storage servers are impaired at a time: a server is, until `sr status` says
that every chain of the default class has all its copies, wherever they are by then. If waiting for that leaves no time
for all events, it says how many there were.

Each client knows what was acknowledged: a path holds one content, or one of several while a change of it is under way,
or for ever after one failed; then nothing more is done to it. A read must give what the path may have held at a moment
of the read. A read that fails is done again if the file was changed meanwhile, unless it says that there is no file
where there always was one. At the end all is started, and when the cluster is whole: everything is read; every byte of
every copy is checked (`sr fsck --deep /`); everything is read with each storage server killed in turn, so that with two
copies each is read; all servers are killed and started; and everything is read and listed once more, so that what was
removed stays removed, and the members have compared what they have.

Exit code 1 if anything is lost, wrong or back again, if `sr status` says that something is damaged (two members that
have different things, say), if an operation takes more than two minutes, or if the cluster does not get whole. The
directory is kept then, and its name printed: logs of all servers (SR_LOG, default info), `events` and `operations`.
--seed draws the same events and operations again, but not the same moments. A trial: --minutes 3 --events 30.
"""

import argparse
import hashlib
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
import threading
import time

from cluster import META, Cluster, Loopback, Namespaces

SERVERS = (11, 12, 13, 14, 15)
CLIENTS = 6
REPAIR_AFTER = "20s"
AGAIN = 10
"""Times that a read is done again because its file was changed meanwhile."""
STUCK = 120.0
"""Seconds that no operation may take."""
NOTICE = 4.0
"""Seconds after which a status knows of a server's death: lease, margin, and some more."""
COMPARED = 30.0
"""Seconds after a start in which members have compared what they have."""
WHOLE = 300.0
"""Seconds that the cluster may take until it is whole, when all is started."""
FILES = 60
"""A client removes rather than puts when it has so many."""
SIZES = [(60, 0, 64 << 10), (30, 64 << 10, 1 << 20), (9, 1 << 20, 12 << 20), (1, 64 << 20, 72 << 20)]
"""Weight, from, to: the last ones have two chunks."""
GONE = ("no such file", "not found", "there is no")
"""What `sr` says of a path that is not there."""
UNREACHED = "cannot connect"
"""What it says when it gave up before it had asked for anything."""


def content(seed, length):
    head = f"{seed}\n".encode()
    return (head + hashlib.shake_128(head).digest(length))[:length]


def digest(data):
    return f"{len(data)} {hashlib.blake2b(data, digest_size=16).hexdigest()}"


class Journal:
    """JSON lines in a file, from many threads, each with the seconds since the start."""

    def __init__(self, path):
        self.file, self.lock, self.zero = open(path, "a"), threading.Lock(), time.monotonic()
        self.wall = time.time()

    def note(self, **what):
        at = time.monotonic() - self.zero
        clock = time.strftime("%H:%M:%S", time.gmtime(self.wall + at)) + f"{(self.wall + at) % 1:.3f}"[1:]
        with self.lock:
            self.file.write(json.dumps({"at": round(at, 3), "utc": clock, **what}) + "\n")
            self.file.flush()


class Paths:
    """What each path may hold. A state is a set of contents, `None` for no file; all states of a path are kept, in order."""

    def __init__(self):
        self.lock, self.states, self.retired = threading.Lock(), {}, set()

    def now(self, path):
        with self.lock:
            return self.states.get(path, [frozenset({None})])[-1]

    def moment(self, path):
        with self.lock:
            return max(len(self.states.get(path, ())) - 1, 0)

    def since(self, path, moment):
        """All that it may have held since a moment, and whether anything changed."""
        with self.lock:
            states = self.states.get(path, [frozenset({None})])[moment:]
            return frozenset().union(*states), len(states) > 1

    def begin(self, changes):
        with self.lock:
            for path, new in changes.items():
                states = self.states.setdefault(path, [frozenset({None})])
                states.append(states[-1] | {new})

    def end(self, changes, fate):
        """The changes are `done`, or surely `not begun`, or nobody knows."""
        with self.lock:
            for path, new in changes.items():
                if fate == "done":
                    self.states[path].append(frozenset({new}))
                elif fate == "not begun":
                    self.states[path].append(self.states[path][-2])
                else:
                    self.retired.add(path)

    def certain(self, prefix):
        """Paths below the prefix that surely are there, without those of failed changes."""
        with self.lock:
            return [path for path, states in self.states.items() if path.startswith(prefix) and
                    path not in self.retired and None not in states[-1]]

    def all(self):
        with self.lock:
            return {path: states[-1] for path, states in self.states.items()}


class Load:
    """The clients, what they did, and what was wrong."""

    def __init__(self, cluster, seed, journal):
        self.cluster, self.journal, self.paths, self.over = cluster, journal, Paths(), False
        self.lock, self.wrong, self.refused, self.times, self.again, self.bytes = threading.Lock(), [], [], {}, 0, 0
        self.longest, self.running = {}, {}
        for client in range(CLIENTS):
            if cluster.client("mkdir", f"/{client}").returncode:
                raise SystemExit("cannot make a directory")
        self.workers = [threading.Thread(target=self.work, args=(client, random.Random(f"{seed} {client}")))
                        for client in range(CLIENTS)]

    def fail(self, text, **more):
        with self.lock:
            self.wrong.append(text)
        self.journal.note(wrong=text, **more)
        print(f"WRONG: {text}", file=sys.stderr, flush=True)

    def start(self):
        for worker in self.workers:
            worker.start()

    def end(self):
        self.over = True
        for worker in self.workers:
            worker.join()

    def run(self, client, kind, *words, changes=None):
        """Runs a command that is an operation of a client; `None` if it never ended."""
        if changes:
            self.paths.begin(changes)
        begin = time.monotonic()
        process = subprocess.Popen([*self.cluster.network.inside(None), self.cluster.sr, *words], env=self.cluster.env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=STUCK)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            self.fail(f"client {client} is stuck: sr {' '.join(words)} did not end in {STUCK:.0f} s",
                      said=err.decode(errors="replace")[-400:])
        took, done = time.monotonic() - begin, process.returncode
        said = err.decode(errors="replace").strip()[-400:]
        if changes:
            absent = done == 3 and UNREACHED in said
            self.paths.end(changes, "done" if done == 0 else "not begun" if absent else "unknown")
        with self.lock:
            self.times.setdefault(kind, []).append(took)
            if took > self.longest.get(client, (0.0,))[0]:
                self.longest[client] = (took, f"sr {' '.join(words)}")
        note = {"client": client, "op": kind, "words": words, "took": round(took, 3), "code": done}
        self.journal.note(**note, **({"changes": changes} if changes else {}), **({"said": said} if said else {}))
        return done, out, said

    def refuse(self, client, words, code, said):
        with self.lock:
            self.refused.append({"client": client, "words": words, "code": code, "said": said})

    def change(self, client, kind, *words, changes):
        done, _, said = self.run(client, kind, *words, changes=changes)
        if done:
            self.refuse(client, words, done, said)
            if any(word in said.lower() for word in GONE):
                self.fail(f"sr {' '.join(words)}: {said}; the path is there")
        return done == 0

    def read(self, client, path, draw):
        """Reads a path, again if it was changed meanwhile, and checks what came."""
        local, tries = self.cluster.home / f"got-{client}", 0
        while True:
            moment = self.paths.moment(path)
            if draw.random() < 0.5:
                done, out, said = self.run(client, "read", "cat", path)
            else:
                local.unlink(missing_ok=True)
                done, _, said = self.run(client, "read", "get", path, str(local))
                out = local.read_bytes() if done == 0 else b""
            allowed, changed = self.paths.since(path, moment)
            if done == 0:
                found = digest(out)
                with self.lock:
                    self.bytes += len(out)
                if found not in allowed:
                    self.keep(f"read-{client}", path, out, found, allowed)
                return
            gone = any(word in said.lower() for word in GONE)
            if gone and None in allowed:
                return
            # It was replaced, and its old bytes cleared away; but never was there no such file.
            if (changed or len(allowed) > 1) and not gone and tries < AGAIN:
                tries += 1
                with self.lock:
                    self.again += 1
                continue
            self.refuse(client, ("read", path), done, said)
            if UNREACHED not in said:
                self.fail(f"a read of {path} failed, and it held {sorted(map(str, allowed))}: {said}")
            return

    def keep(self, name, path, data, found, allowed):
        """Something else was read than what may be there: keeps it."""
        kept = self.cluster.home / f"wrong-{len(self.wrong)}-{name}"
        kept.write_bytes(data)
        states = [sorted(map(str, state)) for state in self.paths.states.get(path, [])]
        self.fail(f"{path} holds {found}, but may hold {sorted(map(str, allowed))}; see {kept}", states=states)

    def work(self, client, draw):
        try:
            self.operate(client, draw)
        except Exception as error:  # An error of this script must not pass as a quiet client.
            self.fail(f"client {client} ended: {error!r}")
            raise

    def operate(self, client, draw):
        home, local, count = f"/{client}", self.cluster.home / f"local-{client}", 0
        while not self.over:
            count += 1
            own = self.paths.certain(f"{home}/")
            kinds = {"put": 25, "overwrite": 20, "read": 30, "remove": 8, "move": 10, "list": 7}
            if len(own) > FILES:
                kinds = {"overwrite": 10, "read": 30, "remove": 50, "move": 10}
            kind = draw.choices(list(kinds), list(kinds.values()))[0] if own else "put"
            path = draw.choice(own) if own else None
            fresh = f"{home}/f{count}"
            if kind in ("put", "overwrite"):
                path = fresh if kind == "put" else path
                _, low, high = draw.choices(SIZES, [weight for weight, _, _ in SIZES])[0]
                data = content(f"{client} {count}", draw.randrange(low, high))
                local.write_bytes(data)
                self.change(client, kind, "put", str(local), path, changes={path: digest(data)})
            elif kind == "read":
                others = self.paths.certain("/")
                self.read(client, draw.choice(others), draw)
            elif kind == "remove":
                self.change(client, kind, "rm", path, changes={path: None})
            elif kind == "move":
                to = draw.choice([fresh, *own])
                if to != path:
                    held = next(iter(self.paths.now(path)))
                    self.change(client, kind, "mv", "-T", path, to, changes={path: None, to: held})
            elif kind == "list":
                done, out, said = self.run(client, "list", "ls", home)
                if done:
                    self.refuse(client, ("ls", home), done, said)
                else:
                    self.compare({f"{home}/{name}" for name in out.decode().split()}, f"{home}/")

    def compare(self, found, prefix):
        """Whether a listing has all that is there, and nothing else."""
        for path, state in self.paths.all().items():
            if path.startswith(prefix):
                if path in found and state == {None}:
                    self.fail(f"{path} was removed, and is listed")
                if path not in found and None not in state:
                    self.fail(f"{path} is there, and is not listed")
        for path in found - set(self.paths.all()):
            self.fail(f"{path} is listed, and nobody made it")

    def read_all(self, when):
        """Lists and reads everything."""
        copy = self.cluster.home / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        words = [f"/{client}" for client in range(CLIENTS)]
        begin = time.monotonic()
        done = self.cluster.client("get", "-r", *words, str(copy), timeout=600)
        self.journal.note(check=when, took=round(time.monotonic() - begin, 3), code=done.returncode)
        if done.returncode:
            self.fail(f"{when}: not everything can be read: {done.stderr.decode(errors='replace')[-1500:]}")
        found = {"/" + str(path.relative_to(copy)): path for path in copy.rglob("*") if path.is_file()}
        found = {path: local for path, local in found.items() if not local.name.startswith(".")}
        self.compare(set(found), "/")
        for path, allowed in self.paths.all().items():
            if path in found and allowed != {None}:
                data = found[path].read_bytes()
                if digest(data) not in allowed:
                    self.keep("end", f"{path}", data, f"{when}: {digest(data)}", allowed)
        shutil.rmtree(copy)


class Faults:
    """What is done to the servers."""

    def __init__(self, cluster, draw, journal):
        self.cluster, self.draw, self.journal, self.lock = cluster, draw, journal, threading.Lock()
        # Server to when it was last disturbed and when first; those not running; those in an event.
        self.impaired, self.down, self.busy = {}, set(), set()
        self.meta_since, self.over, self.counts, self.threads = time.monotonic(), False, {}, []
        self.whole_times, self.errors = [], []
        self.most = cluster.copies - 1
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()

    def watch(self):
        """Strikes servers off the impaired ones once all chains of the default class are whole."""
        while not self.over:
            time.sleep(0.5)
            begin = time.monotonic()
            if META in self.busy or not self.impaired or begin < self.meta_since + NOTICE:
                continue
            if self.whole(everything=False):
                with self.lock:
                    for server, (since, first) in list(self.impaired.items()):
                        if begin > since + NOTICE:
                            del self.impaired[server]
                            self.journal.note(event="well", server=server, after=round(begin - first, 1))
                            self.whole_times.append(begin - first)

    def whole(self, everything):
        """Whether every chain of the default class, or everything, has all it should."""
        try:
            lines = self.cluster.look("status")
        except ValueError:
            lines = None
        if not lines or not lines[0]["chains"]:
            return False
        texts = [reason if isinstance(reason, str) else json.dumps(reason) for reason in lines[0]["reasons"]]
        if everything:
            return lines[0]["whole"] == lines[0]["chains"] and all(
                line["alive"] for line in lines if line["record"] == "server")
        return not any("class default" in text for text in texts)

    def begin(self, kind):
        """Begins an event of this kind, if there may be one now; says whether."""
        with self.lock:
            server, other = META, None
            if kind == "rebalance":
                server = None
            elif kind.startswith("meta"):
                if META in self.busy:
                    return False
            else:
                able = [number for number in SERVERS if number not in self.impaired and number not in self.busy]
                running = len(SERVERS) - len(self.down)
                if len(self.impaired) >= self.most or running <= self.cluster.copies + 1 or not able:
                    return False
                server = self.draw.choice(able)
                now = time.monotonic()
                self.impaired[server] = (float("inf"), now)
                others = [number for number in SERVERS if number not in (server, *self.down)]
                other = self.draw.choice(others)
            self.busy.add(server)
            thread = threading.Thread(target=self.play, args=(kind, server, other, self.times(kind)))
            self.threads.append(thread)
            self.counts[kind] = self.counts.get(kind, 0) + 1
        thread.start()
        return True

    def times(self, kind):
        """How long it lasts."""
        if kind == "rebalance":
            return 0.0
        if kind == "kill":
            return self.draw.uniform(25.0, 35.0) if self.draw.random() < 0.1 else self.draw.uniform(0.2, 6.0)
        return self.draw.uniform(0.2, 3.0) if kind.startswith("meta") else self.draw.uniform(0.5, 9.0)

    def play(self, kind, server, other, seconds):
        cluster, network = self.cluster, self.cluster.network
        begin = time.monotonic()
        self.journal.note(event=kind, server=server, other=other, seconds=round(seconds, 2))
        try:
            if kind in ("kill", "meta kill"):
                self.down.add(server)
                cluster.kill(server)
                self.disturbed(server)
                time.sleep(seconds)
                cluster.restart(server)
                self.down.discard(server)
            elif kind in ("stop", "meta stop"):
                cluster.signal(server, signal.SIGSTOP)
                time.sleep(seconds)
                cluster.signal(server, signal.SIGCONT)
            elif kind == "rebalance":
                cluster.client("rebalance", "start")  # There may be nobody to tell.
            elif kind in ("cut", "meta cut"):
                network.cut(server)
                time.sleep(seconds)
                network.mend(server)
            elif kind in ("part", "deafen"):
                pairs = [(server, other), (other, server)][:2 if kind == "part" else 1]
                for pair in pairs:
                    network.silence(*pair)
                time.sleep(seconds)
                for pair in pairs:
                    network.speak(*pair)
        except BaseException as error:
            self.errors.append(f"{kind} of server {server}: {error!r}")
            print(self.errors[-1], file=sys.stderr, flush=True)
        finally:
            self.disturbed(server)
            with self.lock:
                self.busy.discard(server)
        self.journal.note(event=f"end of {kind}", server=server, took=round(time.monotonic() - begin, 2))

    def disturbed(self, server):
        """From now on a status may be believed, after a while."""
        with self.lock:
            if server == META:
                self.meta_since = time.monotonic()
            elif server in self.impaired:
                self.impaired[server] = (time.monotonic(), self.impaired[server][1])

    def end(self):
        """Waits until all events are over."""
        for thread in self.threads:
            thread.join()
        self.over = True
        self.watcher.join()

    def until_whole(self):
        """Seconds until the cluster is whole; `None`: it is not."""
        begin = time.monotonic()
        time.sleep(NOTICE)
        while time.monotonic() < begin + WHOLE:
            if self.whole(everything=True):
                return time.monotonic() - begin
            time.sleep(0.5)
        return None


def events(options, faults, partitions, until):
    """Lets events happen until there were enough, or the time is over; those of the metadata server in their own time, so that
    they come beside the others. Answers how many there were."""
    storage, meta = {"kill": 30, "stop": 25}, {"meta kill": 36, "meta stop": 12}
    if partitions:
        storage |= {"cut": 15, "part": 7, "deafen": 7}
        meta |= {"meta cut": 12}
    meta |= {"rebalance": 8}
    both, begin, done = sum(storage.values()) + sum(meta.values()), time.monotonic() + 3.0, 0
    streams = []
    for kinds in (storage, meta):
        draw = random.Random(f"{options.seed} {min(kinds)}")
        count = round(options.events * sum(kinds.values()) / both)
        every = options.minutes * 60 / max(count, 1)
        # What happens is drawn before it is known when it can, so that it depends on the seed alone.
        drawn = draw.choices(list(kinds), list(kinds.values()), k=count)
        drawn = iter([(number * every, kind) for number, kind in enumerate(drawn)])
        streams.append([next(drawn, None), drawn])
    while any(stream[0] for stream in streams) and time.monotonic() < until:
        time.sleep(0.1)
        for stream in streams:
            if stream[0] and time.monotonic() > begin + stream[0][0] and faults.begin(stream[0][1]):
                stream[0] = next(stream[1], None)
                done += 1
                if done % 10 == 0:
                    print(f"{done} events", file=sys.stderr, flush=True)
    return done


def check(cluster, load, faults, summary):
    """All that must hold when the load is over."""
    def whole(when):
        took = faults.until_whole()
        if took is None:
            status = cluster.client("status").stdout.decode(errors="replace")
            load.fail(f"{when}: the cluster is not whole after {WHOLE:.0f} s", status=status,
                      repair=cluster.client("repair", "status").stdout.decode(errors="replace"))
        return took

    cluster.client("rebalance", "stop")
    def well(when):
        status = cluster.look("status")
        health = status[0]["health"] if status else "no answer"
        if health not in ("healthy", "degraded"):
            load.fail(f"{when}: the cluster is {health}: {status and status[0]['reasons']}",
                      damage=cluster.client("status", "--damage").stdout.decode(errors="replace")[-4000:])
        return health

    summary["whole_s"] = whole("after the events")
    well("after the events")
    load.read_all("at the end")
    done = cluster.client("fsck", "--deep", "/", timeout=1200)
    summary["fsck"] = done.stdout.decode(errors="replace").strip().splitlines()[-1:]
    if done.returncode:
        load.fail(f"sr fsck --deep / finds something: {(done.stdout + done.stderr).decode(errors='replace')[-2000:]}")
    cluster.client("repair", "after", "1h")
    for server in SERVERS:
        cluster.kill(server)
        time.sleep(NOTICE)
        load.read_all(f"without server {server}")
        cluster.restart(server)
        whole(f"after server {server} came back")
    for number in (META, *SERVERS):
        cluster.kill(number)
    cluster.start_meta()
    for number in SERVERS:
        cluster.restart(number)
    summary["whole_after_restart_s"] = whole("after a restart of everything")
    load.read_all("after a restart of everything")
    # Members compare what they have 20 s after a start; before, nobody knows of a difference.
    time.sleep(COMPARED)
    summary["health"] = well("after a restart of everything")
    summary["server_errors"] = server_errors(cluster)


def server_errors(cluster):
    """What the servers' logs have of errors: the first of each kind, and how many there are."""
    kinds = {}
    for number in (META, *SERVERS):
        for line in cluster.log(number).read_text(errors="replace").splitlines():
            if " ERROR " in line or "panicked" in line:
                text = line.split(" ERROR ", 1)[-1]
                first = kinds.setdefault(re.sub(r"[\w.]+=.*", "", text).strip(), [0, f"server {number}: {line[:400]}"])
                first[0] += 1
    return kinds


def report(options, load, faults, summary, partitions):
    times = sorted(time for kind in load.times.values() for time in kind)
    longest = sorted(load.longest.items())
    summary.update({
        "seed": options.seed, "copies": options.copies, "minutes": options.minutes, "partitions": partitions,
        "kinds": faults.counts, "operations": {kind: len(all) for kind, all in sorted(load.times.items())},
        "again": load.again, "refused": load.refused, "wrong": load.wrong, "errors": faults.errors,
        "longest": {client: one for client, one in longest},
        "files": sum(state != {None} for state in load.paths.all().values()),
        "removed": sum(state == {None} for state in load.paths.all().values()),
        "whole_median_s": statistics.median(faults.whole_times) if faults.whole_times else None,
        "whole_max_s": max(faults.whole_times, default=None),
    })
    say = lambda what, value, wanted="": print(f"| {what} | {value} | {wanted} |")
    print("| what | | wanted |\n|---|---|---|")
    say("seed; copies", f"{options.seed}; {options.copies}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.counts.items()))
    say("events", f"{summary['events']} ({kinds})", options.events)
    if not partitions:
        say("partitions", "left out: no network namespaces here (they need root)")
    say("operations", ", ".join(f"{len(all)} {kind}" for kind, all in sorted(load.times.items())))
    say("... bytes read under load, all checked", f"{load.bytes / 1e6:,.0f} MB")
    say("... median; longest", f"{statistics.median(times):.2f} s; {times[-1]:.2f} s", f"< {STUCK:.0f} s")
    for client, (took, words) in longest:
        words = words.replace(str(load.cluster.home), ".")
        say(f"... longest of client {client}", f"{took:.2f} s: {words}", f"< {STUCK:.0f} s")
    unreached = sum(UNREACHED in one["said"] for one in load.refused)
    say("... found no metadata server in 5 s, and said so; reads done again", f"{unreached}; {load.again}")
    say("... failed otherwise, and said so", len(load.refused) - unreached, 0)
    if faults.whole_times:
        say("from a fault to whole, waits of the script included: median; longest",
            f"{statistics.median(faults.whole_times):.1f} s; {max(faults.whole_times):.1f} s")
    for what, key in [("from the end of all faults to whole", "whole_s"),
                      ("after a restart of everything", "whole_after_restart_s")]:
        if key in summary:
            say(what, "never" if summary[key] is None else f"{summary[key]:.1f} s", f"< {WHOLE:.0f} s")
    say("files read at the end; paths that stayed removed", f"{summary['files']}; {summary['removed']}")
    for kind, (count, first) in sorted(summary.get("server_errors", {}).items()):
        say(f"errors in the servers' logs: {kind}", count, 0)
    say("lost, wrong, back again, damaged, stuck or not whole", len(load.wrong), 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--dir", help="where to work: needs 10 GiB")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--loopback", action="store_true", help="no network namespaces, and no partitions")
    parser.add_argument("--keep", action="store_true", help="keep the directory in any case")
    parser.add_argument("--json", help="write the figures here too")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    home = pathlib.Path(tempfile.mkdtemp(prefix="sr-drill-", dir=options.dir))
    try:
        network = Loopback() if options.loopback else Namespaces((META, *SERVERS))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"no network namespaces, so no partitions: {error}", file=sys.stderr, flush=True)
        network = Loopback()
    partitions = not isinstance(network, Loopback)
    cluster = Cluster(options.sr, home, SERVERS, options.copies, network, log="info")
    load = faults = None
    summary, failed = {"events": 0}, True
    try:
        cluster.order("repair", "after", REPAIR_AFTER)
        journal = Journal(home / "events")
        load = Load(cluster, options.seed, Journal(home / "operations"))
        faults = Faults(cluster, random.Random(options.seed), journal)
        try:
            load.start()
            summary["events"] = events(options, faults, partitions, time.monotonic() + options.minutes * 60)
        finally:
            faults.end()
            load.end()
        for error in faults.errors:
            load.fail(f"a server did not come back: {error}")
        check(cluster, load, faults, summary)
        report(options, load, faults, summary, partitions)
        failed = bool(load.wrong)
    finally:
        cluster.stop()
        if options.json:
            pathlib.Path(options.json).write_text(json.dumps(summary, indent=1))
        if failed or options.keep:
            print(f"kept: {home} (seed {options.seed})", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(home)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
