"""Query attacks are batched: 32 digits at once over 32 times one digit alone.

The budget is so small that nothing breaks, so that every image pays for all queries; hopskipjump, which looks
for the nearest break at any distance, always does. One image's time is the mean of four, each attacked alone.
Both sides ask the same number of questions an image. Limit: 0.5 where a step of one image asks one question
at a time. A step of NES asks a hundred whether its image is alone or not: there is less to gain (limit: 1).
"""

from __future__ import annotations

import time

from common import digits
from torch import Tensor

from aresbench.attacks.load import make_attack
from aresbench.engine.driver import run_attack
from aresbench.engine.prepare import prepared

ATTACKS = {"square(queries=300)": 0.5, "nes(queries=304, samples=100)": 1.0, "hopskipjump(queries=300)": 0.5}
IMAGES, ALONE, EPS = 32, 4, 1e-6


def main() -> None:
    model, x, _, ids = digits(IMAGES)
    y = model(x).argmax(1)
    with prepared(model, x) as ready:
        for spec, limit in ATTACKS.items():
            attack = make_attack(spec)
            minimal = attack.kind == "minimal"

            def seconds(part: slice, attack: object = attack, minimal: bool = minimal) -> tuple[float, Tensor]:
                began = time.perf_counter()
                out = run_attack(
                    ready, attack, x[part], y[part], norm="linf", ids=ids[part],
                    eps=float("inf") if minimal else EPS, goal="minimise" if minimal else "break",
                )  # fmt: skip
                return time.perf_counter() - began, out.forwards

            seconds(slice(0, 1))  # warm up
            alone = [seconds(slice(k, k + 1)) for k in range(ALONE)]
            together, forwards = seconds(slice(0, IMAGES))
            one = sum(t for t, _ in alone) / ALONE
            assert [int(n) for _, n in alone] == forwards[:ALONE].tolist()
            print(
                f"{spec}: {together / (IMAGES * one):.2f}  ({together:.2f} s for {IMAGES}, {one:.2f} s for one; "
                f"{forwards.float().mean():.0f} forwards an image)  limit {limit}"
            )


if __name__ == "__main__":
    main()
