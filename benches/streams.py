#!/usr/bin/env python3
"""Measures how the cost of the service grows with the number of streams: runs `maskcast run` with each number of streams of one
clip, and prints for each the frame rate, dropped frames, masks per second and age, CPU time and memory. With --peer, other programs
play the same clip as often, each after the service and before the next number of streams.

    make build .demo/vtest.avi
    python3 benches/streams.py [--streams 1,4,10,30] [--rate 5] [--gate auto] [--watch] [--peer python] [--peer gstreamer] [--json FILE]

Needs ffmpeg with libx264 (`make setup`). All streams play the same clip in a loop at its own rate and start together. With --watch, a
client reads the H.264 of each stream by RTSP, so that all frames are drawn and encoded; otherwise the model runs (masks = "always")
and nothing is encoded. Reads CPU time and memory from /proc, after the streams have run for --settle seconds, which is longer than
the service takes to return the memory of its start. CPU time and memory are those of the measured program and the programs that it
starts, not of the clients; memory is the proportional set size, in which pages that processes share are counted once.

Peers:

    python     a process of benches/peer_loop.py for each stream: OpenCV, ONNX Runtime and numpy; with --watch it draws each frame and
               gives it to an ffmpeg with the encoder's settings of the service. It has no motion gate, so compare with --gate off, too.
               --python is an interpreter that has opencv-python, onnxruntime and numpy.
    gstreamer  one gst-launch-1.0 (package gstreamer1.0-tools) with a pipeline for each stream, which decodes the clip and, with
               --watch, encodes it with the encoder's settings of the service. There is no model in it and nothing is drawn: it is
               the least that decoding and encoding cost. GStreamer 1.22 of Debian 12 has no element that runs an ONNX model. If
               that of this machine has one, its name is printed; it is not measured.
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


def repeated(options, clip, folder):
    """The clip repeated for the longest time that a pipeline may need, because gst-launch-1.0 plays a file once."""
    path = folder / "repeated.mp4"
    if not path.exists():
        seconds = START + options.settle + options.seconds
        command = ["ffmpeg", "-v", "error", "-nostdin", "-stream_loop", "-1", "-i", clip, "-c", "copy", "-t", str(seconds), path]
        subprocess.run(command, check=True)
    return path


def config_of(options, count, clip, folder):
    path = folder / f"{count}.toml"
    text = f'[model]\npath = "{options.model}"\nproviders = ["cpu"]\n[server]\nhttp = "127.0.0.1:0"\nrtsp = "127.0.0.1:0"\n'
    for number in range(count):
        text += f'[[stream]]\nname = "camera-{number}"\nsource = "{clip}"\nloop = true\nmasks = "always"\n'
        text += f"mask_rate = {options.rate}\n" if options.rate != "auto" else ""
        text += f'gate = "{options.gate}"\n' if options.gate else ""
    path.write_text(text)
    return path


def tree_of(root):
    """A process and all processes below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass
    tree = [root]
    for process in tree:
        tree += [child for child, parent in parents.items() if parent == process]
    return tree


def memory_of(processes):
    """Proportional set size, and the anonymous part of it, in MiB."""
    texts = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    return {name: sum(int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M)[1]) for text in texts) / 1024
            for name, key in (("pss_mib", "Pss"), ("pss_anonymous_mib", "Pss_Anon"))}


def seconds_of(processes):
    """CPU time of processes."""
    fields = (Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split() for process in processes)
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS


