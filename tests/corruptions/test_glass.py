"""Glass blur: no loop over the pixels, and yet what the loop gives, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from imagecorruptions import corruptions as package
from scipy import stats
from scipy.ndimage import gaussian_filter

from aresbench.corruptions.glass import GlassBlur, origins
from aresbench.corruptions.load import make_corruption
from aresbench.ops.random import Streams

# The published parameters, a second time on purpose: sigma, largest displacement, passes.
DOSES = {
    32: [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
    64: [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)],
    224: [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    299: [(0.8, 1, 3), (1, 3, 1), (1.1, 2, 4), (1.2, 4, 2), (1.6, 5, 2)],
}
SEVERITIES = (1, 2, 3, 4, 5)
Photo = Callable[[int, int], np.ndarray]


def walked(values: list, shift: np.ndarray, reach: int, height: int, width: int) -> list:
    """The published loop, pixel by pixel, on a list of rows; ``shift`` is the draws of one image."""
    for one_pass in shift:
        moves = iter(one_pass.reshape(-1, 2).tolist())
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = next(moves)
                values[h][w] = values[h + dy][w + dx]
        assert next(moves, None) is None
    return values


def walked_origins(shift: np.ndarray, reach: int, height: int, width: int) -> np.ndarray:
    places = np.arange(height * width).reshape(height, width).tolist()
    return np.array(walked(places, shift, reach, height, width)).ravel()


def truncate(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(values, 0, 1) * 255)


@pytest.mark.parametrize("side", DOSES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_levels_equal_the_loop_between_two_blurs(severity: int, side: int, photo: Photo) -> None:
    pixels = photo(side, side)
    sigma, reach, passes = DOSES[side][severity - 1]
    corruption = make_corruption("glass_blur", severity)
    draws = corruption.draws(Streams(1, corruption.component, ["photo"]), side, side)
    shift = draws["shift"][0].numpy()
    assert shift.shape == (passes, side - 2 * reach, side - 2 * reach, 2)

    def blur(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (sigma, sigma, 0), mode="nearest", truncate=4)

    rows = [list(row) for row in truncate(blur(pixels / 255.0))]
    wanted = truncate(blur(np.array(walked(rows, shift, reach, side, side)) / 255.0))
    for dtype in (torch.float64, torch.float32):
        x = (torch.tensor(pixels).permute(2, 0, 1)[None].double() / 255).to(dtype)
        ours = (corruption.apply(x, draws) * 255).round()[0].permute(1, 2, 0).numpy()
        assert np.array_equal(ours, wanted)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_levels_equal_those_of_the_package_with_the_same_draws(
    severity: int, photo: Photo, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = photo(224, 180)
    corruption = make_corruption("glass_blur", severity)
    draws = corruption.draws(Streams(2, corruption.component, ["photo"]), 224, 180)
    x = torch.tensor(pixels).permute(2, 0, 1)[None].double() / 255
    ours = (corruption.apply(x, draws) * 255).round().to(torch.uint8)[0].permute(1, 2, 0).numpy()

    moves = iter(draws["shift"].reshape(-1, 2).numpy())
    monkeypatch.setattr(np.random, "randint", lambda low, high, size: next(moves))
    monkeypatch.setattr(np.random, "seed", lambda seed: None)
    loop = package._shuffle_pixels_njit_glass_blur.py_func
    monkeypatch.setattr(package, "_shuffle_pixels_njit_glass_blur", loop)
    assert np.array_equal(ours, np.uint8(package.glass_blur(pixels, severity, seed=0)))
    assert next(moves, None) is None


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_origins_equal_the_loop_at_any_size(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    reach, passes, images = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = (images, passes, max(height - 2 * reach, 0), max(width - 2 * reach, 0), 2)
    favourite = data.draw(st.integers(-reach, reach - 1))  # many equal draws make long chains
    shift = np.where(rng.random(shape) < data.draw(st.floats(0, 1)), favourite, rng.integers(-reach, reach, shape))
    ours = origins(torch.from_numpy(shift), reach, height, width).numpy()
    for found, own in zip(ours, shift, strict=True):
        assert np.array_equal(found, walked_origins(own, reach, height, width))


def test_the_longest_chain_possible_is_followed_to_its_end() -> None:
    """Every pixel takes its right neighbour's value: the last column that may move is smeared over whole rows."""
    shift = torch.zeros(1, 1, 4, 96, 2, dtype=torch.int64)
    shift[..., 0] = 1
    origin = origins(shift, 2, 8, 100).reshape(8, 100)
    untouched = torch.arange(800).reshape(8, 100)
    assert torch.equal(origin[3:7, 3:99], untouched[3:7, 99:].expand(-1, 96))
    origin[3:7, 3:99] = untouched[3:7, 3:99]
    assert torch.equal(origin, untouched)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.538), (2, 0.524), (3, 0.280), (4, 0.330), (5, 0.318)])
