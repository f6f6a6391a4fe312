"""Makes the fuzz targets' first inputs and a dictionary out of files of the repository: seeds.py FOLDER.

Writes FOLDER/TARGET/* for each target that reads text, and FOLDER/words.dict.
"""

import base64
import pathlib
import re
import struct
import sys
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write(folder, target, seeds):
    place = folder / target
    place.mkdir(parents=True, exist_ok=True)
    for name, data in seeds:
        (place / name).write_bytes(data)


def png(width, height, channels, color):
    """A picture of zeros, 8 bits a channel (PNG, third edition)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(width * channels)) * height
    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    folder = pathlib.Path(sys.argv[1])
    configs = [*ROOT.glob("pipelines/*.toml"), ROOT / "systemd/maskcast.toml"]
    scenarios = list(ROOT.glob("tests/scenarios/*.toml"))
    write(folder, "config", [(file.name, file.read_bytes()) for file in configs])
    write(folder, "scenario", [(file.name, file.read_bytes()) for file in scenarios])

    labels = b'[{"name":"road","color":[128,64,128]},{"name":"sky","color":[70,130,180]}]'
    image, mask = (base64.b64encode(png(8, 6, channels, color)) for channels, color in ((3, 2), (1, 0)))
    golden = b'{"image":"' + image + b'","mask":"' + mask + b'"}'
    own = (ROOT / "models/street.toml").read_bytes()
    card = b'[input]\nsize = [8, 6]\nlayout = "nchw"\norder = "bgr"\nwhite = 255.0\nmean = [0.1, 0.2, 0.3]\n'
    card += b'std = [0.2, 0.2, 0.2]\n' + b'[[labels]]\nname = "a"\ncolor = "#ff8800"\n' * 3
    models = [
        ("own", [labels, golden, b'{"epochs": 3}', own]),
        ("foreign", [b"", b"", b"", card]),
        ("bare", [labels, b"", b"", b""]),
    ]
    write(folder, "model", [(name, b"\n---\n".join(parts)) for name, parts in models])

    routes = re.findall(r'\.route\("([^"]+)"', (ROOT / "src/server/mod.rs").read_text())
    requests = [f"GET {route}".replace("{name}", "gate").encode() + b"\n" for route in routes]
    requests.append(b'POST /api/v1/model\n{"path": "/srv/yard.onnx", "force": true}')
    requests.append(b'POST /api/v1/model?a=b&c=%20\n{"path": "yard.onnx"}')
    write(folder, "api", [(str(number), request) for number, request in enumerate(requests)])
    # Its input has no text form: the fuzzer begins with nothing.
    write(folder, "overlay", [("empty", b""), ("long", bytes(range(256)) * 8)])

    texts = [file.read_text() for file in [*configs, *scenarios, ROOT / "README.md", ROOT / "models/street.toml"]]
    words = set(re.findall(r"[a-z][a-z0-9_-]{2,20}", "\n".join(texts)))
    marks = ["[[stream]]", "[stream.overlay]", "[[camera]]", "[[step]]", "\n---\n", "://", "#ff0000", "nan", "inf", " = "]
    lines = [f'"{word}"' for word in sorted(words)] + ['"' + mark.replace("\n", "\\x0a") + '"' for mark in marks]
    (folder / "words.dict").write_text("\n".join(lines) + "\n")


main()
