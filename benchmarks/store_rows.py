"""Rows per second of the archive, against writing and reading the same table as one plain Parquet file.

The archive journals every row, names files by content, syncs them to the disk and gives each row once;
plain pyarrow does none of it. Prints one figure and one ratio per part; run it alone on the machine.

    python benchmarks/store_rows.py [--images 5000] [--attempts 6]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from aresbench.store import Store, schema

SHARD = 32


def attempts(images: int, per_image: int) -> list[dict[str, object]]:
    """Rows as the engine writes them."""
    return [
        {
            "id": f"val/n01440764/{i:08d}.JPEG",
            "position": i,
            "shard": i // SHARD,
            "attack": "apgd-ce(steps=50)",
            "norm": "linf",
            "eps": f"{k}/255",
            "start": "cold",
            "pinned": k == 0,
            "verdict": "broken" if (i + k) % 3 else "resisted",
            "distance": k / 255 if (i + k) % 3 else None,
            "first_step": i % 50 if (i + k) % 3 else None,
            "first_query": None,
            "forwards": 51,
            "backwards": 50,
            "zero_gradients": 0,
            "nan_gradients": 0,
            "rejected": 0,
            "adv_prediction": i % 1000,
            "seed": 0,
        }
        for i in range(images)
        for k in range(1, per_image + 1)
    ]


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--attempts", type=int, default=6, help="rows per image")
    options = parser.parse_args()
    rows = attempts(options.images, options.attempts)
    batch = SHARD * options.attempts
    identity = {"model": {"name": "benchmark", "fingerprint": "0"}, "dataset": "none", "threat": "clean"}
    with tempfile.TemporaryDirectory() as folder:
        cell = Store(Path(folder) / "runs").cell({"identity": identity})
        plain = Path(folder) / "plain.parquet"

        def append() -> None:
            for start in range(0, len(rows), batch):
                cell.append("attempts", rows[start : start + batch])
            cell.flush()

        def write_plain() -> None:
            pq.write_table(schema.to_table("attempts", rows), plain, compression="zstd")
            with plain.open("rb") as file:
                os.fsync(file.fileno())

        def read() -> None:
            assert len(cell.attempts()) == len(rows)

        ours = {"append": timed(append), "seal": timed(cell.seal), "first read": timed(read), "read": timed(read)}
        theirs_write = timed(write_plain)
        theirs_read = timed(lambda: schema.to_frame(pq.read_table(plain)))
    print(f"{len(rows)} rows in {-(-options.images // SHARD)} shards")
    baseline = {"append": theirs_write, "seal": theirs_write, "first read": theirs_read, "read": theirs_read}
    for part, seconds in ours.items():
        print(
            f"{part:>12}: {len(rows) / seconds:>10,.0f} rows/s, {seconds / baseline[part]:5.1f} × plain pyarrow's time"
        )
    total, plain_total = ours["append"] + ours["seal"] + ours["read"], theirs_write + theirs_read
    print(f"{'all':>12}: {len(rows) / total:>10,.0f} rows/s, {total / plain_total:5.1f} × plain pyarrow's time")


if __name__ == "__main__":
    main()