def read(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


class Program:
    """A program that plays a number of streams, in one process or several. Its output is in a log for each process."""

    def __init__(self, folder):
        self.folder, self.processes, self.logs, self.watchers = folder, [], [], []

    def play(self, options, count, clip):
        """Starts the program and waits until all streams play."""
        raise NotImplementedError

    def counts(self):
        """Frames that were not dropped and dropped frames of each stream since its start; further counts for `more`."""
        raise NotImplementedError

    def sample(self):
        """Called each second."""

    def more(self, before, after, took):
        """Further results, from counts at start and end of the measurement, which took so many seconds."""
        return {}

    def start(self, *command):
        log = self.folder / f"{type(self).__name__}-{len(self.logs)}.log"
        with log.open("w") as out:
            self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
        self.logs.append(log)
        return log

    def wait_until(self, condition, what):
        """What `condition` returns, as soon as that is true."""
        until = time.monotonic() + START
        while time.monotonic() < until and all(process.poll() is None for process in self.processes):
            found = condition()
            if found:
                return found
            time.sleep(0.1)
        texts = "\n".join(dict.fromkeys(log.read_text(errors="replace")[-2000:] for log in self.logs))
        sys.exit(f"{self.name}: {what} within {START:.0f} s; its log:\n{texts}")

    def stop(self):
        processes = self.watchers + self.processes
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()


class Maskcast(Program):
    name = "maskcast"

    def play(self, options, count, clip):
        log = self.start(options.program, "run", config_of(options, count, clip, self.folder))
        line = lambda pattern: self.wait_until(lambda: re.search(pattern, log.read_text(errors="replace")), "it did not start")
        self.streams = f"{line(r'page (http://[^ ]+/)')[1]}api/v1/streams"
        rtsp = line(r"(rtsp://[^/\s]+/)camera-0")[1]
        line(r"\bready\b")
        for number in range(count if options.watch else 0):
            command = ["ffmpeg", "-v", "error", "-nostdin", "-rtsp_transport", "tcp", "-i", f"{rtsp}camera-{number}",
                       "-c", "copy", "-f", "null", "-"]
            self.watchers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self.wait_until(lambda: all(stream["state"] == "live" for stream in read(self.streams)), "not all streams were live")
        self.masks, self.ages = [], []

    def counts(self):
        return [(stream["captured"] - stream["dropped"], stream["dropped"]) for stream in read(self.streams)]

    def sample(self):
        now = read(self.streams)
        self.masks += [stream["masks_per_second"] for stream in now]
        self.ages += [stream["mask_age_ms"] or 0 for stream in now]

    def more(self, before, after, took):
        not_live = sum(stream["state"] != "live" for stream in read(self.streams))
        return {"masks_per_second": sum(self.masks) / len(self.masks), "least_masks_per_second": min(self.masks),
                "mean_mask_age_ms": sum(self.ages) / len(self.ages), "not_live": not_live}


class PythonLoop(Program):
    name = "python loop"

    def play(self, options, count, clip):
        # More threads than cores make each loop slower.
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        for _ in range(count):
            self.start(options.python, ROOT / "benches/peer_loop.py", options.model, clip, "--rate", options.rate,
                       "--threads", str(threads), *(["--encode"] if options.watch else []))
        self.wait_until(lambda: all(self.newest()), "not all loops started")

    def newest(self):
        """The last complete line of each loop, if there is one."""
        lines = [re.findall(r"^\{.*\}$(?=\n)", log.read_text(errors="replace"), re.M) for log in self.logs]
        return [json.loads(found[-1]) if found else None for found in lines]

    def counts(self):
        return [(now["frames"], now["dropped"], now["masks"]) for now in self.newest()]

    def more(self, before, after, took):
        rates = [(now[2] - earlier[2]) / took for earlier, now in zip(before, after)]
        return {"masks_per_second": sum(rates) / len(rates), "least_masks_per_second": min(rates)}


class GStreamer(Program):
    name = "gstreamer, no model"

    def play(self, options, count, clip):
        width, height = map(int, options.size.split("x"))
        # As the service for a live stream: src/publish/encoder/settings.rs and bitrate.rs.
        encode = f"""x264enc speed-preset=ultrafast tune=zerolatency pass=qual quantizer=23 vbv-buf-capacity=500 bframes=0 threads=1
            bitrate={int(1.6 * (width * height * options.fps) ** 0.5)} key-int-max={2 * options.fps} option-string=deblock=0,0
            ! video/x-h264,profile=constrained-baseline ! h264parse !""" if options.watch else ""
        pipelines = [
            f"""filesrc location={repeated(options, clip, self.folder)} ! decodebin ! queue max-size-buffers=2 ! {encode}
            fpsdisplaysink name=sink-{number} text-overlay=false video-sink=fakesink fps-update-interval=200""" for number in range(count)
        ]
        self.streams = range(count)
        self.start("gst-launch-1.0", "-v", *" ".join(pipelines).split())
        self.wait_until(lambda: all(self.counts()), "not all pipelines started")

    def counts(self):
        text = self.logs[0].read_text(errors="replace")
        found = (re.findall(rf":sink-{number}: last-message = rendered: (\d+), dropped: (\d+),", text) for number in self.streams)
        return [tuple(map(int, counts[-1])) if counts else None for counts in found]


PROGRAMS = {"python": PythonLoop, "gstreamer": GStreamer}


def measure(options, kind, count, clip, folder):
    program = kind(folder)
    try:
        program.play(options, count, clip)
        time.sleep(options.settle)
        processes = [process for root in program.processes for process in tree_of(root.pid)]
        before, start, cpu = program.counts(), time.monotonic(), seconds_of(processes)
        while time.monotonic() < start + options.seconds:
            time.sleep(1)
            program.sample()
        after, took, cpu = program.counts(), time.monotonic() - start, seconds_of(processes) - cpu
        frames, dropped = (sum(now[n] - earlier[n] for earlier, now in zip(before, after)) for n in (0, 1))
        return {"program": program.name, "streams": count, "fps": frames / took / count, "dropped": dropped, "cores": cpu / took,
                **program.more(before, after, took), **memory_of(processes)}
    finally:
        program.stop()


COLUMNS = [("program", "program", ""), ("streams", "streams", ""), ("fps of each", "fps", ".1f"), ("dropped", "dropped", ""),
           ("masks/s of each, mean", "masks_per_second", ".1f"), ("least", "least_masks_per_second", ".1f"),
           ("mask age, ms", "mean_mask_age_ms", ".0f"), ("cores", "cores", ".2f"), ("PSS, MiB", "pss_mib", ".0f"),
           ("of it anonymous", "pss_anonymous_mib", ".0f")]


def row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


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
    parser.add_argument("--watch", action="store_true", help="each stream has an RTSP viewer; peers encode")
    parser.add_argument("--peer", action="append", default=[], choices=PROGRAMS, help="measure this program, too; can be repeated")
    parser.add_argument("--python", default=sys.executable, help="interpreter for --peer python [default: the running one]")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--settle", type=float, default=35, help="seconds before the measurement [default: 35]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "gstreamer" in options.peer:
        elements = subprocess.run(["gst-inspect-1.0"], capture_output=True, text=True, check=True).stdout
        for element in re.findall(r"\w*(?:onnx|tflite)\w*inference\w*", elements):
            print(f"this GStreamer has {element}; it is not measured", file=sys.stderr)
    results = []
    row(title for title, _, _ in COLUMNS)
    row("---" if key == "program" else "---:" for _, key, _ in COLUMNS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = clip_of(options, folder)
        for count in map(int, options.streams.split(",")):
            for kind in [Maskcast, *(PROGRAMS[peer] for peer in options.peer)]:
                result = measure(options, kind, count, clip, folder)
                results.append(result)
                row(format(result[key], form) if key in result else "–" for _, key, form in COLUMNS)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
