#!/usr/bin/env python3
"""Measures what collecting frames costs, and whether the collected frames differ: runs `maskcast run` with several streams of one clip,
in turn without and with `[stream.collect]`, and prints the CPU time of the process and of the collectors' threads, and pairs of
collected frames that look alike.

    make build .demo/vtest.avi
    python3 benches/collect.py [--streams 4] [--rate 2] [--seconds 120] [--rounds 2] [--per-day 1000] [--interval 10s] [--keep FOLDER]

CPU time is read from /proc, after --settle seconds, and given in percent of one core. The collectors' threads are named collect-NAME;
what a collector costs in the threads of the model (copies of masks, how unsure the model is) is only in the difference between the
rounds, which follow each other on the same machine. Two frames of a stream are alike if fewer than 1 % of the pixels differ by 12 of
255 or more, in grey at 96×54 pixels after the difference of their means is subtracted. Needs ffmpeg.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
SIZE = (96, 54)


def config_of(options, folder, collects):
    text = f'[model]\npath = "{options.model}"\nproviders = ["cpu"]\n[server]\nhttp = "127.0.0.1:0"\nrtsp = "127.0.0.1:0"\n'
    for number in range(options.streams):
        text += f'[[stream]]\nname = "camera-{number}"\nsource = "{options.input}"\nloop = true\nmasks = "always"\n'
        text += f"mask_rate = {options.rate}\n" if options.rate != "auto" else ""
        if collects:
            text += f'[stream.collect]\nfolder = "frames"\nper_day = {options.per_day}\ninterval = "{options.interval}"\n'
    path = folder / "maskcast.toml"
    path.write_text(text)
    return path


def seconds_of(path):
    """CPU time of a process or of a thread."""
    field = (path / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(field[11]) + int(field[12])) / TICKS


def collectors_of(process):
    """CPU time of the threads of the collectors."""
    total = 0.0
    for thread in Path(f"/proc/{process}/task").iterdir():
        try:
            if (thread / "comm").read_text().startswith("collect-"):
                total += seconds_of(thread)
        except FileNotFoundError:
            pass
    return total


def page_of(log, service):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and service.poll() is None:
        for line in log.read_text().splitlines():
            if '"ready' in line or " ready" in line:
                text = log.read_text()
                start = text.index("page http") + len("page ")
                return text[start:].split('"')[0].split()[0]
        time.sleep(0.2)
    raise SystemExit(f"the service did not start:\n{log.read_text()}")


def round_of(options, folder, collects):
    """Percent of a core: the process, and the collectors."""
    log = folder / "log"
    with log.open("w") as output:
        command = [options.maskcast, "run", config_of(options, folder, collects)]
        service = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        page = page_of(log, service)
        time.sleep(options.settle)
        process = Path(f"/proc/{service.pid}")
        start, before, own = time.monotonic(), seconds_of(process), collectors_of(service.pid)
        time.sleep(options.seconds)
        elapsed = time.monotonic() - start
        with urllib.request.urlopen(f"{page.rstrip('/')}/api/v1/streams", timeout=30) as answer:
            streams = json.load(answer)
        result = {
            "collects": collects,
            "process_percent": 100 * (seconds_of(process) - before) / elapsed,
            "collectors_percent": 100 * (collectors_of(service.pid) - own) / elapsed,
            "masks_per_second": sum(stream["masks_per_second"] for stream in streams),
            "collected": sum((stream["collect"] or {}).get("today", 0) for stream in streams),
        }
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(30)
    return result


def grey(path):
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", path, "-vf", f"scale={SIZE[0]}:{SIZE[1]}:flags=area,format=gray", "-f", "rawvideo", "-"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def differing(a, b):
    """The share of the pixels that differ."""
    shift = (sum(a) - sum(b)) / len(a)
    return sum(abs(x - y - shift) >= 12 for x, y in zip(a, b)) / len(a)


def alike(folder):
    """The number of frames, and for each pair of a stream its share of differing pixels, the smallest first."""
    count, pairs = 0, []
    for stream in sorted((folder / "frames").iterdir()):
        frames = {path.stem: grey(path) for path in sorted((stream / "JPEGImages").glob("*.jpg"))}
        count += len(frames)
        pairs += [(differing(frames[a], frames[b]), stream.name, a, b) for a, b in itertools.combinations(frames, 2)]
    return count, sorted(pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--streams", type=int, default=4, help="number of streams [default: 4]")
    parser.add_argument("--rate", default="2", help="mask_rate of the streams [default: 2]")
    parser.add_argument("--seconds", type=float, default=120, help="measured time of a round [default: 120]")
    parser.add_argument("--settle", type=float, default=15, help="time before it [default: 15]")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each kind [default: 2]")
    parser.add_argument("--per-day", type=int, default=1000, help="budget of a stream [default: 1000]")
    parser.add_argument("--interval", default="10s", help="minimum time between two frames [default: 10s]")
    parser.add_argument("--input", default=ROOT / ".demo/vtest.avi", help="the clip [default: .demo/vtest.avi]")
    parser.add_argument("--model", default=ROOT / "models/everyday.onnx", help="the model [default: models/everyday.onnx]")
    parser.add_argument("--maskcast", default=ROOT / "target/release/maskcast", help="the program [default: target/release/maskcast]")
    parser.add_argument("--keep", type=Path, help="copy the collected frames to this folder")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rounds = []
        for number in range(2 * options.rounds):
            rounds.append(round_of(options, folder, number % 2 == 1))
            print("{collects!s:5} process {process_percent:6.1f} %  collectors {collectors_percent:5.2f} %  "
                  "{masks_per_second:.1f} masks/s  {collected} collected".format(**rounds[-1]), flush=True)
        mean = {kind: statistics.mean(it["process_percent"] for it in rounds if it["collects"] is kind) for kind in (False, True)}
        print(f"process without {mean[False]:.1f} %, with {mean[True]:.1f} %: {mean[True] - mean[False]:+.1f} % of a core, "
              f"ratio {mean[True] / mean[False]:.3f}")
        count, pairs = alike(folder)
        near = [pair for pair in pairs if pair[0] < 0.01]
        print(f"{count} frames, {len(pairs)} pairs of a stream, {len(near)} alike; the least different pair: "
              + (f"{100 * pairs[0][0]:.1f} % of the pixels" if pairs else "none"))
        if options.keep:
            shutil.copytree(folder / "frames", options.keep)
        if options.json:
            options.json.write_text(json.dumps({"rounds": rounds, "frames": count, "alike": near, "least": pairs[:10]}, indent=1))


if __name__ == "__main__":
    main()
