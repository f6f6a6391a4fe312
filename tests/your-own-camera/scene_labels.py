"""Labels for the frames of a fixed camera, from polygons of the static scene and a difference to the background.

They stand in for the corrections of a person in the test of the tutorial. The static scene is drawn by hand (a TOML
file beside this one); what moves is found in each frame. Pixels that are uncertain are void (255).
"""

import tomllib
from pathlib import Path

import cv2
import numpy as np

VOID = 255


def background_of(clip, step=8, parts=None):
    """The median of every `step`th frame of a clip, or of these parts of it ([first, last] frame): BGR, uint8."""
    capture = cv2.VideoCapture(str(clip))
    frames, n = [], 0
    while capture.grab():
        if n % step == 0 and (parts is None or any(first <= n <= last for first, last in parts)):
            frames.append(capture.retrieve()[1])
        n += 1
    if not frames:
        raise ValueError(f"{clip} has no frames that can be decoded")
    return np.median(np.stack(frames), axis=0).astype(np.uint8)


def lab(bgr):
    """CIE Lab in its own units, as float32, after a slight blur against noise of the codec."""
    blurred = cv2.GaussianBlur(bgr, (0, 0), 0.8)
    return cv2.cvtColor(blurred.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)


def disc(pixels):
    """The structuring element of a disc."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (pixels, pixels))


def ring(mask, pixels):
    """A mask (bool) grown by `pixels`."""
    return cv2.dilate(mask.astype(np.uint8), disc(2 * pixels + 1)) > 0


class Scene:
    """A fixed camera: its static labels and its background.

    `drawing` is the TOML file with the polygons, `classes` the names of the classes in the order of their indices.
    """

    def __init__(self, drawing, clip, classes):
        drawing = tomllib.loads(Path(drawing).read_text())
        self.classes = list(classes)
        self.width, self.height = drawing["size"]
        self.moving = self.classes.index(drawing["moving"])
        self.min_area = drawing["min_area"]
        background = background_of(clip, drawing.get("step", 8), drawing.get("background"))
        if background.shape[:2] != (self.height, self.width):
            raise ValueError(f"{clip} is not the clip of {self.width}x{self.height} pixels that the polygons were drawn on")
        self.bgr = cv2.GaussianBlur(background, (0, 0), 0.8).astype(np.float32)
        self.background = lab(background)
        self.gap, self.hole = drawing.get("gap", 5), drawing.get("hole", 30)
        self.least, self.darkest = drawing.get("least", 14), drawing.get("darkest", 0.6)
        self.thickness = drawing.get("thickness", 7)
        self.static, self.front = self.paint(drawing)
        self.thin = self.zone(drawing, "thin")
        self.unclear = self.zone(drawing, "unclear")

    def paint(self, drawing):
        """The static labels with void borders, and where objects stand in front of people."""
        labels = np.full((self.height, self.width), VOID, np.uint8)
        front = np.zeros_like(labels)
        for shape in drawing.get("area", []) + drawing.get("line", []):
            name = shape["class"]
            value = VOID if name == "void" else self.classes.index(name)
            points = np.round(np.array(shape["points"], np.float32)).astype(np.int32)
            for canvas, number in [(labels, value)] + [(front, 1)] * shape.get("front", False):
                if "width" in shape:
                    cv2.polylines(canvas, [points], False, number, shape["width"])
                else:
                    cv2.fillPoly(canvas, [points], number)
        kernel = np.ones((3, 3), np.uint8)
        border = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
        labels[border] = VOID
        return labels, front > 0

    def zone(self, drawing, kind):
        """The mask of all zones of a kind: `thin` (narrow things that move there are not people: a barrier tape),
        `unclear` (all that moves there is void)."""
        mask = np.zeros((self.height, self.width), np.uint8)
        for zone in drawing.get("zone", []):
            if zone["kind"] == kind:
                cv2.fillPoly(mask, [np.array(zone["points"], np.int32)], 1)
        return mask > 0

    def movement(self, bgr):
        """What moves in a frame of the clip's size: (certain, possible), two masks of bool."""
        # A change of the exposure is not movement.
        gain = np.median(np.maximum(bgr.mean(axis=2), 1) / np.maximum(self.bgr.mean(axis=2), 1))
        bgr = np.clip(bgr / gain, 0, 255).astype(np.uint8)
        difference = lab(bgr) - self.background
        distance = np.hypot(difference[..., 0], 1.5 * np.hypot(difference[..., 1], difference[..., 2]))
        changed = distance > self.least
        certain = changed & ~self.shadow(bgr)
        certain = cv2.morphologyEx(certain.astype(np.uint8), cv2.MORPH_OPEN, disc(3))
        certain = cv2.morphologyEx(certain, cv2.MORPH_CLOSE, disc(self.gap))
        thick = cv2.morphologyEx(certain, cv2.MORPH_OPEN, disc(self.thickness)) > 0
        certain = fill_holes((certain > 0) & (thick | ~self.thin), self.hole)
        certain = large_parts(certain, self.min_area)
        certain &= changed | ~self.front
        possible = (distance > self.least / 2) & ring(certain, 9) & (changed | ~self.front)
        return certain & ~self.unclear, possible | (certain & self.unclear)

    def shadow(self, bgr):
        """Where a frame is darker than the background by a factor, with the direction of the background's colour."""
        frame, background = bgr.astype(np.float32), self.bgr
        length = np.maximum(np.linalg.norm(background, axis=2), 1)
        factor = (frame * background).sum(axis=2) / length**2
        rest = np.linalg.norm(frame - factor[..., None] * background, axis=2)
        # Dark clothes have no colour: on a coloured ground (a lawn) they cannot be taken for a deep shadow.
        coloured = background.mean(axis=2) * 3**0.5 / length < 0.96
        return (factor < 1) & (rest < 9) & (factor > np.where(coloured, 0.35, self.darkest))

    def labels_of(self, frame_bgr):
        """The label of a frame (BGR, any size): uint8 of the frame's size, index = class, 255 = void."""
        rows, columns = frame_bgr.shape[:2]
        fit = (rows, columns) == (self.height, self.width)
        frame = frame_bgr if fit else cv2.resize(frame_bgr, (self.width, self.height), interpolation=cv2.INTER_AREA)
        certain, possible = self.movement(frame)
        labels = self.static.copy()
        labels[possible | ring(certain, 2)] = VOID
        inside = ~ring(~certain, 1)
        labels[inside] = self.moving
        return labels if fit else cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)


def fill_holes(mask, largest):
    """A mask (bool) without holes of at most `largest` pixels."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = np.isin(parts, [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] <= largest])
    return mask | small


def large_parts(mask, least):
    """The connected parts of a mask (bool) that have at least `least` pixels."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.isin(parts, [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= least])
