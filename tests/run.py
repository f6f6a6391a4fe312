#!/usr/bin/env python3
"""Builds all test programs and runs them. Most of them wait for cameras and timeouts rather than compute, so two run at a time
(--jobs). Programs that measure times run alone, at the end. Prints the output of each program when it has ended, and the
times of all. The exit code is 1 when a program fails.

    python3 tests/run.py [--jobs N] [NAME...]

Without names, all run: `lib`, `bins`, `examples`, `doc`, and the integration tests by their names.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = ["cargo", "test", "--locked", "--workspace"]
# They compare times, or stop processes and wait for what the others notice.
ALONE = ["freshness", "timing", "faulty_cameras"]
# The longest ones, which start first.
LONGEST = ["redaction", "colour", "auth", "lib", "page", "scenarios"]


def programs():
    """The arguments of cargo for each test program, by name."""
    found = {"lib": ["--lib"], "bins": ["--bins"], "examples": ["--examples"], "doc": ["--doc"]}
    metadata = subprocess.run(
        ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    for package in json.loads(metadata.stdout)["packages"]:
        for target in package["targets"]:
            if target["kind"] == ["test"]:
                found[target["name"]] = ["--test", target["name"]]
    return found


def run(name, arguments):
    start = time.monotonic()
    ended = subprocess.run(CARGO + arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    took = time.monotonic() - start
    print(f"==== {name}: {'passed' if ended.returncode == 0 else 'FAILED'} in {took:.0f} s\n{ended.stdout}", flush=True)
    return name, ended.returncode == 0, took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time [default: 2]")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    found = programs()
    unknown = [name for name in options.names if name not in found]
    if unknown:
        parser.error(f"no such test program: {', '.join(unknown)}; there are {', '.join(sorted(found))}")
    if subprocess.run(CARGO + ["--no-run"], cwd=ROOT).returncode != 0:
        return 1
    wanted = options.names or list(found)
    order = {name: place for place, name in enumerate(LONGEST)}
    together = sorted((name for name in wanted if name not in ALONE), key=lambda name: order.get(name, len(order)))
    with ThreadPoolExecutor(options.jobs) as pool:
        results = [task.result() for task in as_completed([pool.submit(run, name, found[name]) for name in together])]
    results += [run(name, found[name]) for name in wanted if name in ALONE]
    for name, passed, took in sorted(results, key=lambda result: -result[2]):
        print(f"{took:6.0f} s  {name}{'' if passed else '  FAILED'}")
    failed = [name for name, passed, _ in results if not passed]
    print(f"{len(results)} test programs, {len(failed)} failed {' '.join(failed)}".rstrip())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
