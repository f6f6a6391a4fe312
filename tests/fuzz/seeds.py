"""Generates seeds for the fuzz targets and a dictionary from files of the repository: seeds.py FOLDER.

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
    """An image of zeros, 8 bits a channel (PNG, third edition)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(width * channels)) * height
    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def constant(file, name):
    """The value of a string constant of the program."""
    found = re.search(rf'const {name}: &str =\s*(?:r##"(.*?)"##|"(.*?)");', (ROOT / file).read_text(), re.DOTALL)
    raw, escaped = found.groups()
    return raw or re.sub(r"\\\n\s*", "", escaped).replace("\\r", "\r").replace("\\n", "\n")


def edits(configs):
    """Configuration files, each with the same changes in several orders."""
    changes = [
        'add {"name": "new", "source": "test://ball", "overlay": {"alpha": 0.5, "hide": ["sky"]}}',
        'change gate {"show": "matched", "overlay": {"alpha": 0.3, "style": null, "colors": {"car": "#ff0000"}}}',
        'change test {"record": {"dir": "/srv/x", "event": [{"classes": ["car"], "zone": [[0, 0], [1, 0], [1, 1]]}]}}',
        'change a {"source": "test://smpte", "max_latency": 2.5, "push": null}',
        "remove gate\nremove new\nremove a",
    ]
    two = '[[stream]]\nname = "a" # one\nsource = "test://"\n\n# two\n[[stream]]\nname = "gate"\nsource = "test://"\n'
    files = [(file.name, file.read_text()) for file in configs] + [
        ("own", constant("src/config/edit.rs", "FILE")),
        ("list", 'stream = [{ name = "a", source = "test://" }, # 1\n { name = "gate", source = "test://" }] # all\n'),
        ("windows", "\ufeff" + two.replace("\n", "\r\n")),
    ]
    for name, text in files:
        for n in range(len(changes)):
            yield f"{name}-{n}", (text + "\n---\n" + "\n".join(changes[n:] + changes[:n])).encode()


def users():
    hashed = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
    digest = "0a" * 16
    user = f'[[user]]\nname = "anna"\nrole = "operator"\npassword = "{hashed}"\nrtsp_digest = "{digest}"\n'
    token = '[[token]]\nname = "cron"\nrole = "viewer"\nsha256 = "' + "5e" * 32 + '"\n'
    wrong = '[[user]]\nname = "bert"\nrole = "viewer"\npassword = "correct horse"\n'
    return [(str(n), text.encode()) for n, text in enumerate([user, token, user + token, wrong, ""])]


def requests_with_logins():
    targets = [
        "GET /api/v1/streams",
        "PATCH /api/v1/streams/gate",
        "DELETE /api/v1/session",
        "POST /api/v1/session",
        "GET http://127.0.0.1/page/app.js",
        "POST /whep/gate",
        "GET /api/v1/streams/gate/recordings/gate-20200101T000000Z.mp4",
        "OPTIONS *",
    ]
    logins = [
        "Authorization: Bearer @TOKEN@",
        "Authorization: Bearer @OPERATOR@",
        "Authorization: Basic @BASIC@",
        "Authorization: Basic YW5uYTp3cm9uZw==",
        "Cookie: a=b; maskcast=@SESSION@",
        "Cookie: maskcast=@SESSION@\nX-CSRF-Token: @CSRF@\nOrigin: http://127.0.0.1:8080",
        "Sec-Fetch-Site: cross-site\nVia: 1.1 proxy",
    ]
    body = '{"user": "anna", "password": "correct horse"}'
    head = f"Host: 127.0.0.1:8080\nContent-Type: application/json\nContent-Length: {len(body)}"
    for a, target in enumerate(targets):
        for b, login in enumerate(logins):
            yield f"{a}-{b}", f"{target} HTTP/1.1\n{head}\n{login}\n\n{body}".encode()


def offer():
    later = [
        "a=ice-ufrag:EsAw",
        "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1",
        "m=audio 9 RTP/AVP 0",
        "a=mid:0",
        "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host",
        "a=end-of-candidates",
    ]
    answer = ["v=0", "a=group:BUNDLE 1", "m=video 9 UDP/TLS/RTP/SAVPF 104", "a=mid:1"]
    answer.append("a=candidate:1 1 UDP 2015363327 10.0.0.7 50001 typ host")
    parts = [constant("src/publish/whep/offer.rs", "OFFER"), "\r\n".join(later), "\r\n".join(answer)]
    return "\n---\n".join(parts).encode()


def recordings():
    """With an even first byte, names; with an odd one, damage in the format of the crate arbitrary."""
    for name in ["-20261124T101500Z.mp4", "-20261124T101500Z-12-visit-2.mkv", "-20261124T101500Z-2.mp4"]:
        yield name, f"\0gate\ngate{name}".encode()
    for n in range(15):
        yield f"damage{n}", bytes([1 + 2 * (n % 2), *range(17 * n, 17 * n + 15)]) * 3


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
    manifest = b'[input]\nsize = [8, 6]\nlayout = "nchw"\norder = "bgr"\nwhite = 255.0\nmean = [0.1, 0.2, 0.3]\n'
    manifest += b'std = [0.2, 0.2, 0.2]\n' + b'[[labels]]\nname = "a"\ncolor = "#ff8800"\n' * 3
    models = [
        ("own", [labels, golden, b'{"epochs": 3}', own]),
        ("foreign", [b"", b"", b"", manifest]),
        ("bare", [labels, b"", b"", b""]),
    ]
    write(folder, "model", [(name, b"\n---\n".join(parts)) for name, parts in models])

    server = "".join(file.read_text() for file in sorted(ROOT.glob("src/server/*.rs")))
    routes = [("get", route) for route in re.findall(r'\.route\("([^"]+)"', server)]
    routes += re.findall(r'^    (get|post|patch|delete),\n    path = "([^"]+)"', server, re.MULTILINE)
    requests = [f"{verb.upper()} {route}\n".replace("{name}", "gate").encode() for verb, route in sorted(set(routes))]
    requests.append(b'POST /api/v1/model\n{"path": "/srv/yard.onnx", "force": true}')
    requests.append(b'POST /api/v1/model?a=b&c=%20\n{"path": "yard.onnx"}')
    write(folder, "api", [(str(number), request) for number, request in enumerate(requests)])
    # Its input is not text.
    write(folder, "overlay", [("empty", b""), ("long", bytes(range(256)) * 8)])

    write(folder, "edit", edits(configs))
    write(folder, "users", users())
    write(folder, "access", requests_with_logins())
    write(folder, "whep", [("chromium", offer())])
    write(folder, "recording", recordings())
    write(folder, "event", [("long", bytes(range(256)) * 3)])

    texts = [file.read_text() for file in [*configs, *scenarios, ROOT / "docs/configuration.md", ROOT / "models/street.toml"]]
    words = set(re.findall(r"[a-z][a-z0-9_-]{2,20}", "\n".join(texts)))
    marks = ["[[stream]]", "[stream.overlay]", "[[camera]]", "[[step]]", "\n---\n", "\r", "://", "#ff0000", "nan"]
    marks += ["inf", " = ", "change ", "remove ", "add {", "a=candidate:", "Authorization: ", "maskcast="]
    escaped = [mark.replace("\n", "\\x0a").replace("\r", "\\x0d") for mark in marks]
    lines = [f'"{word}"' for word in [*sorted(words), *escaped]]
    (folder / "words.dict").write_text("\n".join(lines) + "\n")


main()
