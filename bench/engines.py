#!/usr/bin/env python3
"""Measures the metadata over each engine, beside the engine's own single commits, and prints a Markdown table.

    cargo build --release && cargo build --release -p kv --example commits && cargo xtask inputs
    python3 bench/engines.py [--engines local,etcd,postgres] [--rounds N] [--files N] [--json FILE]

For each engine it starts the engine (one member of etcd, one PostgreSQL, on this disk), one or three metadata servers over it and three
storage servers of one target each, on loopback, and as many clients as there are metadata servers, each in a directory of its
own. It ends them by their process ids. Figures are medians of the rounds, with the smallest and the largest. Nothing else should run.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
IN_FLIGHT = [1, 8, 64]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sr", default=str(TARGET / "release" / "sr"))
    parser.add_argument("--commits", default=str(TARGET / "release" / "examples" / "commits"))
    parser.add_argument("--inputs", default=str(TARGET / "inputs"), help="where `cargo xtask inputs` put the engines")
    parser.add_argument("--engines", default="local,etcd,postgres")
    parser.add_argument("--servers", default="1,3", help="metadata servers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=3000, help="files for each that is in flight, 20,000 at most")
    parser.add_argument("--json", help="write the figures here too")
    return parser.parse_args()


def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """Those that this started; they are ended in the other order."""

    def __init__(self, home):
        self.home, self.all = home, []

    def start(self, words, until=None, user=None, env=None):
        log = open(self.home / "log", "ab")
        process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE if until else log,
                                   stderr=log, stdin=subprocess.DEVNULL, text=bool(until), user=user, env=env)
        self.all.append(process)
        if until:
            for line in process.stdout:
                if line.strip() == until:
                    return process
            sys.exit(f"{words[0]} ended: see {self.home / 'log'}")
        return process

    def end(self):
        for process in reversed(self.all):
            process.send_signal(signal.SIGINT)
        for process in reversed(self.all):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.all.clear()


def wait_for(address):
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", address), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nobody listens at {address}")


def start_engine(engine, options, home, processes):
    """Starts an engine; answers the place of an empty store in it, or None for the local one."""
    inputs = pathlib.Path(options.inputs)
    if engine == "etcd":
        client, peer = port(), port()
        url = "http://127.0.0.1:{}".format
        processes.start([inputs / "bin" / "etcd", "--name=m0", f"--data-dir={home / 'etcd'}", f"--listen-client-urls={url(client)}",
                         f"--advertise-client-urls={url(client)}", f"--listen-peer-urls={url(peer)}",
                         f"--initial-advertise-peer-urls={url(peer)}", f"--initial-cluster=m0={url(peer)}",
                         "--max-txn-ops=16384", "--max-request-bytes=33554432"])
        wait_for(client)
        time.sleep(2)
        return f"etcd://127.0.0.1:{client}/bench"
    if engine == "postgres":
        data, number, address = home / "postgres", 65534, port()
        data.mkdir()
        os.chown(data, number, number)
        home.chmod(0o755)
        programs, env = postgres(inputs)
        secret = data.parent / "secret"
        secret.write_text("secret")
        os.chown(secret, number, number)
        subprocess.run([programs / "initdb", "-D", data / "d", "-U", "bench", "-A", "scram-sha-256", f"--pwfile={secret}"],
                       check=True, user=number, env=env, stdout=subprocess.DEVNULL, cwd=data)
        processes.start([programs / "postgres", "-D", data / "d", "-p", address, "-c", "listen_addresses=127.0.0.1",
                         "-c", "unix_socket_directories="], user=number, env=env)
        wait_for(address)
        time.sleep(2)
        return f"postgres://bench:secret@127.0.0.1:{address}/postgres"
    return None


def postgres(inputs):
    programs = next(iter(inputs.glob("postgres/**/bin/postgres"))).parent
    libraries = {str(path.parent) for path in (inputs / "postgres").glob("**/lib*.so*")}
    return programs, {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(libraries))}


class Cluster:
    """Metadata servers over one store, and three storage servers."""

    def __init__(self, options, home, processes, place, servers):
        self.options, self.home = options, home
        self.env = {**os.environ, "HOME": str(home), "SR_CONTEXT": str(home / "admin" / "context.toml")}
        self.sr("ca", "init", home / "authority")
        metas = [f"127.0.0.1:{port()}" for _ in range(servers)]
        for number, listen in enumerate(metas, 1):
            self.sr("ca", "node", home / "authority", home / f"meta-{number}", "--id", number)
            words = [options.sr, "meta", "--dir", home / f"meta-{number}", "--listen", listen, "--copies", 1,
                     "--targets", 3, "--domain", "target"]
            processes.start(words + (["--store", place] if place else []), until="ready")
        known = [word for listen in metas for word in ("--server", listen)]
        self.sr("ca", "user", home / "authority", home / "admin", "--name", "admin", "--uid", 0, "--gid", 0, *known)
        for number in range(11, 14):
            self.sr("ca", "node", home / "authority", home / f"storage-{number}", "--id", number)
            managers = [word for listen in metas for word in ("--manager", listen)]
            processes.start([options.sr, "storage", "--dir", home / f"storage-{number}", "--id", number, *managers],
                            until="ready")
        for _ in range(300):
            if subprocess.run([options.sr, "touch", "/ready"], env=self.env, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        sys.exit(f"it does not serve: see {home / 'log'}")

    def sr(self, *words):
        done = subprocess.run([self.options.sr, *map(str, words)], env=self.env, check=True, capture_output=True, text=True)
        return done.stdout

    def together(self, clients, words):
        """Runs `sr` with the words of each client at once; answers their outputs and the seconds of all."""
        begin = time.monotonic()
        running = [subprocess.Popen([self.options.sr, *map(str, words(client))], env=self.env, stdout=subprocess.PIPE,
                                    text=True) for client in range(clients)]
        # All of them are read from at once: one that nobody reads from waits.
        with concurrent.futures.ThreadPoolExecutor(clients) as readers:
            outputs = list(readers.map(lambda process: process.communicate()[0], running))
        if any(process.returncode for process in running):
            sys.exit(f"a client failed: see {self.home / 'log'}")
        return outputs, time.monotonic() - begin


def measure(cluster, clients, in_flight, files):
    """Creates and stats a second, of all clients together, and entries a second of listings."""
    name = f"/{in_flight}-{time.monotonic_ns()}"
    each = min(20_000, files * in_flight) // clients
    for client in range(clients):
        cluster.sr("mkdir", "-p", f"{name}/{client}")
    flight = max(1, in_flight // clients)
    outputs, _ = cluster.together(clients, lambda client: [
        "bench", "metadata", "--json", "--files", each, "--in-flight", flight, "--in", f"{name}/{client}"])
    figures = {}
    for output in outputs:
        for line in map(json.loads, output.splitlines()):
            figures[line["what"]] = figures.get(line["what"], 0) + line["operations_per_second"]
    return figures


def listing(cluster, clients, files):
    """Entries a second of `sr find`, for each number of them that run at once."""
    for client in range(clients):
        source = cluster.home / f"many-{client}"
        source.mkdir(exist_ok=True)
        for number in range(files):
            (source / f"file {number}").touch()
        cluster.sr("put", "-r", source, f"/list-{client}")
        shutil.rmtree(source)
    figures = {}
    for flight in IN_FLIGHT:
        finds = max(flight, clients)
        _, seconds = cluster.together(finds, lambda find: ["find", f"/list-{find % clients}"])
        figures[flight] = files * finds / seconds
    return figures


def main():
    options = arguments()
    rows = {}
    for _ in range(options.rounds):
        for engine in options.engines.split(","):
            for servers in map(int, options.servers.split(",")):
                if engine == "local" and servers > 1:
                    continue
                home = pathlib.Path(tempfile.mkdtemp(prefix="sr-engines-"))
                processes = Processes(home)
                try:
                    place = start_engine(engine, options, home, processes)
                    note = lambda what, flight, figure: rows.setdefault((engine, servers, what, flight), []).append(figure)
                    if servers == 1:
                        where = (place + "-raw" if engine == "etcd" else place + "?schema=raw") if place else home / "raw"
                        for flight in IN_FLIGHT:
                            done = subprocess.run([options.commits, str(where), "--clients", str(flight), "--seconds", "4"],
                                                  check=True, capture_output=True, text=True)
                            note("single commits", flight, float(done.stdout.split()[0]))
                    cluster = Cluster(options, home, processes, place, servers)
                    for flight in IN_FLIGHT:
                        for what, figure in measure(cluster, servers, flight, options.files).items():
                            note(what, flight, figure)
                    for flight, figure in listing(cluster, servers, 10_000).items():
                        note("entries listed", flight, figure)
                finally:
                    processes.end()
                    shutil.rmtree(home, ignore_errors=True)
    print("| engine | metadata servers | | in flight | a second |\n|---|---|---|---|---|")
    for (engine, servers, what, flight), figures in rows.items():
        spread = f"{statistics.median(figures):,.0f} ({min(figures):,.0f} to {max(figures):,.0f})"
        print(f"| {engine} | {servers} | {what} | {flight} | {spread} |")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps([[*key, figures] for key, figures in rows.items()], indent=1))


if __name__ == "__main__":
    main()
