#!/usr/bin/env python3
"""Measures the mount beside a local directory and MooseFS: the same work in each, one after the other, on one disk.

    apt-get install fio moosefs-master moosefs-chunkserver moosefs-client
    cargo build --release && python3 bench/mount.py [--sr PATH] [--dir DIR] [--copies 1] [--rounds 3] [--only local,sr,moosefs]
        [--json FILE] [--plot FILE.svg]

Steradian: one `sr meta`, three `sr storage`, one `sr mount`, with TLS as always. MooseFS: one master, three chunk servers, one
`mfsmount`, as Debian has them. All on one host, with their data in the same directory of the local disk; MooseFS does not
work on 127.0.0.1, and has a network namespace of its own. Between making files and looking at them everything is cold: the
mounts are made anew and the kernel's caches dropped.

    write, read     fio, 1 MiB one after the other; the write ends with fsync
    random          fio, 4 KiB, one at a time, anywhere in a file of --mib; the writes end with fsync
    files           4 KiB each, by 1 and by 8 processes, each in a directory of its own: created, created with fsync; then
                    cold: stat of each by name, `readdir` with stat of each entry; renamed; removed

Run it as root, and nothing else beside it.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import Cluster

SERVERS = (11, 12, 13)
ADDRESS = "10.78.0.1"
"""Of MooseFS, in its network namespace."""
PORTS = range(9419, 9425)
SYSTEMS = ("local", "sr", "moosefs")


class Local:
    """A directory of the disk."""

    def __init__(self, options, home):
        self.at = home / "local"
        self.at.mkdir()

    def cold(self):
        drop_caches()

    def stop(self):
        pass


class Mounted:
    """A file system that a process in the foreground serves at `at`."""

    def __init__(self, home):
        self.at = home / "mnt"
        self.at.mkdir()
        self.mount()

    def mount(self):
        self.begin_mount()
        wait_for(self.is_mounted, "it is mounted")

    def begin_mount(self):
        self.process = subprocess.Popen(self.command(), env=self.env(), stdout=subprocess.DEVNULL,
                                        stderr=open(self.at.parent / "mount.log", "a"))

    def is_mounted(self):
        if self.process.poll() is not None and not os.path.ismount(self.at):
            # Its server does not listen yet.
            self.begin_mount()
        return os.path.ismount(self.at)

    def env(self):
        return None

    def unmount(self):
        subprocess.run(["umount", str(self.at)], check=True)
        self.process.wait()

    def cold(self):
        self.unmount()
        drop_caches()
        self.mount()


class Steradian(Mounted):
    def __init__(self, options, home):
        self.cluster = Cluster(options.sr, home, SERVERS, copies=options.copies)
        try:
            super().__init__(home)
        except BaseException:
            self.cluster.stop()
            raise

    def command(self):
        return [self.cluster.sr, "mount", "--foreground", str(self.at)]

    def env(self):
        return self.cluster.env

    def stop(self):
        self.unmount()
        self.cluster.stop()


class MooseFs(Mounted):
    def __init__(self, options, home):
        self.home, self.processes, self.namespace = home, [], f"sr-{os.getpid()}-moosefs"
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        for words in (["address", "add", f"{ADDRESS}/32", "dev", "lo"], ["link", "set", "lo", "up"]):
            subprocess.run(["ip", "-n", self.namespace, *words], check=True)
        self.inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        try:
            self.begin(options, home)
        except BaseException:
            self.stop()
            raise

    def begin(self, options, home):
        master = home / "master"
        master.mkdir()
        shutil.copy("/var/lib/mfs/metadata.mfs.empty", master / "metadata.mfs")
        (home / "exports").write_text(f"{ADDRESS} / rw,alldirs,maproot=0\n")
        self.start("mfsmaster", "master", WORKING_USER="root", WORKING_GROUP="root", EXPORTS_FILENAME=home / "exports",
                   MATOML_LISTEN_HOST=ADDRESS, MATOML_LISTEN_PORT=PORTS[0], MATOCS_LISTEN_HOST=ADDRESS,
                   MATOCS_LISTEN_PORT=PORTS[1], MATOCL_LISTEN_HOST=ADDRESS, MATOCL_LISTEN_PORT=PORTS[2])
        for number in range(3):
            data = home / f"data-{number}"
            data.mkdir()
            (home / f"disks-{number}").write_text(f"{data}\n")
            self.start("mfschunkserver", f"chunks-{number}", WORKING_USER="root", WORKING_GROUP="root",
                       HDD_CONF_FILENAME=home / f"disks-{number}", MASTER_HOST=ADDRESS, MASTER_PORT=PORTS[1],
                       CSSERV_LISTEN_HOST=ADDRESS, CSSERV_LISTEN_PORT=PORTS[3 + number])
        super().__init__(home)
        # Chunk servers register one by one; each brings the space of the whole disk.
        wait_for(lambda: self.space() > 2.5 * shutil.disk_usage(home).free, "all chunk servers are there")
        subprocess.run([*self.inside, "mfssetgoal", "-r", str(options.copies), str(self.at)], check=True,
                       stdout=subprocess.DEVNULL)

    def space(self):
        return shutil.disk_usage(self.at).free

    def start(self, program, name, **settings):
        data = self.home / name
        data.mkdir(exist_ok=True)
        config = self.home / f"{name}.cfg"
        config.write_text("".join(f"{key} = {value}\n" for key, value in {"DATA_PATH": data, **settings}.items()))
        log = open(self.home / f"{name}.log", "w")
        words = [*self.inside, f"/usr/sbin/{program}", "-f", "-c", str(config), "start"]
        self.processes.append(subprocess.Popen(words, stdout=log, stderr=log))

    def command(self):
        return [*self.inside, "mfsmount", "-f", "-H", ADDRESS, "-P", str(PORTS[2]), str(self.at)]

    def stop(self):
        if os.path.ismount(self.home / "mnt"):
            self.unmount()
        for process in reversed(self.processes):
            process.terminate()
            process.wait()
        subprocess.run(["ip", "netns", "del", self.namespace])


def wait_for(holds, what):
    end = time.monotonic() + 60
    while not holds():
        if time.monotonic() > end:
            sys.exit(f"it did not come to this: {what}")
        time.sleep(0.05)


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")


def fio(system, how, block, **more):
    """Bytes per second."""
    words = [f"--{name}={value}" for name, value in more.items()]
    done = subprocess.run(["fio", "--name=work", f"--filename={system.at}/large", f"--rw={how}", f"--bs={block}",
                           "--ioengine=psync", "--output-format=json", *words], check=True, capture_output=True, text=True)
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    return job["write" if "write" in how else "read"]["bw_bytes"]


FILES = '''
import os, sys, time
what, at, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
bytes = b"x" * 4096
names = [f"{at}/{number:06}" for number in range(count)]
print("ready", flush=True)
sys.stdin.readline()
if what in ("create", "sync"):
    for name in names:
        file = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(file, bytes)
        if what == "sync":
            os.fsync(file)
        os.close(file)
elif what == "stat":
    for name in names:
        os.stat(name)
elif what == "list":
    with os.scandir(at) as entries:
        assert sum(entry.stat(follow_symlinks=False).st_size for entry in entries) == 4096 * count
elif what == "rename":
    for name in names:
        os.rename(name, name + "-new")
elif what == "remove":
    for name in names:
        os.unlink(name + "-new")
'''


def files(system, what, directory, workers, count):
    """Files per second, of all workers together."""
    running = []
    for worker in range(workers):
        at = system.at / directory / str(worker)
        at.mkdir(parents=True, exist_ok=True)
        running.append(subprocess.Popen([sys.executable, "-c", FILES, what, str(at), str(count)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True))
    for process in running:
        process.stdout.readline()
    begin = time.monotonic()
    for process in running:
        process.stdin.write("\n")
        process.stdin.close()
    if any([process.wait() for process in running]):
        sys.exit(f"{what} failed in {system.at}")
    return workers * count / (time.monotonic() - begin)


class Told(dict):
    """Figures by name, told as they come."""

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        print(f"    {name}: {value:,.0f} a second", file=sys.stderr, flush=True)


def measure(system, options):
    size, random = f"{options.mib}M", f"{options.mib // 16}M"
    found = Told()
    found["write"] = fio(system, "write", "1M", size=size, end_fsync=1)
    system.cold()
    found["read"] = fio(system, "read", "1M", size=size)
    system.cold()
    found["random read"] = fio(system, "randread", "4k", size=size, io_size=random)
    found["random write"] = fio(system, "randwrite", "4k", size=size, io_size=random, end_fsync=1)
    (system.at / "large").unlink()
    for workers in (1, 8):
        count = options.files // workers
        by = f" by {workers}"
        found["create" + by] = files(system, "create", f"c{workers}", workers, count)
        found["create, fsync" + by] = files(system, "sync", f"s{workers}", workers, count // 4)
        system.cold()
        found["stat" + by] = files(system, "stat", f"c{workers}", workers, count)
        system.cold()
        found["list, stat" + by] = files(system, "list", f"c{workers}", workers, count)
        found["rename" + by] = files(system, "rename", f"c{workers}", workers, count)
        found["remove" + by] = files(system, "remove", f"c{workers}", workers, count)
    return found


def table(figures):
    """Lines of what is known so far."""
    yield "| what | " + " | ".join(figures) + " | sr to local | sr to MooseFS |"
    yield "|---|" + "---|" * (len(figures) + 2)
    for row in next(iter(figures.values())):
        middle = {name: statistics.median(found[row]) for name, found in figures.items()}
        in_bytes = not any(word in row for word in ("create", "stat", "rename", "remove"))
        shown = [f"{value / 1e6:,.1f} MB/s" if in_bytes else f"{value:,.0f}/s" for value in middle.values()]
        ratios = [f"{middle['sr'] / middle[other]:.2f} x" if "sr" in middle and other in middle else "" for other in
                  ("local", "moosefs")]
        yield f"| {row} | " + " | ".join(shown + ratios) + " |"


def plot(figures, path):
    """Bars: each system's figures as shares of the local directory's."""
    rows = list(figures["local"])
    others = [name for name in figures if name != "local"]
    share = {(name, row): statistics.median(figures[name][row]) / statistics.median(figures["local"][row]) for name in others
             for row in rows}
    bar, left, width = 12, 140, 420
    scale = width / max(1.0, *share.values())
    high = len(rows) * (bar * len(others) + 8)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{high + 30}" font-family="sans-serif" '
           'font-size="11">', f'<rect width="100%" height="100%" fill="white"/>']
    y = 4
    for row in rows:
        out.append(f'<text x="{left - 6}" y="{y + bar * len(others) / 2 + 4}" text-anchor="end">{row}</text>')
        for name, colour in zip(others, ("#1f6feb", "#b0b0b0")):
            length = share[name, row] * scale
            out.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 1}" fill="{colour}"/>'
                       f'<text x="{left + length + 4:.1f}" y="{y + bar - 2}">{share[name, row]:.2f}</text>')
            y += bar
        y += 8
    out.append(f'<line x1="{left + scale}" y1="0" x2="{left + scale}" y2="{high}" stroke="black" stroke-dasharray="2"/>')
    out.append(f'<text x="{left}" y="{high + 18}">share of the local directory: blue {others[0]}'
               + (f", grey {others[1]}" if len(others) > 1 else "") + "</text></svg>")
    pathlib.Path(path).write_text("\n".join(out) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--dir", help="where to work: needs some 20 times --mib")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512, help="of the large file")
    parser.add_argument("--files", type=int, default=4000, help="of all processes together")
    parser.add_argument("--only", default=",".join(SYSTEMS), help="only these, with commas between")
    parser.add_argument("--json", help="write the figures here too")
    parser.add_argument("--plot", help="draw them here, as SVG")
    options = parser.parse_args()
    figures = {}
    for number in range(options.rounds):
        for name in options.only.split(","):
            home = pathlib.Path(tempfile.mkdtemp(prefix=f"sr-mount-{name}-", dir=options.dir))
            try:
                system = {"local": Local, "sr": Steradian, "moosefs": MooseFs}[name](options, home)
                try:
                    for row, value in measure(system, options).items():
                        figures.setdefault(name, {}).setdefault(row, []).append(value)
                finally:
                    system.stop()
            finally:
                shutil.rmtree(home, ignore_errors=True)
            print(f"round {number + 1}: {name} done", file=sys.stderr, flush=True)
    print("\n".join(table(figures)))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=1))
    if options.plot and "local" in figures and len(figures) > 1:
        plot(figures, options.plot)


if __name__ == "__main__":
    main()
