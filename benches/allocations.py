#!/usr/bin/env python3
"""Counts the allocations for each frame of `maskcast segment`, by the part of the program that allocates: runs it under heaptrack with
a clip played once and four times, and divides the difference by the number of additional frames. Allocations at the start and the
growth of buffers that are kept are in neither.

    apt-get install heaptrack ffmpeg
    make build
    python3 benches/allocations.py --input CLIP [--program target/release/maskcast]

Prints a Markdown table. Allocations of Maskcast are named by its innermost function and the place in its source.
"""

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The library of the allocating function, and what it belongs to. The first one in a stack decides.
LIBRARIES = [
    ("libonnxruntime", "ONNX Runtime"), ("libav", "FFmpeg (decoder)"), ("libsw", "FFmpeg (decoder)"), ("libx264", "x264"),
    ("libopencv", "OpenCV"), ("libgst", "GStreamer"), ("libgobject", "GStreamer"), ("libglib", "GStreamer"),
]
ALLOCATOR = re.compile(r"calls to allocation functions with \S+ peak consumption from$")
STACK = re.compile(r"(\d+) calls with \S+ peak consumption from:$")


def count(program, model, clip, folder):
    """Calls of allocation functions by origin, and the number of frames."""
    report, trace = folder / "report.json", folder / "trace"
    command = ["heaptrack", "-o", trace, program, "segment", clip, "--model", model, "-o", folder / "out.mp4", "--report", report]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    [found] = folder.glob("trace.*")
    command = ["heaptrack_print", "-f", found, "-l", "0", "-p", "0", "-a", "1", "-T", "0", "-n", "1000", "-s", "1000"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found.unlink()
    calls, group, stack, number = collections.Counter(), [], [], 0

    def end_of_stack():
        if number:
            calls[origin(group + stack)] += number

    for line in text.splitlines():
        if ALLOCATOR.search(line):
            end_of_stack()
            group, stack, number = [], None, 0
        elif start := STACK.match(line):
            end_of_stack()
            stack, number = [], int(start[1])
        elif stack is None or not number:
            group.append(line.strip())
        else:
            stack.append(line.strip())
    end_of_stack()
    return calls, json.loads(report.read_text())["frames_out"]


def origin(stack):
    for n, line in enumerate(stack):
        if place := re.match(r"at (src/(?!lib\.rs|util|session)[a-z_/]+\.rs:\d+)", line):
            return f"Maskcast: `{stack[n - 1].split('<')[0]}`, {place[1]}"
        if line.startswith("in "):
            library = line.rsplit("/", 1)[-1]
            for name, part in LIBRARIES:
                if library.startswith(name):
                    return part
    return "other"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/maskcast")
    parser.add_argument("--model", default=ROOT / "models/everyday.onnx")
    parser.add_argument("--input", required=True)
    parser.add_argument("--least", type=float, default=0.1, help="allocations a frame of the smallest line [default: 0.1]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        long = folder / "long.mp4"
        subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-stream_loop", "3", "-i", options.input, "-c", "copy", "-an", long], check=True)
        once, frames = count(options.program, options.model, options.input, folder)
        often, more_frames = count(options.program, options.model, long, folder)
    if more_frames <= frames:
        sys.exit(f"{options.input}: {frames} frames once, {more_frames} four times")
    rates = collections.Counter({part: (often[part] - once[part]) / (more_frames - frames) for part in often})
    print("| allocated by | allocations for each frame |\n| --- | ---: |")
    for part, rate in rates.most_common():
        if rate >= options.least:
            print(f"| {part} | {rate:.1f} |")
    own = sum(rate for part, rate in rates.items() if part.startswith("Maskcast"))
    print(f"\nMaskcast: {own:.1f}; all: {sum(rates.values()):.1f}")


if __name__ == "__main__":
    main()
