"""The pixels of a pair, decoded as they are needed in training and encoding."""

from collections.abc import Callable

from sipo.data.bad_rows import BadRow
from sipo.data.draws import Augmentation, CropMode
from sipo.data.media.crop import CENTER
from sipo.data.media.load import Member, load_pixels
from sipo.data.pairs.rows import Pair, PairSource
from sipo.errors import UserError
from sipo.size import Size


def load_pair(
    source: PairSource,
    row: int,
    size: Size,
    crop: CropMode,
    drawn: Augmentation,
    with_rejected: bool,
    max_pixels: int,
    load: Callable[..., Member] = load_pixels,
) -> tuple[Pair, list[Member]]:
    """The pair, and its members as `load` returns them: chosen and, where wanted and present, rejected.

    Both share the crop. Raises UserError that names the row where a member cannot be decoded.
    """
    try:
        pair = source[row]
        members = [pair.chosen, *([pair.rejected] if with_rejected and pair.rejected is not None else [])]
        position = drawn.crop if crop == "random" else CENTER
        return pair, [load(media, size, position, max_pixels) for media in members]
    except BadRow as error:
        raise UserError(f"{source.id(row)}: {error}. Has the data changed since `sipo data check`?") from error
