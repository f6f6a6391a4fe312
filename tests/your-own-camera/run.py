#!/usr/bin/env python3
"""Follows docs/your-own-camera.md: runs the commands of its fenced blocks as they are, with the real service and trainer, on
the clip of the demo. What a person does on the page is done through the API: labels are corrected by scene_labels.py and
accepted. Prints the figures of the page as JSON.

    python3 tests/your-own-camera/run.py [--programs target/release] [--frames 40] [--keep FOLDER]

Needs python3-numpy, python3-opencv, ffmpeg, `make build trainer`, and the clip of `make demo`. The commands use the default
ports of the service. They run in a network namespace of their own where the system allows it.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np

sys.dont_write_bytecode = True
import scene_labels  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs/your-own-camera.md"
SERVICE = "http://127.0.0.1:8080"
COLLECTION = "/api/v1/streams/yard/collection"
ISOLATED = "MASKCAST_TEST_ISOLATED"
# Frames of the part of the clip that the camera does not show.
MEASURED = 40


class Failed(Exception):
    """The page cannot be followed."""


def blocks(text):
    """The fenced blocks of a page: (heading, language, text)."""
    heading = ""
    for match in re.finditer(r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S):
        if match[1]:
            heading = match[1]
        else:
            yield heading, match[2], match[3]


def call(method, path, body=None, headers=None):
    """A request to the API: status, headers, body."""
    request = urllib.request.Request(SERVICE + path, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        raise Failed(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error


def get_json(path):
    return json.loads(call("GET", path)[2])


def wait(what, condition, seconds):
    """Waits until `condition` returns something, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.5)
    raise Failed(f"after {seconds:.0f} s: {what}")


