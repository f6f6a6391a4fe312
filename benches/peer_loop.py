#!/usr/bin/env python3
"""A loop of OpenCV, ONNX Runtime and ffmpeg, as a program of one's own for one camera, which `streams.py --peer python` compares with
the service. Plays a clip at its own rate, makes masks of the frames, draws them, and with --encode gives the frames to an ffmpeg that
encodes H.264.

    python3 benches/peer_loop.py models/everyday.onnx .demo/vtest.avi [--rate 5] [--encode] [--threads 1]

Needs opencv-python (or opencv-python-headless), onnxruntime and numpy. Needs a model with the input [N, height, width, 3] of bytes in
RGB and a mask [N, height, width] among its outputs, as the bundled models have.

Frames keep the time of the clip: a frame that is still undecoded when the next one is due is dropped, as a camera's would be. Five
times a second it prints a line of JSON with the number of frames, of masks and of dropped frames since the start.
"""

import argparse
import json
import subprocess
import time

import cv2
import numpy
import onnxruntime


class Model:
    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        image = self.session.get_inputs()[0]
        masks = [output.name for output in self.session.get_outputs() if len(output.shape) == 3]
        if image.type != "tensor(uint8)" or len(image.shape) != 4 or image.shape[3] != 3 or not masks:
            raise SystemExit(f"{path}: needs an input of bytes [N, height, width, 3] and an output [N, height, width]; "
                             f"the input is {image.type} {image.shape}")
        self.input, self.output = image.name, masks[0]
        self.size = (image.shape[2], image.shape[1])

    def mask(self, frame):
        image = cv2.cvtColor(cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        return self.session.run([self.output], {self.input: image[None]})[0][0]


def colours_of_classes():
    """A colour for each class, BGR; class 0 is black and is not drawn."""
    hues = numpy.zeros((1, 256, 3), numpy.uint8)
    hues[0, 1:, 0] = numpy.arange(255) * 47 % 180
    hues[0, 1:, 1:] = (200, 230)
    return cv2.cvtColor(hues, cv2.COLOR_HSV2BGR)[0]


def draw(frame, mask, colours):
    size = (frame.shape[1], frame.shape[0])
    classes = cv2.resize(mask.astype(numpy.uint8), size, interpolation=cv2.INTER_NEAREST)
    mixed = cv2.addWeighted(frame, 0.55, colours[classes], 0.45, 0)
    return numpy.where((classes > 0)[:, :, None], mixed, frame)


def encoder(width, height, fps):
    """An ffmpeg with the settings that the service gives x264 for a live stream."""
    return subprocess.Popen(
        ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-",
         "-threads", "1", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-crf", "23",
         "-g", str(round(2 * fps)), "-x264-params", "deblock=0,0", "-f", "null", "-"], stdin=subprocess.PIPE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip")
    parser.add_argument("--rate", default="auto", help="masks per second, or auto: a mask of each frame [default: auto]")
    parser.add_argument("--encode", action="store_true", help="encode the frames")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime and of OpenCV [default: 1]")
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    model, colours = Model(options.model, options.threads), colours_of_classes()
    capture = cv2.VideoCapture(options.clip)
    fps = capture.get(cv2.CAP_PROP_FPS)
    if not fps:
        raise SystemExit(f"{options.clip}: OpenCV cannot read it")
    # The mask of every nth frame, which is the rate that is wanted or the next higher one.
    every = 1 if options.rate == "auto" else max(1, int(fps / float(options.rate)))
    encode, mask = None, None
    number, frames, masks, dropped = 0, 0, 0, 0
    start = printed = time.monotonic()
    while True:
        due = start + number / fps
        time.sleep(max(0, due - time.monotonic()))
        if not capture.grab():
            capture.release()
            capture = cv2.VideoCapture(options.clip)
            continue
        number += 1
        if time.monotonic() > due + 1 / fps:
            dropped += 1
        else:
            frame = capture.retrieve()[1]
            if mask is None or frames % every == 0:
                mask = model.mask(frame)
                masks += 1
            if options.encode:
                encode = encode or encoder(frame.shape[1], frame.shape[0], fps)
                encode.stdin.write(draw(frame, mask, colours).tobytes())
            frames += 1
        if time.monotonic() >= printed + 0.2:
            printed = time.monotonic()
            print(json.dumps({"frames": frames, "masks": masks, "dropped": dropped}), flush=True)


if __name__ == "__main__":
    main()
