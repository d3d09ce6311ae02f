"""Preference pairs of real pictures: every emoji in two styles, the 3D one chosen, the flat one rejected.

    python build_pairs.py --out emoji.parquet                                  # downloads the two npm packages
    python build_pairs.py --fluent DIR --google DIR --out emoji.parquet        # from unpacked packages

The parquet has Pick-a-Pic's columns; the pictures go in as they are (256 px WebP and 64 px PNG, with alpha).
"""

import argparse
import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FLUENT, GOOGLE = "@lobehub/fluent-emoji-3d", "emoji-datasource-google"
TONES = {"1F3FB": "light", "1F3FC": "medium-light", "1F3FD": "medium", "1F3FE": "medium-dark", "1F3FF": "dark"}
VARIATION_SELECTOR = 0xFE0F  # "as a picture, not as text": file names write it or leave it out

Code = tuple[int, ...]


def code_points(name: str) -> Code:
    """The emoji that a file or an entry is about: "0023-fe0f-20e3" and "23-20e3" are the same."""
    points = (int(point, 16) for point in re.split("[-_]", name))
    return tuple(point for point in points if point != VARIATION_SELECTOR)


def fetch(package: str, folder: Path) -> Path:
    """Download and unpack an npm package; returns the unpacked folder."""
    target = folder / package.split("/")[-1]
    listing = subprocess.run(
        ["npm", "pack", package, "--json", "--pack-destination", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    packed = json.loads(listing.stdout)
    entry = packed[0] if isinstance(packed, list) else next(iter(packed.values()))
    with tarfile.open(folder / entry["filename"].replace("@", "").replace("/", "-")) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def read_names(file: Path) -> dict[Code, str]:
    """The captions, from emoji.json: the name in lower case and, where there is one, the tone of skin."""
    names: dict[Code, str] = {}
    for entry in json.loads(file.read_text("utf-8")):
        name = entry["name"].lower()
        names[code_points(entry["unified"])] = name
        for tones, variation in entry.get("skin_variations", {}).items():
            skin = " and ".join(TONES[tone] for tone in dict.fromkeys(tones.split("-")))
            names[code_points(variation["unified"])] = f"{name}, {skin} skin tone"
    return names


def pictures(folder: Path, suffix: str) -> dict[Code, Path]:
    return {code_points(file.stem): file for file in sorted(folder.glob(f"*{suffix}"))}


def build(fluent: Path, google: Path, out: Path) -> int:
    """Write the parquet; returns the number of pairs."""
    names = read_names(google / "emoji.json")
    chosen = pictures(fluent / "assets", ".webp")
    rejected = pictures(google / "img" / "google" / "64", ".png")
    codes = sorted(names.keys() & chosen.keys() & rejected.keys())
    columns: dict[str, list] = {name: [] for name in ("jpg_0", "jpg_1", "label_0", "caption", "model_0", "model_1")}
    for code in codes:
        members = [(chosen[code].read_bytes(), FLUENT), (rejected[code].read_bytes(), GOOGLE)]
        first = hashlib.sha256(repr(code).encode()).digest()[0] % 2  # the chosen one stands on either side
        sides = members if first == 0 else members[::-1]
        for side, (picture, model) in enumerate(sides):
            columns[f"jpg_{side}"].append(picture)
            columns[f"model_{side}"].append(model)
        columns["label_0"].append(1.0 - first)
        columns["caption"].append(names[code])
    pq.write_table(pa.table(columns), out, row_group_size=256)
    print(
        f"{len(names):,} names, {len(chosen):,} pictures in 3D, {len(rejected):,} flat ones: {len(codes):,} pairs in {out}"
    )
    return len(codes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fluent", type=Path, help=f"folder of the unpacked package {FLUENT}")
    parser.add_argument("--google", type=Path, help=f"folder of the unpacked package {GOOGLE}")
    parser.add_argument("--out", type=Path, default=Path("emoji.parquet"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fluent = options.fluent or fetch(FLUENT, Path(folder))
        google = options.google or fetch(GOOGLE, Path(folder))
        build(fluent, google, options.out)


if __name__ == "__main__":
    main()
