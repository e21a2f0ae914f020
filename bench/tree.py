#!/usr/bin/env python3
"""Stores real data whole and gets it back: the Linux source tree and a CSV file of 1 GiB. Prints a Markdown table.

    cargo xtask inputs && cargo build --release && python3 bench/tree.py [--sr PATH] [--tree DIR] [--rounds 3]

It starts `sr up` in a temporary directory (three targets, two copies; 12 GiB of disk), puts, gets, and compares every
name, kind, mode, time, link and byte of each copy with the original. Nothing else should run.
"""

import argparse
import filecmp
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CSV_BYTES = 1 << 30


def listing(root):
    """What there is below a directory: kind, mode, time, length and link of each name."""
    form = "%P\\t%y\\t%m\\t%T@\\t%l"
    entries = subprocess.run(["find", ".", "-type", "d", "-printf", form + "\\0", "-o", "-printf", form + "\\t%s\\0"],
                             cwd=root, check=True, capture_output=True)
    return sorted(entries.stdout.split(b"\0"))


def compare(wanted, found):
    if listing(wanted) != listing(found):
        sys.exit(f"{found} is not as {wanted}: names, kinds, modes, times or links differ")
    if subprocess.run(["diff", "-r", "--no-dereference", str(wanted), str(found)]).returncode:
        sys.exit(f"{found} is not as {wanted}: bytes differ")


def make_csv(path):
    number, size = 0, 0
    with open(path, "w") as file:
        while size < CSV_BYTES:
            size += file.write("".join(f"{n},{n * n},{n * 7919 % 1000003}\n" for n in range(number, number + 100_000)))
            number += 100_000


def show(name, values, unit):
    print(f"| {name} | {statistics.median(values):,.0f} {unit} | {min(values):,.0f} to {max(values):,.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--tree", default=str(target / "inputs" / "linux"), type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="sr-tree-"))
    env = {**os.environ, "HOME": str(work), "SR_CONTEXT": str(work / "cloud" / "context.toml")}
    server = subprocess.Popen([options.sr, "up", "--dir", str(work / "cloud"), "--listen", "127.0.0.1:0"], env=env,
                              stdout=subprocess.PIPE, stderr=open(work / "log", "a"), text=True)

    def run(*words):
        begin = time.monotonic()
        subprocess.run([options.sr, *map(str, words)], env=env, check=True)
        return time.monotonic() - begin

    try:
        if not any(line.strip() == "ready" for line in server.stdout):
            sys.exit(f"sr up ended:\n{(work / 'log').read_text()}")
        files = sum(len(names) for _, _, names in os.walk(options.tree))
        csv, copy = work / "table.csv", work / "copy"
        make_csv(csv)
        put, get, put_csv, get_csv = [], [], [], []
        for number in range(options.rounds):
            put.append(files / run("put", "-r", options.tree, f"/tree-{number}"))
            get.append(files / run("get", "-r", f"/tree-{number}", copy))
            compare(options.tree, copy)
            shutil.rmtree(copy)
            put_csv.append(csv.stat().st_size / 1e6 / run("put", csv, f"/table-{number}.csv"))
            get_csv.append(csv.stat().st_size / 1e6 / run("get", f"/table-{number}.csv", copy))
            if not filecmp.cmp(csv, copy, shallow=False):
                sys.exit("the table came back wrong")
            copy.unlink()
            run("rm", "-r", f"/tree-{number}", f"/table-{number}.csv")
        print("| what | median | spread |\n|---|---|---|")
        show(f"`sr put -r` of the Linux source, {files:,} files", put, "files/s")
        show("`sr get -r` of it", get, "files/s")
        show("`sr put` of a CSV file of 1 GiB", put_csv, "MB/s")
        show("`sr get` of it", get_csv, "MB/s")
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
