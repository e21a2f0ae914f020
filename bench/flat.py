#!/usr/bin/env python3
"""Shows whether metadata stays as fast, and as small, from few files to many: measures and draws an SVG.

    python3 bench/flat.py [--sr PATH] [--files 1000000] [--every 50000] [--out docs/images/metadata-flat.svg]

It starts `sr up` in a temporary directory, runs `sr bench metadata`, and samples the server's resident memory. With
--figures FILE --memory FILE it draws what was measured before.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 380, 70, 70, 40, 50


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(options):
    """Rates by number of files, and memory by time with the times at which figures came."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="sr-flat-"))
    env = {**os.environ, "HOME": str(home), "SR_CONTEXT": str(home / "cloud" / "context.toml")}
    server = subprocess.Popen([options.sr, "up", "--dir", str(home / "cloud"), "--listen", "127.0.0.1:0"],
                              env=env, stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if line.strip() == "ready":
            break
    command = [options.sr, "bench", "--json", "metadata", "--files", str(options.files), "--in-flight", "64",
               "--every", str(options.every)]
    client = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    memory, done = [], threading.Event()

    def sample():
        while not done.wait(0.5):
            memory.append((time.time(), resident_mib(server.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    figures = [json.loads(line) for line in client.stdout]
    done.set()
    sampler.join()
    client.wait()
    server.terminate()
    server.wait()
    return figures, [mib for _, mib in memory]


def path(values, top, color):
    """A line over the width, and its scale's end."""
    step = (WIDTH - LEFT - RIGHT) / max(1, len(values) - 1)
    height = HEIGHT - TOP - BOTTOM
    points = " ".join(f"{LEFT + i * step:.1f},{TOP + height * (1 - v / top):.1f}" for i, v in enumerate(values))
    return f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>'


def draw(figures, memory, out):
    creates = [f for f in figures if f["what"].startswith("create")]
    rates = [f["operations_per_second"] for f in creates]
    files = sum(f["operations"] for f in creates)
    share = sum(f["seconds"] for f in creates) / max(1e-9, sum(f["seconds"] for f in figures))
    memory = memory[: max(2, int(len(memory) * share))]
    rate_top = 10_000 * (int(max(rates) / 10_000) + 1)
    memory_top = 50 * (int(max(memory) / 50) + 1)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             'font-size="13">', f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             f'<text x="{LEFT}" y="22" fill="#1f5fa8">durable creates per second, 64 in flight</text>',
             f'<text x="{WIDTH - RIGHT}" y="22" fill="#b04a1e" text-anchor="end">'
             'resident memory of sr up, MiB</text>']
    for part in range(6):
        y = TOP + (HEIGHT - TOP - BOTTOM) * (1 - part / 5)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#1f5fa8">'
                     f'{rate_top * part // 5:,}</text>')
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4}" fill="#b04a1e">{memory_top * part // 5}</text>')
    for part in range(5):
        x = LEFT + (WIDTH - LEFT - RIGHT) * part / 4
        parts.append(f'<text x="{x}" y="{HEIGHT - 24}" text-anchor="middle">{files * part // 4:,}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">files in one directory</text>')
    parts += [path(rates, rate_top, "#1f5fa8"), path(memory, memory_top, "#b04a1e"), "</svg>"]
    pathlib.Path(out).write_text("\n".join(parts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    parser.add_argument("--sr", default=str(target / "release" / "sr"))
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=50_000)
    parser.add_argument("--out", default=str(root / "docs" / "images" / "metadata-flat.svg"))
    parser.add_argument("--figures")
    parser.add_argument("--memory")
    options = parser.parse_args()
    if options.figures and options.memory:
        figures = [json.loads(line) for line in open(options.figures)]
        memory = [int(line.split()[1]) / 1024 for line in open(options.memory)]
    else:
        figures, memory = measure(options)
    draw(figures, memory, options.out)
    for figure in figures:
        print(f'{figure["what"]}: {figure["operations_per_second"]:,.0f}/s ({figure.get("note", "")})')
    print(f"memory: {min(memory):.0f} to {max(memory):.0f} MiB")


if __name__ == "__main__":
    main()
