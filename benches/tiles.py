"""Recall of small people in large pictures, with `--tiles` and `--crop` of maskcast segment, and the time of a frame.

Photographs with label masks are put together to frames of 1920x1080, 4 x 3 in each, and played as a clip without loss.

    python3 benches/tiles.py target/release/maskcast models/everyday.onnx FOLDER [1x1 2x2 3x3 crop2 crop4]

2x2 is --tiles 2x2. crop2 is a --crop of half the width and half the height: the program runs once for each of its four places, and each
person is looked for in the crop that it is in. crop4 has a quarter of the width and of the height, and sixteen places.

FOLDER has images/NAME.jpg, masks/NAME.png (class indices, 255 = not labelled) and classes.txt. Needs numpy, Pillow, OpenCV and ffmpeg.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT, COLUMNS, ROWS = 1920, 1080, 4, 3
# Heights of people in pixels of the frame.
SIZES = [(12, 32), (32, 64), (64, 128), (128, 1080)]


def frames(folder):
    """Frames and their labels: photographs in the cells of a grid."""
    names = sorted(path.stem for path in (folder / "images").iterdir())
    cell = (WIDTH // COLUMNS, HEIGHT // ROWS)
    for start in range(0, len(names) - COLUMNS * ROWS + 1, COLUMNS * ROWS):
        frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
        label = np.full((HEIGHT, WIDTH), 255, np.uint8)
        for index, name in enumerate(names[start : start + COLUMNS * ROWS]):
            image = Image.open(next((folder / "images").glob(name + ".*"))).convert("RGB")
            mask = Image.open(folder / "masks" / (name + ".png"))
            scale = min(cell[0] / image.width, cell[1] / image.height)
            size = (int(image.width * scale), int(image.height * scale))
            left, top = index % COLUMNS * cell[0], index // COLUMNS * cell[1]
            area = np.s_[top : top + size[1], left : left + size[0]]
            frame[area] = np.asarray(image.resize(size, Image.LANCZOS))
            label[area] = np.asarray(mask.resize(size, Image.NEAREST))
        yield frame, label


def clip(pictures, path):
    """An H.264 file without loss."""
    form = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", "1", "-i", "-"]
    code = ["-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
    data = b"".join(picture.tobytes() for picture in pictures)
    subprocess.run(["ffmpeg", "-v", "error", "-y", *form, *code, path], input=data, check=True)


def people(label, person):
    """The connected areas of people in a label, with their heights."""
    _, areas, stats, _ = cv2.connectedComponentsWithStats((label == person).astype(np.uint8))
    for area in range(1, len(stats)):
        yield areas == area, stats[area, cv2.CC_STAT_HEIGHT]


def runs(setting):
    """The options of each run for a setting. The masks of the runs together cover the frame."""
    if not setting.startswith("crop"):
        return [["--tiles", setting]]
    parts = int(setting.removeprefix("crop"))
    corners = [(x / parts, y / parts) for y in range(parts) for x in range(parts)]
    return [["--crop", f"{x},{y},{1 / parts},{1 / parts}"] for x, y in corners]


def main(program, model, folder, settings):
    folder = Path(folder)
    person = (folder / "classes.txt").read_text().split("\n").index("person")
    pictures, labels = zip(*frames(folder))
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        clip(pictures, work / "clip.mkv")
        header = " ".join(f"{f'{low}-{high} px':>14}" for low, high in SIZES)
        print(f"{len(pictures)} frames\ninput  ms a frame  IoU   recall by height: {header}")
        for setting in settings:
            report, times = work / "report.json", []
            masks = np.full((len(labels), HEIGHT, WIDTH), 255, np.uint8)
            for options in runs(setting):
                command = [program, "segment", work / "clip.mkv", "-o", work / "out.mkv", "--model", model, "--threads", "1"]
                command += ["--workers", "1", "--smooth", "off", *options, "--mask-dir", work / "masks", "--report", report]
                subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                times.append(model_time(json.loads(report.read_text())))
                for number, mask in enumerate(masks):
                    seen = np.asarray(Image.open(work / "masks" / f"{number:06}.png"))
                    # 255: outside of the crop.
                    np.copyto(mask, seen, where=seen != 255)
            both = either = 0
            found, all_people = np.zeros(len(SIZES), int), np.zeros(len(SIZES), int)
            for number, label in enumerate(labels):
                mask = masks[number] == person
                known = label != 255
                both += (mask & (label == person)).sum()
                either += ((mask | (label == person)) & known).sum()
                for area, height in people(label, person):
                    for index, (low, high) in enumerate(SIZES):
                        if low <= height < high:
                            all_people[index] += 1
                            found[index] += mask[area].mean() >= 0.5
            time = sum(times) / len(times)
            shares = " ".join(f"{f'{f} of {a}':>14}" for f, a in zip(found, all_people))
            print(f"{setting:6} {time:10.1f}  {both / either:.3f} {'':19}{shares}", flush=True)


def model_time(report):
    """Milliseconds of the CPU to scale a frame and to run the model, the means added up."""
    stages = (report["stage_ms"][name] for name in ("preprocess", "segment"))
    return sum(stage["total_cpu"] / stage["count"] for stage in stages)


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:] or ["1x1", "2x2", "3x3", "crop2", "crop4"])
