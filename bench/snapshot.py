#!/usr/bin/env python3
"""What snapshots cost: making one of a small and of a large tree, changes before and after, and the first write to a file. Prints a
Markdown table.

    cargo build --release && python3 bench/snapshot.py [--sr PATH] [--files 100000] [--rounds 5]

It starts `sr up` in a temporary directory (three targets, one copy) and a mount of it. Nothing else should run.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time


def show(name, values, unit="ms", factor=1000):
    values = [value * factor for value in values]
    print(f"| {name} | {statistics.median(values):,.2f} {unit} | {min(values):,.2f} to {max(values):,.2f} |", flush=True)


def timed(work):
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="sr-snapshot-"))
    env = {**os.environ, "HOME": str(work), "SR_CONTEXT": str(work / "cloud" / "context.toml")}
    sr = lambda *arguments: subprocess.run([options.sr, *arguments], env=env, check=True, stdout=subprocess.DEVNULL)
    up = subprocess.Popen([options.sr, "up", "--dir", str(work / "cloud"), "--copies", "1"], env=env,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mount, at = None, work / "mnt"
    at.mkdir()
    try:
        for _ in range(100):
            time.sleep(0.1)
            if subprocess.run([options.sr, "status"], env=env, capture_output=True).returncode == 0:
                break
        mount = subprocess.Popen([options.sr, "mount", "--foreground", str(at)], env=env, stdout=subprocess.PIPE)
        mount.stdout.readline()
        (at / "small").mkdir()
        (at / "small" / "f").write_bytes(os.urandom(4096))
        tree = work / "tree"
        for number in range(options.files):
            if number % 1000 == 0:
                directory = tree / str(number)
                directory.mkdir(parents=True)
            (directory / str(number)).write_bytes(b"")
        sr("put", "-r", str(tree), "/")
        print("| what | median | spread |\n|---|---|---|")
        for path in ["small", "tree"]:
            files = 1 if path == "small" else options.files
            times = [timed(lambda: sr("snapshot", "create", f"/{path}", f"s{number}")) for number in range(options.rounds)]
            show(f"`sr snapshot create`, {files:,} files", times)
        show("`sr stat`, for comparison", [timed(lambda: sr("stat", "/")) for _ in range(options.rounds)])

        def make(directory):
            directory.mkdir()
            count = 500
            begun = time.monotonic()
            for number in range(count):
                os.close(os.open(directory / str(number), os.O_CREAT | os.O_WRONLY))
            return (time.monotonic() - begun) / count

        rounds = range(options.rounds)
        show("an empty file made where no snapshot is", [make(at / f"a{number}") for number in rounds])
        show("... in a directory with snapshots", [make(at / "tree" / f"b{number}") for number in rounds])
        big = at / "big"
        big.mkdir()
        with open(big / "f", "wb") as file:
            for _ in range(1024):
                file.write(os.urandom(1 << 20))

        def write(length):
            with open(big / "f", "r+b") as file:
                file.write(os.urandom(length))
                file.flush()
                os.fsync(file.fileno())

        show("4 KiB written to a file of 1 GiB, synced", [timed(lambda: write(4096)) for _ in rounds])
        first = []
        for number in rounds:
            sr("snapshot", "create", "/big", f"s{number}")
            first.append(timed(lambda: write(4096)))
        show("... for the first time after a snapshot", first)
        begun = time.monotonic()
        for number in rounds:
            sr("snapshot", "rm", "/tree", f"s{number}")
        while b"/tree" in subprocess.run([options.sr, "snapshot", "ls"], env=env, capture_output=True).stdout:
            time.sleep(0.05)
        show(f"{options.rounds} snapshots removed, all of them", [time.monotonic() - begun])
    finally:
        if mount:
            mount.terminate()
            mount.wait()
        up.terminate()
        up.wait()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
