"""Rows of preference pairs in Pick-a-Pic's schema, for whoever makes pairs; `sipo.data.pairs.schemas` reads them."""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("jpg_0", pa.binary()),
        ("jpg_1", pa.binary()),
        ("label_0", pa.float64()),
        ("label_1", pa.float64()),
        ("caption", pa.string()),
        ("has_label", pa.bool_()),
        ("image_0_uid", pa.string()),
        ("image_1_uid", pa.string()),
        ("best_image_uid", pa.string()),
        ("model_0", pa.string()),
        ("model_1", pa.string()),
        ("ranking_id", pa.int64()),
        ("score_gap", pa.float64()),
        ("seed_0", pa.int64()),
        ("seed_1", pa.int64()),
        ("sampler_0", pa.string()),
        ("sampler_1", pa.string()),
    ]
)
"""The columns that are written. Those from `score_gap` on, the better one's score less the other's, are this project's
additions; seed and sampler (JSON) are those of generated media, null of others."""

Drawn = tuple[int, Mapping[str, Any]] | None  # the seed and the sampler's settings of a generated medium


def pair_row(
    caption: str,
    number: int,
    best: bytes,
    worst: bytes,
    gap: float | None,
    seed: int = 0,
    models: tuple[str, str] = ("", ""),
    drawn: tuple[Drawn, Drawn] = (None, None),
) -> dict:
    """One row. `best`, `worst`: encoded files; `models`, `drawn`: what made each, and how; `number`: the row's `ranking_id`.

    Which side is the better one is drawn from (seed, number), so that the side says nothing.
    """
    best_is_0 = bool(np.random.default_rng([seed, 11, number]).integers(2))
    turn = 1 if best_is_0 else -1
    sides, makers, samplers = (best, worst)[::turn], models[::turn], drawn[::turn]
    uids = [hashlib.blake2b(side, digest_size=16).hexdigest() for side in sides]
    return {
        "jpg_0": sides[0],
        "jpg_1": sides[1],
        "label_0": float(best_is_0),
        "label_1": float(not best_is_0),
        "caption": caption,
        "has_label": True,
        "image_0_uid": uids[0],
        "image_1_uid": uids[1],
        "best_image_uid": uids[0] if best_is_0 else uids[1],
        "model_0": makers[0],
        "model_1": makers[1],
        "ranking_id": number,
        "score_gap": gap,
        **{f"seed_{n}": each and each[0] for n, each in enumerate(samplers)},
        **{f"sampler_{n}": each and json.dumps(each[1], sort_keys=True) for n, each in enumerate(samplers)},
    }


def encode_rows(rows: list[dict], compression: str = "snappy", row_group_size: int | None = None) -> bytes:
    """The rows as a parquet file; pictures are compressed already, so only columns of text gain."""
    return encode_table(pa.Table.from_pylist(rows, schema=SCHEMA), compression, row_group_size)


def encode_table(table: pa.Table, compression: str = "snappy", row_group_size: int | None = None) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression, row_group_size=row_group_size)
    return buffer.getvalue()