def test_share_of_pixels_whose_value_survives(severity: int, share: float) -> None:
    """As measured with the package's loop at 224 px: values are copied over others, not swapped."""
    _, reach, _ = DOSES[224][severity - 1]
    corruption = make_corruption("glass_blur", severity)
    shift = corruption.draws(Streams(0, corruption.component, ["a", "b"]), 224, 224)["shift"]
    for origin in origins(shift, reach, 224, 224):
        assert len(origin.unique()) / 224**2 == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_draws_are_uniform_and_independent(severity: int) -> None:
    _, reach, passes = DOSES[224][severity - 1]
    corruption = GlassBlur(severity)
    shift = corruption.draws(Streams(0, corruption.component, ["a", "b"]), 224, 150)["shift"]
    assert (shift.dtype, shift.min(), shift.max()) == (torch.int64, -reach, reach - 1)
    pairs = ((shift[..., 0] + reach) * 2 * reach + shift[..., 1] + reach).flatten()
    assert stats.chisquare(np.bincount(pairs, minlength=4 * reach**2)).pvalue > 1e-6
    flat = shift.double().flatten(1)
    for a, b in ((flat[:, 1:], flat[:, :-1]), (flat[:, 2:], flat[:, :-2]), (flat[0], flat[1])):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 5 / math.sqrt(a.numel())
    assert len(shift.flatten(2).unique(dim=1).flatten(0, 1)) == 2 * passes


@pytest.mark.parametrize("severity", [3, 5])
def test_total_displacements_have_the_distribution_of_the_loop(severity: int) -> None:
    """Share of each total dx and of each total dy over 60 images, against the loop with NumPy's draws: five errors."""
    _, reach, _ = DOSES[224][severity - 1]
    images, side, far = 60, 40, 16
    corruption = make_corruption("glass_blur", severity, "imagecorruptions")
    ids = [str(i) for i in range(images)]
    ours = corruption.draws(Streams(0, corruption.component, ids), side, side)["shift"]
    rng = np.random.default_rng(0)
    theirs = rng.integers(-reach, reach, ours.shape)
    found = origins(ours, reach, side, side).numpy()
    wanted = np.stack([walked_origins(shift, reach, side, side) for shift in theirs])
    shares = []
    for origin in (found, wanted):
        row, column = np.divmod(np.arange(side * side), side)
        moves = (origin // side - row, origin % side - column)
        shares.append(np.concatenate([[(m == k).mean(1) for k in range(-far, far)] for m in moves]))
    error = np.sqrt((shares[0].var(1, ddof=1) + shares[1].var(1, ddof=1)) / images)
    seen = (shares[0] > 0).sum(1) > images // 2
    assert seen.sum() > 6 * reach
    assert (np.abs(shares[0].mean(1) - shares[1].mean(1))[seen] < 5 * error[seen]).all()


def test_images_too_small_for_a_displacement_are_only_blurred() -> None:
    corruption = make_corruption("glass_blur", 5, "imagecorruptions")  # Δ = 4
    draws = corruption.draws(Streams(0, corruption.component, ["a"]), 8, 30)
    assert draws["shift"].shape == (1, 2, 0, 22, 2)
    assert torch.equal(origins(draws["shift"], 4, 8, 30)[0], torch.arange(240))
    assert torch.equal(corruption.apply(torch.full((1, 3, 8, 30), 0.2), draws).unique(), torch.tensor([51 / 255]))
