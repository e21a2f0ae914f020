#!/usr/bin/env python3
"""How long `sr rebuild` takes, and whether everything comes back: makes many small files, takes the metadata and a storage
server away, rebuilds, and compares every name and attribute.

    cargo build --release -p cli
    python3 bench/rebuild.py --files 1000000

Three storage servers and two copies on this machine, in a temporary directory, all on loopback. The files have no bytes
unless --bytes says so: what is measured is names. Prints one JSON object.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time


class Server:
    """A server process that has said `ready`."""

    def __init__(self, sr, arguments, log):
        self.process = subprocess.Popen([sr, *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
        self.greeting = []
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
            self.greeting.append(line.strip())
        raise SystemExit(f"sr {arguments} did not become ready: {self.greeting}")

    def address(self):
        return self.greeting[-1].rsplit(" ", 1)[-1]

    def kill(self):
        self.process.kill()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sr", default="target/release/sr")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=0, help="bytes per file")
    parser.add_argument("--directory", help="where to work [default: the temporary directory]")
    arguments = parser.parse_args()
    sr = os.path.abspath(arguments.sr)
    home = tempfile.mkdtemp(prefix="sr-rebuild-", dir=arguments.directory)
    servers = []
    try:
        print(json.dumps(measure(sr, home, arguments, servers), indent=1))
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(home)


def measure(sr, home, arguments, servers):
    at = lambda name: os.path.join(home, name)
    log = open(at("log"), "w")
    client = lambda *words: subprocess.run(
        [sr, "--context", at("admin/context.toml"), *words], check=True, capture_output=True, text=True).stdout
    admin = lambda *words: subprocess.run([sr, *words], check=True, capture_output=True)

    admin("ca", "init", at("authority"))
    admin("ca", "node", at("authority"), at("meta"), "--id", "1")
    meta_words = ["meta", "--dir", at("meta"), "--listen", "127.0.0.1:0", "--targets", "3"]
    meta = Server(sr, meta_words, log)
    servers.append(meta)
    address = meta.address()
    meta_words[4] = address
    admin("ca", "user", at("authority"), at("admin"), "--name", "admin", "--uid", "0", "--gid", "0", "--server", address)
    storage = []
    for number in (11, 12, 13):
        admin("ca", "node", at("authority"), at(f"s{number}"), "--id", str(number))
        storage.append(Server(sr, ["storage", "--dir", at(f"s{number}"), "--id", str(number), "--manager", address,
                                   "--host", f"host-{number}"], log))
        servers.append(storage[-1])
    while subprocess.run([sr, "--context", at("admin/context.toml"), "touch", "/.ready"], capture_output=True).returncode:
        time.sleep(0.2)
    client("rm", "/.ready")

    # A tree of 1000 files a directory, put as often as it takes: making a million local files takes longer than all else.
    count = min(arguments.files, 100_000)
    local = at("local")
    for number in range(count):
        if number % 1000 == 0:
            os.makedirs(os.path.join(local, str(number // 1000)))
        with open(os.path.join(local, str(number // 1000), f"file-{number}"), "wb") as file:
            file.write(os.urandom(arguments.bytes))
    made = time.monotonic()
    for part in range(arguments.files // count):
        client("put", "-r", local, f"/part{part}")
    made = time.monotonic() - made

    def tree():
        """Every path with all its attributes."""
        digest, lines = hashlib.sha256(), 0
        found = client("find", "/", "--json").splitlines()
        for line in sorted(found):
            digest.update(line.encode() + b"\n")
            lines += 1
        return digest.hexdigest(), lines

    before = tree()
    time.sleep(10)  # The promise is for what is older than this.
    meta.kill()
    storage[2].kill()
    shutil.rmtree(at("meta/meta"))
    time.sleep(3)  # Until the leases of the storage servers are over.
    words = [sr, "rebuild", "--dir", at("meta"), "--json"]
    for server in storage[:2]:
        words += ["--storage", server.address()]
    started = time.monotonic()
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    took = time.monotonic() - started
    summary = json.loads(done.stdout.splitlines()[0])
    started = time.monotonic()
    servers.append(Server(sr, meta_words, log))
    while subprocess.run([sr, "--context", at("admin/context.toml"), "ls", "/"], capture_output=True).returncode:
        time.sleep(0.1)
    up = time.monotonic() - started
    after = tree()
    return {
        "files": arguments.files // count * count, "bytes": arguments.bytes, "put_s": round(made, 1), "rebuild_s": round(took, 1),
        "start_s": round(up, 1), "paths": before[1], "same": before == after,
        "summary": {key: summary[key] for key in ("files", "directories", "incomplete", "lost_found", "unknown")},
    }


main()
