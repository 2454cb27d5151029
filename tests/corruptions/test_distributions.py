"""Do the draws have the right distribution? Fixed seeds; thresholds at five standard errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from aresbench.corruptions.load import make_corruption
from aresbench.corruptions.weather import plasma
from aresbench.ops.random import Streams

NOISES = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot_noise": (60, 25, 12, 5, 3),
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),
}


def noisy_levels(name: str, grey: int, severity: int) -> np.ndarray:
    """The levels of a flat grey image under noise: about 300,000 values."""
    corruption = make_corruption(name, severity)
    x = torch.full((2, 3, 224, 224), grey / 255)
    noisy = corruption(x, Streams(1, corruption.component, ["a", "b"]))
    return (noisy * 255).round().to(torch.int64).flatten().numpy()


def level_probabilities(name: str, grey: int, dose: float) -> np.ndarray:
    """The chance of each level 0…255 of a grey value under noise, in closed form."""
    chances = np.zeros(256)
    if name == "impulse_noise":
        np.add.at(chances, [grey, 0, 255], [1 - dose, dose / 2, dose / 2])
        return chances
    if name == "shot_noise":
        counts = np.arange(10 * dose)
        levels = np.floor(np.minimum(counts / dose, 1) * 255).astype(int)
        np.add.at(chances, levels, stats.poisson.pmf(counts, dose * grey / 255))
        return chances / chances.sum()
    sigma = dose if name == "gaussian_noise" else dose * grey / 255
    if sigma == 0:
        chances[grey] = 1
        return chances
    below = stats.norm.cdf(np.arange(1, 256) / 255, grey / 255, sigma)
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("grey", [0, 60, 200, 255])
@pytest.mark.parametrize("name", NOISES)
def test_noise_has_the_closed_form_distribution(name: str, grey: int, severity: int) -> None:
    levels = noisy_levels(name, grey, severity)
    expected = level_probabilities(name, grey, NOISES[name][severity - 1])
    k = np.arange(256)
    mean = (k * expected).sum()
    variance = ((k - mean) ** 2 * expected).sum()
    fourth = ((k - mean) ** 4 * expected).sum()
    n = len(levels)
    assert abs(levels.mean() - mean) <= 5 * math.sqrt(variance / n)
    assert abs(levels.var() - variance) <= 5 * math.sqrt((fourth - variance**2) / n)
    likely = expected * n >= 5
    counts = np.bincount(levels, minlength=256)
    observed = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum()) * n
    assert observed[wanted == 0].sum() == 0
    if (wanted > 0).sum() > 1:
        assert stats.chisquare(observed[wanted > 0], wanted[wanted > 0], sum_check=False).pvalue > 1e-6


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_impulse_noise_hits_its_share_of_values_half_of_them_salt(severity: int) -> None:
    levels = noisy_levels("impulse_noise", 100, severity)
    salt, pepper = int((levels == 255).sum()), int((levels == 0).sum())
    assert salt + pepper == (levels != 100).sum()
    assert stats.binomtest(salt + pepper, len(levels), NOISES["impulse_noise"][severity - 1]).pvalue > 1e-6
    assert stats.binomtest(salt, salt + pepper, 0.5).pvalue > 1e-6


def test_impulse_noise_hits_each_channel_for_itself() -> None:
    corruption = make_corruption("impulse_noise", 5)
    noisy = corruption(torch.full((1, 3, 224, 224), 0.5), Streams(0, corruption.component, ["a"]))
    hit = (noisy[0] * 255).round() != 127
    for one, other in ((0, 1), (0, 2), (1, 2)):
        both = int((hit[one] & hit[other]).sum())
        assert stats.binomtest(both, 224 * 224, 0.27**2).pvalue > 1e-6


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_independent_between_pixels_channels_and_images(name: str) -> None:
    corruption = make_corruption(name, 1)
    (draws,) = corruption.draws(Streams(0, corruption.component, ["a", "b"]), 224, 224).values()
    normal = draws.double() - draws.double().mean()
    pairs = {
        "images": (normal[0], normal[1]),
        "channels": (normal[:, 0], normal[:, 1]),
        "rows": (normal[:, :, 1:], normal[:, :, :-1]),
        "columns": (normal[..., 1:], normal[..., :-1]),
        "halves": (normal.flatten(1)[:, : 3 * 112 * 224], normal.flatten(1)[:, 3 * 112 * 224 :]),
    }
    for what, (a, b) in pairs.items():
        for power in (1, 2):  # squares too: Box–Muller pairs share a radius
            r = np.corrcoef((a**power).flatten(), (b**power).flatten())[0, 1]
            assert abs(r) < 5 / math.sqrt(a.numel()), (what, power)


MAPS = 300
SIDE = 64


def reliefs_and_references(decay: float) -> tuple[np.ndarray, np.ndarray]:
    """Reliefs from our streams, and from NumPy's generator."""
    corruption = make_corruption("fog", 3)
    streams = Streams(0, corruption.component, [str(i) for i in range(MAPS)])
    ours = corruption.draws(streams, SIDE, SIDE)["uniform"]
    theirs = torch.from_numpy(np.random.default_rng(0).random((MAPS, SIDE * SIDE - 1)))
    return plasma(ours, SIDE, decay).numpy(), plasma(theirs, SIDE, decay).numpy()


def assert_same_means(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Columns of per-map statistics have equal means within five standard errors."""
    error = np.sqrt(ours.var(0, ddof=1) / len(ours) + theirs.var(0, ddof=1) / len(theirs))
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * error).all()


@pytest.mark.parametrize("decay", [1.4, 2.0, 3.0])
def test_fog_has_the_quantiles_and_the_spectrum_of_the_reference(decay: float) -> None:
    ours, theirs = reliefs_and_references(decay)
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert_same_means(*(np.quantile(maps.reshape(MAPS, -1), levels, axis=1).T for maps in (ours, theirs)))

    frequency = np.fft.fftfreq(SIDE) * SIDE
    ring = np.hypot(*np.meshgrid(frequency, frequency)).round().astype(int)

    def spectrum(maps: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.fft2(maps)) ** 2
        return np.log(np.stack([power[:, ring == r].mean(1) for r in range(1, SIDE // 2)], 1))

    assert_same_means(spectrum(ours), spectrum(theirs))


def test_fog_draws_are_uniform_and_independent_between_levels() -> None:
    corruption = make_corruption("fog", 1)
    draws = corruption.draws(Streams(0, corruption.component, list("abcd")), 200, 224)["uniform"]
    assert draws.dtype == torch.float64 and draws.shape == (4, 256 * 256 - 1)
    assert stats.kstest(draws.flatten().numpy(), "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(draws[:, 1:].flatten(), draws[:, :-1].flatten())[0, 1]) < 5 / math.sqrt(draws.numel())
    assert len(draws.unique()) == draws.numel()
