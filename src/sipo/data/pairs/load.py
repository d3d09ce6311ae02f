"""The pixels of a pair, decoded as they are needed in training and encoding."""

from collections.abc import Callable

from torch import Tensor

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
) -> tuple[Pair, list[Member], Tensor | None]:
    """The pair, its members as `load` returns them: chosen and, where wanted and present, rejected; and its source's
    pixels (3, H, W), if it has one.

    All share the crop. Raises UserError that names the row where a medium cannot be decoded.
    """
    try:
        pair = source[row]
        members = [pair.chosen, *([pair.rejected] if with_rejected and pair.rejected is not None else [])]
        position = drawn.crop if crop == "random" else CENTER
        edited = None if pair.source is None else load(pair.source, size.picture, position, max_pixels).media
        return pair, [load(media, size, position, max_pixels) for media in members], edited
    except BadRow as error:
        raise UserError(f"{source.id(row)}: {error}. Has the data changed since `sipo data check`?") from error
