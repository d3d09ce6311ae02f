"""The README's picture: the first prompts of a comparison, drawn by the base and after alignment, framed by whether they are right.

    python examples/before_after.py BASE ALIGNED docs/before-after.png

No prompt is chosen by hand: they are the first held-out ones. Green: what the prompt asks for, by the miniature's rules; red: not.
"""

import argparse
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sipo.data.media.encode_video import encode_png
from sipo.evaluate.scores.files import Score, read_scores
from sipo.files import write_atomic

COLUMNS, SIDE, GAP, CAPTION, LABEL = 12, 96, 8, 46, 62
RIGHT, WRONG, INK = (46, 160, 67), (218, 54, 51), (36, 41, 47)


def sheet(base: list[tuple[Path, Score]], aligned: list[tuple[Path, Score]], rows: int) -> Image.Image:
    """Blocks of a caption and two pictures, `rows` of them with twelve prompts each."""
    height = CAPTION + 2 * (SIDE + GAP)
    canvas = Image.new("RGB", (LABEL + COLUMNS * (SIDE + GAP), rows * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for row in range(rows):
        top = row * (height + GAP)
        for line, word in enumerate(("before", "after")):
            draw.text((2, top + CAPTION + line * (SIDE + GAP) + SIDE // 2 - 8), word, INK, font)
        for column in range(COLUMNS):
            number, left = row * COLUMNS + column, LABEL + column * (SIDE + GAP)
            words = textwrap.wrap(base[number][1].sample.prompt.removeprefix("a photo of "), 15)[:3]
            draw.multiline_text((left, top), "\n".join(words), INK, ImageFont.load_default(12), spacing=2)
            for line, (file, score) in enumerate((base[number], aligned[number])):
                place = left, top + CAPTION + line * (SIDE + GAP)
                frame = Image.new("RGB", (SIDE, SIDE), RIGHT if score.details["correct"] else WRONG)
                frame.paste(Image.open(file).convert("RGB").resize((SIDE - 8, SIDE - 8)), (4, 4))
                canvas.paste(frame, place)
    return canvas


def scored(folder: Path, count: int) -> list[tuple[Path, Score]]:
    return [(folder / score.sample.file, score) for score in read_scores(folder, "miniature")[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="folder of the base's samples and scores")
    parser.add_argument("aligned", type=Path, help="folder of the aligned model's")
    parser.add_argument("out", type=Path, help="the picture")
    parser.add_argument("--rows", type=int, default=2, help="rows of twelve prompts")
    asked = parser.parse_args()
    count = asked.rows * COLUMNS
    write_atomic(asked.out, encode_png(sheet(scored(asked.base, count), scored(asked.aligned, count), asked.rows)))


if __name__ == "__main__":
    main()