class Walk:
    """The state of one walk through the page."""

    def __init__(self, folder, programs, frames):
        self.folder, self.frames = folder, frames
        self.environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
        self.service = None
        self.figures = {}
        for name in ("models", ".demo"):
            (folder / name).symlink_to(ROOT / name)

    def run(self, heading, language, text):
        """A block: a file whose name is in its first line, the service, or commands."""
        if language == "toml":
            name = re.match(r"# (\S+)\n", text)
            if not name:
                raise Failed(f"{heading}: the first line of a configuration is a comment with its file name")
            (self.folder / name[1]).write_text(text)
        elif language == "sh" and text.startswith("maskcast run "):
            self.start(text)
        elif language == "sh":
            print(f"== {heading}\n{text}", flush=True)
            start = time.monotonic()
            subprocess.run(["bash", "-euc", text], cwd=self.folder, env=self.environment, check=True)
            self.figures.setdefault("seconds", {})[heading] = round(time.monotonic() - start, 1)

    def start(self, text):
        log = (self.folder / "service.log").open("wb")
        self.service = subprocess.Popen(
            ["bash", "-euc", f"exec {text}"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
        )

        def answers():
            if self.service.poll() is not None:
                raise Failed(f"the service ended:\n{(self.folder / 'service.log').read_text()}")
            with contextlib.suppress(OSError, Failed):
                return get_json("/api/v1/model")

        wait("the service has not loaded its model", answers, 120)

    def collected(self):
        """Waits for the frames of the collector."""

        def enough():
            found = get_json(COLLECTION)
            return found if len(found["frames"]) >= self.frames else None

        found = wait(f"the collector has stored fewer than {self.frames} frames", enough, 1800)
        reasons = [frame["reason"] for frame in found["frames"]]
        self.figures["collected"] = {reason: reasons.count(reason) for reason in sorted(set(reasons))}

    def correct(self):
        """Corrects and accepts the oldest frames, as a person would on the page."""
        found = get_json(COLLECTION)
        scene = scene_labels.Scene(HERE / "vtest.toml", ROOT / ".demo/vtest.avi", [one["name"] for one in found["classes"]])
        frames = sorted(found["frames"], key=lambda frame: frame["id"])[: self.frames]
        changed = []
        for frame in frames:
            path = f"{COLLECTION}/{frame['id']}"
            image = decoded(call("GET", f"{path}/image.jpg")[2], cv2.IMREAD_COLOR)
            _, headers, proposal = call("GET", f"{path}/label.png")
            before, label = decoded(proposal, cv2.IMREAD_UNCHANGED), scene.labels_of(image)
            _, png = cv2.imencode(".png", label)
            saved = call("PUT", f"{path}/label.png", png.tobytes(), {"If-Match": headers["ETag"], "Content-Type": "image/png"})[1]
            state = json.dumps({"state": "accepted"}).encode()
            call("PATCH", path, state, {"If-Match": saved["ETag"], "Content-Type": "application/json"})
            if before.ndim == 2 and before.shape == label.shape:
                certain = label != scene_labels.VOID
                changed.append((before != label)[certain].mean())
        self.figures["accepted"] = len(frames)
        if changed:
            self.figures["corrected pixels"] = round(float(np.mean(changed)), 3)

    def measure(self):
        """Compares both models on frames that the camera has not shown."""
        held = self.folder / "held-out"
        self.label_later(held)
        command = ["maskcast", "model", "compare", "yard/everyday.onnx", "yard/yard.onnx", "--data", str(held), "-o", "held-out-report"]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True)
        for name, file in [("frames of the camera", "yard/yard.compare/report.json"), ("later frames", "held-out-report/report.json")]:
            self.figures[name] = figures_of(json.loads((self.folder / file).read_text()))
        if self.figures["later frames"]["verdict"] != "better":
            raise Failed(f"the adapted model is not better on later frames: {self.figures['later frames']}")

    def label_later(self, held):
        """Writes labelled frames of the later part of the clip: images, masks and classes.txt."""
        classes = [one["name"] for one in get_json(COLLECTION)["classes"]]
        scene = scene_labels.Scene(HERE / "vtest.toml", ROOT / ".demo/vtest.avi", classes)
        for name in ("images", "masks"):
            (held / name).mkdir(parents=True)
        (held / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
        capture = cv2.VideoCapture(str(self.folder / "yard/later.mp4"))
        number = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = {number * i // MEASURED for i in range(MEASURED)}
        for n in range(number):
            decodes, frame = capture.read()
            if decodes and n in wanted:
                cv2.imwrite(str(held / f"images/{n:05}.png"), frame)
                cv2.imwrite(str(held / f"masks/{n:05}.png"), scene.labels_of(frame))

    def runs(self, name):
        """The service runs the model of this name, with the path in its configuration."""
        model = get_json("/api/v1/model")
        if (model["name"], model["saved"]) != (name, True):
            raise Failed(f"the service runs {model['path']} (saved: {model['saved']}), not {name}")

    def stop(self):
        if self.service and self.service.poll() is None:
            self.service.send_signal(signal.SIGTERM)
            try:
                self.service.wait(60)
            except subprocess.TimeoutExpired:
                self.service.kill()
                self.service.wait()


def decoded(data, mode):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if image is None:
        raise Failed("the API returned a picture that cannot be decoded")
    return image


def figures_of(report):
    """The figures of a comparison that the page shows."""
    sides = ("old", "new")
    return {
        "verdict": report["verdict"],
        "miou": [report[side]["miou"] for side in sides],
        "interval": [report["difference"]["low"], report["difference"]["high"]],
        "iou": {one["name"]: [one[f"{side}_iou"] for side in sides] for one in report["classes"] if one["share"]},
        "speed": report["speed"],
        "flicker": report["flicker"],
    }


def follow(walk):
    """Runs the blocks in order; after some of them, what the text asks a person to do, and checks."""
    after = {
        "maskcast run": [walk.collected, walk.correct],
        "maskcast model compare": [walk.measure],
        "maskcast model use": [lambda: walk.runs("yard")],
        "maskcast model rollback": [lambda: walk.runs("everyday")],
    }
    done = set()
    for heading, language, text in blocks(PAGE.read_text()):
        walk.run(heading, language, text)
        for start, steps in after.items():
            if language == "sh" and text.startswith(start):
                done.add(start)
                for step in steps:
                    step()
    if missing := after.keys() - done:
        raise Failed(f"{PAGE.relative_to(ROOT)} has no block that starts with {', '.join(sorted(missing))}")


def isolated():
    """Starts this program again in a network namespace of its own, so that the default ports are free."""
    if ISOLATED in os.environ or not shutil.which("unshare"):
        return
    inner = 'ip link set lo up && exec "$@"'
    start = ["unshare", "--map-root-user", "--net", "sh", "-c", inner, "sh"]
    if subprocess.run([*start, "true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.environ[ISOLATED] = "1"
        os.execvp(start[0], [*start, sys.executable, *sys.argv])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release", help="folder of maskcast and maskcast-train")
    parser.add_argument("--frames", type=int, default=40, help="frames to collect and correct [default: 40]")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for all files, instead of a temporary one")
    options = parser.parse_args()
    isolated()
    with contextlib.ExitStack() as stack:
        if options.keep:
            options.keep.mkdir(parents=True)
        folder = (options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        walk = Walk(folder, options.programs.resolve(), options.frames)
        stack.callback(walk.stop)
        try:
            follow(walk)
        except (Failed, subprocess.CalledProcessError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            print(json.dumps(walk.figures, indent=1), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
