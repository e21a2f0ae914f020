"""A cluster of real processes for the measurements: one `sr meta` and several `sr storage`, each with its own directory
and host, on loopback or each in a network namespace of its own. It ends only what it started, by process id."""

import json
import os
import signal
import ssl
import subprocess
import time
import urllib.request

META = 1
"""The number of the metadata server."""


class Loopback:
    """All servers on 127.0.0.1, at any free port."""

    def listen(self, number):
        return "127.0.0.1:0"

    def names(self, number):
        return []

    def inside(self, number):
        """Words before a command that is to run where this server does; `None`: where clients do."""
        return []

    def close(self):
        pass


class Namespaces:
    """A network namespace for each server, and one with the bridge between them, in which the clients are. Needs root.
    Nothing outside is changed but that there are these namespaces, until the end."""

    def __init__(self, numbers):
        self.prefix, self.made = f"sr-{os.getpid()}", []
        hub = self.make(None)
        try:
            self.ip(None, "link", "add", "bridge", "type", "bridge")
            self.ip(None, "address", "add", "10.77.0.254/24", "dev", "bridge")
            self.ip(None, "link", "set", "bridge", "up")
            for number in numbers:
                name = self.make(number)
                self.ip(None, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth", "netns", name)
                self.ip(None, "link", "set", f"v{number}", "master", "bridge", "up")
                self.ip(number, "address", "add", f"{self.address(number)}/24", "dev", "eth")
                self.ip(number, "link", "set", "eth", "up")
        except Exception:
            self.close()
            raise

    def name(self, number):
        return f"{self.prefix}-{'hub' if number is None else number}"

    def make(self, number):
        subprocess.run(["ip", "netns", "add", self.name(number)], check=True, capture_output=True)
        self.made.append(self.name(number))
        self.ip(number, "link", "set", "lo", "up")
        return self.name(number)

    def ip(self, number, *words):
        subprocess.run(["ip", "-n", self.name(number), *words], check=True, capture_output=True)

    def address(self, number):
        return f"10.77.0.{number}"

    def listen(self, number):
        return f"{self.address(number)}:7400"

    def names(self, number):
        return ["--host", self.address(number)]

    def inside(self, number):
        return ["nsenter", f"--net=/run/netns/{self.name(number)}"]

    def cut(self, number):
        """From now on this server hears nobody, and nobody hears it."""
        self.ip(None, "link", "set", f"v{number}", "down")

    def mend(self, number):
        self.ip(None, "link", "set", f"v{number}", "up")

    def silence(self, number, other):
        """What this server sends to the other one gets lost from now on, and only that: frames go to an address that nobody
        has."""
        self.ip(number, "neighbour", "replace", self.address(other), "lladdr", "02:00:00:00:00:01", "nud", "permanent",
                "dev", "eth")

    def speak(self, number, other):
        self.ip(number, "neighbour", "del", self.address(other), "dev", "eth")

    def close(self):
        while self.made:
            subprocess.run(["ip", "netns", "del", self.made.pop()], capture_output=True)


class Cluster:
    """One metadata server and some storage servers in a directory, with a log for each."""

    def __init__(self, sr, home, servers, copies=2, network=None, log=None):
        self.sr, self.home, self.servers, self.processes, self.address = sr, home, tuple(servers), {}, None
        self.addresses = {}
        self.network, self.copies = network or Loopback(), copies
        self.env = {**os.environ, "HOME": str(home), "SR_CONTEXT": str(home / "admin" / "context.toml")}
        self.server_env = {**self.env, "SR_LOG": os.environ.get("SR_LOG", log)} if log else self.env
        self.authority = str(home / "authority")
        try:
            self.begin()
        except BaseException:
            self.stop()
            raise

    def begin(self):
        self.admin("ca", "init", self.authority)
        for number in (META, *self.servers):
            self.admin("ca", "node", self.authority, str(self.directory(number)), "--id", str(number),
                       *self.network.names(number))
        self.start_meta()
        self.admin("ca", "user", self.authority, str(self.home / "admin"), "--name", "admin", "--uid", "0", "--gid", "0",
                   "--server", self.address)
        for number in self.servers:
            self.start_storage(number)
        while self.client("touch", "/ready").returncode:
            time.sleep(0.05)

    def directory(self, number):
        return self.home / ("meta" if number == META else f"storage-{number}")

    def log(self, number):
        return self.home / f"log-{number}"

    def admin(self, *words):
        subprocess.run([self.sr, *words], env=self.env, check=True, stdout=subprocess.DEVNULL)

    def start_meta(self):
        """Starts it where it was before."""
        self.start(META, "meta", "--dir", str(self.directory(META)), "--listen",
                   self.address or self.network.listen(META), "--copies", str(self.copies), "--targets",
                   str(len(self.servers)))
        self.address = self.addresses[META]

    def start_storage(self, number):
        self.start(number, "storage", "--dir", str(self.directory(number)), "--id", str(number), "--listen",
                   self.network.listen(number), "--manager", self.address, "--host", f"host-{number}")

    def start(self, number, *words):
        with open(self.log(number), "a") as log:
            process = subprocess.Popen([*self.network.inside(number), self.sr, *words], env=self.server_env,
                                       stdout=subprocess.PIPE, text=True, stderr=log)
        self.processes[number] = process
        greeting = []
        for line in process.stdout:
            if line.strip() == "ready":
                self.addresses[number] = greeting[-1].split()[-1]
                return
            greeting.append(line.strip())
        raise SystemExit(f"sr {words[0]} ended: see {self.log(number)}")

    def restart(self, number):
        self.start_meta() if number == META else self.start_storage(number)

    def client(self, *words, **more):
        return subprocess.run([*self.network.inside(None), self.sr, *words], env=self.env, capture_output=True, **more)

    def order(self, *words):
        """A command that must not fail; answers what it prints."""
        return subprocess.run([*self.network.inside(None), self.sr, *words], env=self.env, check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    def look(self, *words):
        """The JSON lines of a command; `None` if it failed."""
        done = self.client(*words, "--json")
        return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else None

    def metrics(self, number):
        """The server's figures by name and labels; only on loopback."""
        admin = self.home / "admin"
        context = ssl.create_default_context(cafile=str(admin / "authority.pem"))
        context.load_cert_chain(str(admin / "user.pem"), str(admin / "user.key"))
        context.set_alpn_protocols(["http/1.1"])
        address = self.addresses[number]
        with urllib.request.urlopen(f"https://{address}/metrics", context=context, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] not in ("#", ""))}

    def sent(self, number):
        """Bytes that each open connection of the server has sent, as the kernel counts them; only on loopback."""
        done = subprocess.run(["ss", "-tiHnpO"], capture_output=True, text=True)
        counts = {}
        for line in done.stdout.splitlines():
            if f"pid={self.processes[number].pid}," in line:
                words = line.split()
                counts[words[3], words[4]] = sum(int(word[11:]) for word in words if word.startswith("bytes_sent:"))
        return counts

    def signal(self, number, what):
        self.processes[number].send_signal(what)

    def kill(self, number):
        self.signal(number, signal.SIGKILL)
        self.processes[number].wait()

    def stop(self):
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.network.close()
