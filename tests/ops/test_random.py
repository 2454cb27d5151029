"""Random numbers belong to the image: known answers, the right distributions, and nothing else matters."""

from __future__ import annotations

import pytest
import torch

from aresbench.ops import random
from aresbench.ops.random import Streams, key_of

IDS = [f"image/{k}" for k in range(40)]
DRAWS = {
    "uniform": lambda s, **o: s.uniform("x", (3, 7), **o),
    "uniform64": lambda s, **o: s.uniform("x", (3, 7), dtype=torch.float64, **o),
    "normal": lambda s, **o: s.normal("x", (3, 7), **o),
    "normal64": lambda s, **o: s.normal("x", (3, 7), dtype=torch.float64, **o),
    "integers": lambda s, **o: s.integers("x", 1000, (3, 7), **o),
    "signs": lambda s, **o: s.signs("x", (3, 7), **o),
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


def test_the_mixing_is_splitmix64():
    """The published first outputs of SplitMix64 for the seed 0."""
    words = random._mix(torch.arange(1, 4) * random._GOLDEN)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [int(w) % (1 << 64) for w in words] == expected


@every_draw
def test_an_image_draws_the_same_in_any_company(draw):
    whole = draw(Streams(3, "pgd", IDS))
    assert torch.equal(draw(Streams(3, "pgd", IDS[7:8]))[0], whole[7])
    assert torch.equal(draw(Streams(3, "pgd", IDS[::-1])), whole.flip(0))
    assert torch.equal(draw(Streams(3, "pgd", IDS).select(torch.tensor([5, 2]))), whole[[5, 2]])


@every_draw
def test_seed_component_purpose_step_and_image_all_matter(draw):
    base = draw(Streams(3, "pgd", IDS[:1]))
    others = [
        draw(Streams(4, "pgd", IDS[:1])),
        draw(Streams(3, "fgsm", IDS[:1])),
        draw(Streams(3, "pgd", IDS[1:2])),
        draw(Streams(3, "pgd", IDS[:1]), step=1),
    ]
    assert all(not torch.equal(base, other) for other in others)


@every_draw
def test_images_at_different_steps_draw_what_they_would_alone(draw):
    streams = Streams(0, "square", IDS[:3])
    mixed = draw(streams, step=torch.tensor([4, 0, 9]))
    for k, step in enumerate((4, 0, 9)):
        assert torch.equal(mixed[k], draw(streams, step=step)[k])


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for draw in DRAWS.values():
        draw(Streams(0, "x", IDS))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_moments(dtype):
    u = Streams(0, "u", IDS).uniform("u", (20_001,), dtype=dtype).double().flatten()
    n = len(u)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert abs(u.var() - 1 / 12) < 5 * (1 / 180 / n) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_moments(dtype):
    z = Streams(0, "z", IDS).normal("z", (20_001,), dtype=dtype).double().flatten()
    n = len(z)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 5 * (variance / n) ** 0.5
    inside = (z.abs() < 1.959964).double().mean()
    assert abs(inside - 0.95) < 5 * (0.95 * 0.05 / n) ** 0.5


def test_neighbours_are_uncorrelated():
    u = Streams(0, "u", IDS).uniform("u", (20_000,)).double() - 0.5
    for shifted in (u[:, 1:] * u[:, :-1], u[:, 2:] * u[:, :-2], u[1:] * u[:-1]):
        assert abs(shifted.mean()) < 5 * (1 / 144 / shifted.numel()) ** 0.5


@pytest.mark.parametrize("high", [2, 3, 10])
def test_integers_are_even(high):
    k = Streams(0, "k", IDS).integers("k", high, (3_000,)).flatten()
    counts = torch.bincount(k, minlength=high).double()
    assert len(counts) == high
    expected = len(k) / high
    assert (((counts - expected) ** 2 / expected).sum()) < 40


def test_integers_know_each_image_s_own_bound():
    k = Streams(0, "k", IDS[:3]).integers("k", torch.tensor([1, 5, 100]), (2_000,))
    assert k.amax(1).tolist() == [0, 4, 99]


def test_keys_do_not_run_words_together():
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of(1, 2) != key_of(12)
