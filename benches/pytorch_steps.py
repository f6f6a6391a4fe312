#!/usr/bin/env python3
"""Steps a second of `maskcast-train fit` against the same training in PyTorch: benches/pytorch_steps.py CAMVID

The same network (U-Net over EfficientNet-Lite0, decoder 128-64-48-32), batch, crop, loss (weighted cross-entropy and
Dice), optimizer (AdamW, clipped gradients) and moving average. Both run at the same time on one core each, then with the
cores exchanged. PyTorch (`pip install torch numpy`) gets one batch that is already in memory, channels-last; the trainer
augments and validates as usual, on its core, and its time is that of the steps. The first of three epochs of 160 images is
the warm-up.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Both keep their memory between steps.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736")
if os.environ.get("MASKCAST_BENCH") is None:
    os.environ["MASKCAST_BENCH"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.argv])

import torch
import torch.nn.functional as F
from torch import nn

BATCH, WIDTH, HEIGHT, CLASSES = 8, 384, 288, 11
EPOCH, EPOCHS = 20, 3
STEPS = EPOCH * (EPOCHS - 1)
ROWS = [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)]


def conv(inputs, outputs, kernel, stride=1, groups=1, act=nn.ReLU6, eps=1e-3):
    """TensorFlow's SAME padding: on even sides at stride 2, one more at the end than at the beginning."""
    total = kernel - stride if stride == 2 else kernel - 1
    pad = [] if stride == 1 else [nn.ZeroPad2d((total // 2, total - total // 2) * 2)]
    layers = [*pad, nn.Conv2d(inputs, outputs, kernel, stride, 0 if pad else kernel // 2, groups=groups, bias=False)]
    layers.append(nn.BatchNorm2d(outputs, eps=eps))
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride, expand):
        super().__init__()
        middle = inputs * expand
        self.layers = nn.Sequential(
            *([conv(inputs, middle, 1)] if expand > 1 else []),
            conv(middle, middle, kernel, stride, middle),
            conv(middle, outputs, 1, act=None),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class UNet(nn.Module):
    def __init__(self, widths=(128, 64, 48, 32)):
        super().__init__()
        self.stem = conv(3, 32, 3, 2)
        self.blocks, self.taps, channels, skips = nn.ModuleList(), [], 32, []
        for repeats, kernel, stride, expand, outputs in ROWS:
            for n in range(repeats):
                first = stride if n == 0 else 1
                if first == 2:
                    self.taps.append(len(self.blocks))
                    skips.append(channels)
                self.blocks.append(Block(channels, outputs, kernel, first, expand))
                channels = outputs
        self.levels = nn.ModuleList()
        for width, skip in zip(widths, reversed(skips)):
            level = nn.Sequential(conv(channels + skip, width, 3, act=nn.ReLU, eps=1e-5), conv(width, width, 3, act=nn.ReLU, eps=1e-5))
            self.levels.append(level)
            channels = width
        self.head = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, x):
        x, skips = self.stem(x), []
        for n, block in enumerate(self.blocks):
            if n in self.taps:
                skips.append(x)
            x = block(x)
        for level in self.levels:
            x = level(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()], 1))
        return F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=False)


def loss_of(logits, labels, weights):
    log = logits.log_softmax(1)
    entropy = F.nll_loss(log, labels, weights, ignore_index=255)
    p, valid = log.exp(), (labels != 255).float().unsqueeze(1)
    truth = torch.zeros_like(p).scatter_(1, labels.clamp(max=CLASSES - 1).unsqueeze(1), valid)
    common, predicted, labelled = ((t).sum((0, 2, 3)) for t in (p * truth, p * valid, truth))
    occurs = (labelled > 0).float()
    dice = ((1 - 2 * common / (predicted + labelled + 1e-6)) * occurs).sum() / occurs.sum().clamp(min=1)
    return entropy + 0.5 * dice


def pytorch():
    torch.set_num_threads(1)
    net = UNet().to(memory_format=torch.channels_last).train()
    average = [t.detach().clone() for t in net.state_dict().values()]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2, foreach=True)
    images = torch.randn(BATCH, 3, HEIGHT, WIDTH).to(memory_format=torch.channels_last)
    labels, weights = torch.randint(0, CLASSES, (BATCH, HEIGHT, WIDTH)), torch.ones(CLASSES)
    begun = None
    for step in range(EPOCH + STEPS):
        if step == EPOCH:
            begun = time.perf_counter()
        loss = loss_of(net(images), labels, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        loss.item()
        with torch.no_grad():
            for kept, now in zip(average, net.state_dict().values()):
                if kept.is_floating_point():
                    kept.lerp_(now, 0.01)
    return STEPS / (time.perf_counter() - begun)


def maskcast(camvid, folder):
    for part, count in (("train", EPOCH * BATCH), ("val", 8)):
        names = sorted(os.listdir(f"{camvid}/{part}"))[:count]
        with open(f"{folder}/{part}.txt", "w") as file:
            file.writelines(f"{part}/{name}\n" for name in names)
    command = ["target/release/maskcast-train", "fit", camvid, "-o", f"{folder}/run", "--lists", folder]
    command += ["--epochs", str(EPOCHS), "--strategy", "finetune", "--crop", f"{WIDTH}x{HEIGHT}", "--batch", str(BATCH)]
    command += ["--threads", "1", "--loader-threads", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with open(f"{folder}/run/report.json") as file:
        epochs = json.load(file)["history"][1:]
    seconds = [epoch["seconds"] for epoch in epochs]
    waited = sum(epoch["data_wait_share"] * time for epoch, time in zip(epochs, seconds))
    return STEPS / sum(seconds), waited / sum(seconds)


def pinned(core, *arguments):
    """Starts this script in another process on one core."""
    return subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )


def side_by_side(camvid, core, other):
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pinned(core, "--maskcast", camvid, folder), pinned(other, "--pytorch")
        results = [json.loads(process.communicate()[0]) for process in (ours, theirs)]
        if ours.returncode or theirs.returncode:
            sys.exit("one of the two processes has failed")
    return results


if __name__ == "__main__":
    if sys.argv[1] == "--pytorch":
        print(json.dumps(pytorch()))
    elif sys.argv[1] == "--maskcast":
        print(json.dumps(maskcast(sys.argv[2], sys.argv[3])))
    else:
        cores = sorted(os.sched_getaffinity(0))[:2]
        ours, theirs = [], []
        for core, other in (cores, cores[::-1]):
            (rate, waited), reference = side_by_side(sys.argv[1], core, other)
            ours.append(rate)
            theirs.append(reference)
            print(f"maskcast-train {rate:.3f} steps/s ({100 * waited:.1f} % waiting for data), PyTorch {reference:.3f}", flush=True)
        print(f"ratio {sum(ours) / sum(theirs):.2f}")
