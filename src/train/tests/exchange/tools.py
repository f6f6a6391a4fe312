"""Reads an export with the libraries of an annotation program, compares its masks pixel by pixel with those of the data set, and
writes them as the program exports them.

    tools.py cvat|coco|label-studio DATASET EXPORT BACK

DATASET has masks/ (class indices, 255 is void) and names.json (the classes).
"""

import json
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image

VOID = 255


def truth(dataset):
    """The masks by path without extension, and the names of the classes."""
    names = json.loads((dataset / "names.json").read_text())
    masks = {}
    for path in sorted((dataset / "masks").rglob("*.png")):
        stem = path.relative_to(dataset / "masks").with_suffix("").as_posix()
        masks[stem] = np.array(Image.open(path))
    return masks, names


def compare(found, dataset):
    """`found` has a mask of names for each image; "" is a pixel without an annotation."""
    masks, names = truth(dataset)
    assert sorted(found) == sorted(masks), f"{sorted(found)} instead of {sorted(masks)}"
    for stem, mask in masks.items():
        wanted = np.array([*names, *[""] * (256 - len(names))], dtype=object)[mask]
        assert found[stem].shape == wanted.shape, f"{stem}: {found[stem].shape} instead of {wanted.shape}"
        wrong = np.argwhere(found[stem] != wanted)
        assert len(wrong) == 0, f"{stem}: {len(wrong)} pixels differ, first at y, x {wrong[0]}"
    print(f"{len(masks)} masks, {sum(mask.size for mask in masks.values())} pixels are equal")


def drawn(item, names):
    """The mask of an item of Datumaro."""
    from datumaro.components.annotation import AnnotationType

    masks = [annotation for annotation in item.annotations if annotation.type == AnnotationType.mask]
    size = item.media.size
    image = np.full(size, "", dtype=object)
    for mask in masks:
        pixels = np.array(mask.image, dtype=bool)
        assert (image[pixels] == "").all(), f"{item.id}: masks overlap"
        image[pixels] = names[mask.label]
    return image


def labels_of(imported):
    from datumaro.components.annotation import AnnotationType

    return [label.name for label in imported.categories()[AnnotationType.label]]


def cvat(dataset, export, back):
    from datumaro.components.dataset import Dataset

    imported = Dataset.import_from(str(export), "voc_segmentation")
    names = labels_of(imported)
    # A label of void is needed only if the data set has a class `background`.
    labels = json.loads((export / "labels.json").read_text())
    void = {label["name"] for label in labels} - set(truth(dataset)[1])
    found = {item.id: drawn(item, names) for item in imported}
    for mask in found.values():
        mask[np.isin(mask, list(void))] = ""
    compare(found, dataset)
    # As CVAT does (make_colormap and the exporter of "Segmentation mask").
    colors = {label["name"]: tuple(bytes.fromhex(label["color"][1:])) for label in labels}
    if "background" not in colors:
        colors = {"background": (0, 0, 0), **colors}
    label_map = {name: [color, [], []] for name, color in colors.items()}
    imported.export(str(back), "voc_segmentation", save_media=False, apply_colormap=True, label_map=label_map)
    assert not list((back / "JPEGImages").rglob("*.png")), "images were written"


def coco(dataset, export, back):
    import pycocotools.mask
    from datumaro.components.dataset import Dataset
    from pycocotools.coco import COCO

    found = {}
    (back / "compressed").mkdir(parents=True)
    for path in sorted((export / "annotations").glob("*.json")):
        file = COCO(str(path))
        names = {category["id"]: category["name"] for category in file.dataset["categories"]}
        for image in file.dataset["images"]:
            mask = np.full((image["height"], image["width"]), "", dtype=object)
            for annotation in file.imgToAnns[image["id"]]:
                pixels = file.annToMask(annotation).astype(bool)
                assert pixels.sum() == annotation["area"]
                box = pycocotools.mask.toBbox(file.annToRLE(annotation)).tolist()
                assert box == annotation["bbox"], f"{box} instead of {annotation['bbox']}"
                assert (mask[pixels] == "").all(), "masks overlap"
                mask[pixels] = names[annotation["category_id"]]
                # Compressed run lengths of objects that are no crowds, as other programs write them.
                encoded = pycocotools.mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
                annotation["segmentation"] = {"size": encoded["size"], "counts": encoded["counts"].decode()}
                annotation["iscrowd"] = 0
            found[Path(image["file_name"]).with_suffix("").as_posix()] = mask
        (back / "compressed" / path.name).write_text(json.dumps(file.dataset))
    compare(found, dataset)
    imported = Dataset.import_from(str(export), "coco_instances")
    names = labels_of(imported)
    compare({item.id: drawn(item, names) for item in imported}, dataset)
    imported.export(str(back / "datumaro"), "coco_instances", save_media=False)


def label_studio(dataset, export, back):
    from xml.etree import ElementTree

    from label_studio_converter import brush

    tasks = json.loads((export / "tasks.json").read_text())
    config = ElementTree.parse(export / "config.xml").getroot()
    tag = config.find("BrushLabels")
    labels = [label.get("value") for label in tag]
    assert labels == truth(dataset)[1], f"the labels are {labels}"
    assert len({label.get("background") for label in tag}) == len(labels)
    found = {}
    for number, task in enumerate(tasks):
        path = unquote(task["data"]["image"].removeprefix("/data/local-files/?d="))
        assert (export / path).is_file(), path
        [prediction] = task.pop("predictions")
        size = np.array(Image.open(export / path)).shape[:2]
        mask = np.full(size, "", dtype=object)
        for result in prediction["result"]:
            assert (result["from_name"], result["to_name"]) == (tag.get("name"), tag.get("toName"))
            assert (result["original_height"], result["original_width"]) == size
            values = brush.decode_rle(result["value"]["rle"]).reshape(*size, 4)
            assert set(np.unique(values)) <= {0, 255} and (values == values[:, :, :1]).all()
            pixels = values[:, :, 3] > 0
            assert (mask[pixels] == "").all(), "masks overlap"
            [name] = result["value"]["brushlabels"]
            mask[pixels] = name
            result["value"]["rle"] = brush.mask2rle(pixels.astype(np.uint8) * 255)
        found[Path(path).relative_to("images").with_suffix("").as_posix()] = mask
        task["id"] = number + 1
        task["annotations"] = [{"id": number + 1, "was_cancelled": False, "result": prediction["result"]}]
        task["predictions"] = []
    compare(found, dataset)
    back.mkdir()
    (back / "project-1.json").write_text(json.dumps(tasks))


if __name__ == "__main__":
    name, *paths = sys.argv[1:]
    {"cvat": cvat, "coco": coco, "label-studio": label_studio}[name](*map(Path, paths))
