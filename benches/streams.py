#!/usr/bin/env python3
"""Measures how the cost of the service grows with the number of streams: runs `maskcast run` with each number of streams of one
clip, and prints for each masks per second and age, dropped frames, CPU time and memory.

    make build .demo/vtest.avi
    python3 benches/streams.py [--streams 1,4,10,30] [--rate 5] [--gate auto] [--watch] [--json FILE]

Needs ffmpeg with libx264 (`make setup`). All streams play the same clip in a loop at its own rate and start together. With --watch, a
client reads the H.264 of each stream by RTSP, so that all frames are drawn and encoded; otherwise the model runs (masks = "always")
and nothing is encoded. Reads CPU time and memory from /proc, after the streams have run for --settle seconds, which is longer than
the service takes to return the memory of its start.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START = 90.0
TICKS = os.sysconf("SC_CLK_TCK")


def clip_of(options, folder):
    """The clip in the wanted size and rate, with a keyframe every two seconds."""
    clip = folder / "clip.mp4"
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", options.input, "-an", "-vf", f"scale={options.size.replace('x', ':')}",
               "-r", str(options.fps), "-c:v", "libx264", "-preset", "veryfast", "-g", str(2 * options.fps), clip]
    subprocess.run(command, check=True)
    return clip


def config_of(options, count, clip, folder):
    path = folder / f"{count}.toml"
    text = f'[model]\npath = "{options.model}"\nproviders = ["cpu"]\n[server]\nhttp = "127.0.0.1:0"\nrtsp = "127.0.0.1:0"\n'
    for number in range(count):
        text += f'[[stream]]\nname = "camera-{number}"\nsource = "{clip}"\nloop = true\nmasks = "always"\n'
        text += f"mask_rate = {options.rate}\n" if options.rate != "auto" else ""
        text += f'gate = "{options.gate}"\n' if options.gate else ""
    path.write_text(text)
    return path


def memory_of(process):
    text = Path(f"/proc/{process}/status").read_text()
    return {key: int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) / 1024 for key in ("VmRSS", "RssAnon", "RssFile")}


def seconds_of(process):
    """CPU time of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def read(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def line_with(log, pattern, process):
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found:
            return found
        time.sleep(0.1)
    sys.exit(f"the service did not start; its log:\n{log.read_text(errors='replace')}")


def measure(options, count, clip, folder):
    log = folder / f"{count}.log"
    with log.open("w") as out:
        service = subprocess.Popen([options.program, "run", config_of(options, count, clip, folder)], stdout=out, stderr=out)
    watchers = []
    try:
        page = line_with(log, r"page (http://\S+/)", service)[1]
        rtsp = line_with(log, r"(rtsp://[^/\s]+/)camera-0", service)[1]
        line_with(log, r"\bready\b", service)
        if options.watch:
            for number in range(count):
                command = ["ffmpeg", "-v", "error", "-nostdin", "-rtsp_transport", "tcp", "-i", f"{rtsp}camera-{number}",
                           "-c", "copy", "-f", "null", "-"]
                watchers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        # Until all streams are live, and the service has returned the memory of its start.
        until = time.monotonic() + START
        streams = f"{page}api/v1/streams"
        while time.monotonic() < until and any(stream["state"] != "live" for stream in read(streams)):
            time.sleep(0.2)
        time.sleep(options.settle)
        before, start, cpu = read(streams), time.monotonic(), seconds_of(service.pid)
        masks, ages = [], []
        while time.monotonic() < start + options.seconds:
            time.sleep(1)
            now = read(streams)
            masks += [stream["masks_per_second"] for stream in now]
            ages += [stream["mask_age_ms"] or 0 for stream in now]
        took, cpu = time.monotonic() - start, seconds_of(service.pid) - cpu
        counters = [(stream["captured"], stream["dropped"]) for stream in now]
        captured, dropped = (sum(a[n] for a in counters) - sum(stream[key] for stream in before)
                             for n, key in enumerate(("captured", "dropped")))
        return {
            "streams": count, "fps": captured / took / count, "dropped": dropped, "masks_per_second": sum(masks) / len(masks),
            "least_masks_per_second": min(masks), "mean_mask_age_ms": sum(ages) / len(ages), "cores": cpu / took,
            "not_live": sum(stream["state"] != "live" for stream in now),
            **{key: round(value, 1) for key, value in memory_of(service.pid).items()},
        }
    finally:
        for process in watchers + [service]:
            process.send_signal(signal.SIGTERM)
        for process in watchers + [service]:
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/maskcast")
    parser.add_argument("--model", default=ROOT / "models/everyday.onnx")
    parser.add_argument("--input", default=ROOT / ".demo/vtest.avi", help="the clip [default: .demo/vtest.avi]")
    parser.add_argument("--streams", default="1,4,10,30", help="numbers of streams [default: 1,4,10,30]")
    parser.add_argument("--size", default="960x540")
    parser.add_argument("--fps", type=int, default=10)
    parser.add_argument("--rate", default="5", help="mask_rate of each stream, or auto [default: 5]")
    parser.add_argument("--gate", choices=["auto", "off"], help="gate of each stream [default: that of the service]")
    parser.add_argument("--watch", action="store_true", help="each stream has an RTSP viewer")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--settle", type=float, default=35, help="seconds before the measurement [default: 35]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    print("| streams | fps of each | dropped | masks/s of each, mean | least | mask age, ms | cores | RSS, MiB | of it anonymous |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        clip = clip_of(options, Path(name))
        for count in map(int, options.streams.split(",")):
            r = measure(options, count, clip, Path(name))
            results.append(r)
            print(f"| {count} | {r['fps']:.1f} | {r['dropped']} | {r['masks_per_second']:.1f} | {r['least_masks_per_second']:.1f} "
                  f"| {r['mean_mask_age_ms']:.0f} | {r['cores']:.2f} | {r['VmRSS']:.0f} | {r['RssAnon']:.0f} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
