"""The README's picture: the first prompts of a comparison, drawn by the base and after alignment, framed by whether they are right.

    python examples/before_after.py BASE ALIGNED docs/before-after.png
    python examples/before_after.py BASE ALIGNED docs/before-after-video.gif --scorer miniature-video

No prompt is chosen by hand: they are the first held-out ones. Green: what the prompt asks for, by the miniature's rules; red: not.
"""

import argparse
import io
import re
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from sipo.data.media.decode_video import read_frames
from sipo.data.media.encode_video import encode_png
from sipo.data.media.pictures import decode
from sipo.evaluate.scores.files import Score, read_scores
from sipo.files import write_atomic

COLUMNS, SIDE, GAP, CAPTION, LABEL = 12, 96, 8, 46, 62
RIGHT, WRONG, INK = (46, 160, 67), (218, 54, 51), (36, 41, 47)


def sheet(
    base: list[tuple[list[Image.Image], Score]], aligned: list[tuple[list[Image.Image], Score]]
) -> list[Image.Image]:
    """Blocks of a caption and two pictures, twelve prompts a row; one sheet for each frame."""
    height, rows = CAPTION + 2 * (SIDE + GAP), len(base) // COLUMNS
    blank = Image.new("RGB", (LABEL + COLUMNS * (SIDE + GAP), rows * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(blank), ImageFont.load_default(13)
    sheets = []
    for row in range(rows):
        for line, word in enumerate(("before", "after")):
            draw.text((2, row * (height + GAP) + CAPTION + line * (SIDE + GAP) + SIDE // 2 - 8), word, INK, font)
        for column in range(COLUMNS):
            words = textwrap.wrap(
                re.sub("^a (photo|video) of ", "", base[row * COLUMNS + column][1].sample.prompt), 15
            )[:3]
            place = LABEL + column * (SIDE + GAP), row * (height + GAP)
            draw.multiline_text(place, "\n".join(words), INK, ImageFont.load_default(12), spacing=2)
    for moment in range(len(base[0][0])):
        canvas = blank.copy()
        for number, pair in enumerate(zip(base, aligned, strict=True)):
            row, column = divmod(number, COLUMNS)
            for line, (frames, score) in enumerate(pair):
                frame = Image.new("RGB", (SIDE, SIDE), RIGHT if score.details["correct"] else WRONG)
                frame.paste(frames[moment].convert("RGB").resize((SIDE - 8, SIDE - 8)), (4, 4))
                canvas.paste(
                    frame, (LABEL + column * (SIDE + GAP), row * (height + GAP) + CAPTION + line * (SIDE + GAP))
                )
        sheets.append(canvas)
    return sheets


def scored(folder: Path, scorer: str, count: int) -> list[tuple[list[Image.Image], Score]]:
    """The frames, one of a picture, and the score of the first samples."""
    found = []
    for score in read_scores(folder, scorer)[:count]:
        file = folder / score.sample.file
        found.append(
            ([each.picture() for each in read_frames(file)] if score.sample.is_video else [decode(file)], score)
        )
    return found


def encode(sheets: list[Image.Image]) -> bytes:
    """A PNG, or a GIF that plays twice as slowly as the clips and rests on its last frame."""
    if len(sheets) == 1:
        return encode_png(sheets[0])
    buffer = io.BytesIO()
    durations = [250] * (len(sheets) - 1) + [1250]
    sheets[0].save(buffer, "GIF", save_all=True, append_images=sheets[1:], duration=durations, loop=0)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="folder of the base's samples and scores")
    parser.add_argument("aligned", type=Path, help="folder of the aligned model's")
    parser.add_argument("out", type=Path, help="the picture; of clips a .gif")
    parser.add_argument("--scorer", default="miniature", help="whose scores say what is right")
    parser.add_argument("--rows", type=int, default=2, help="rows of twelve prompts")
    asked = parser.parse_args()
    base, aligned = (scored(each, asked.scorer, asked.rows * COLUMNS) for each in (asked.base, asked.aligned))
    write_atomic(asked.out, encode(sheet(base, aligned)))


if __name__ == "__main__":
    main()
