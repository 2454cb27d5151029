"""What every registered corruption promises, whatever it does to an image."""

from __future__ import annotations

import dataclasses
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from aresbench.core.errors import DataError, SpecError
from aresbench.core.registry import TABLES, card
from aresbench.corruptions.base import MODES, Corruption
from aresbench.corruptions.load import corrupt, make_corruption
from aresbench.ops.random import Streams

NAMES = sorted(TABLES["corruptions"])
RANDOM = [n for n in NAMES if make_corruption(n, 3).draws(Streams(0, n, ["a"]), 8, 8)]
IDS = ["a", "b", "c", "d", "e"]

# Each severity a larger change of every picture than the one below. The others are harder to classify but not further
# away (saturate takes colour away, then adds it; pixelate's squares may fall in with the picture's), or change in
# shape.
RISING = {
    "brightness",
    "contrast",
    "defocus_blur",
    "gaussian_blur",
    "gaussian_noise",
    "impulse_noise",
    "jpeg_compression",
    "shot_noise",
    "speckle_noise",
}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(name: str, x: Tensor, ids: list[str], severity: int = 3, seed: int = 0) -> Tensor:
    corruption = make_corruption(name, severity)
    return corruption(x, Streams(seed, corruption.component, ids))


def test_result_is_8_bit_and_keeps_shape_dtype_and_device(name: str, photos: Tensor) -> None:
    for dtype in (torch.float32, torch.float64):
        x = photos.to(dtype)
        result = run(name, x, IDS)
        assert (result.shape, result.dtype, result.device) == (x.shape, dtype, x.device)
        levels = (result.double() * 255).round()
        assert levels.min() >= 0 and levels.max() <= 255
        assert torch.equal(result, (levels / 255).to(dtype) if dtype == torch.float64 else levels.float() / 255)
        assert not torch.equal(result, x)


def test_float32_and_float64_images_get_the_same_levels(name: str, photos: Tensor) -> None:
    exact = (photos.double() * 255).round() / 255
    assert torch.equal(run(name, photos, IDS), run(name, exact, IDS).float())


def test_input_and_global_random_state_are_left_alone(name: str, photos: Tensor) -> None:
    x = photos.clone().requires_grad_()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    python_state = random.getstate()
    result = run(name, x, IDS)
    assert torch.equal(x, photos) and x.grad is None and not result.requires_grad
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert random.getstate() == python_state
    exact = photos.double()
    run(name, exact, IDS)
    assert torch.equal(exact, photos.double())


@pytest.mark.parametrize("size", [(40, 36), (270, 260)])  # larger than what is worked on in one go, and smaller
def test_batch_is_the_same_as_its_images_one_by_one(name: str, size: tuple[int, int], photos: Tensor) -> None:
    x = torch.nn.functional.interpolate(photos, size)
    whole = run(name, x, IDS)
    for i, image_id in enumerate(IDS):
        assert torch.equal(whole[i : i + 1], run(name, x[i : i + 1], [image_id]))


def test_many_small_images_are_the_same_as_one_by_one(name: str, photos: Tensor) -> None:
    """On a CPU a batch is worked on in parts, here of 46 images: the ends of the parts must not show."""
    x = photos.repeat(20, 1, 1, 1)
    ids = [str(i) for i in range(100)]
    whole = run(name, x, ids)
    for i in (0, 45, 46, 92, 99):
        assert torch.equal(run(name, x[i : i + 1], [ids[i]])[0], whole[i])
    assert torch.equal(torch.cat([run(name, x[part], ids[part]) for part in (slice(60), slice(60, 100))]), whole)


@pytest.mark.parametrize(("side", "images"), [(32, 5), (64, 5), (224, 2), (299, 1)])
def test_every_severity_at_every_size_of_the_benchmark(name: str, side: int, images: int, photos: Tensor) -> None:
    x = torch.nn.functional.interpolate(photos[:images], (side, side))
    before = x.clone()
    for severity in (1, 2, 3, 4, 5):
        result = run(name, x, IDS[:images], severity)
        levels = result * 255
        assert (result.shape, result.dtype) == (x.shape, x.dtype)
        assert levels.min() >= 0 and levels.max() <= 255 and (levels - levels.round()).abs().max() < 1e-4
        assert torch.equal(run(name, x[-1:], IDS[images - 1 : images], severity)[0], result[-1])
        assert (result != x).flatten(1).any(1).all()
        if side <= 64:
            exact = (x.double() * 255).round() / 255
            assert torch.equal(run(name, exact, IDS[:images], severity).float(), result)
    assert torch.equal(x, before)


def test_values_between_the_levels_do_not_change_their_neighbours(name: str, photos: Tensor) -> None:
    """An image is read as 8 bits where it is, value by value; one that is not makes no difference to the others."""
    between = (photos[1:2] * 0.9 + 0.013).clamp(0, 1)
    both = run(name, torch.cat((photos[:1], between)), ["a", "b"])
    assert torch.equal(both[:1], run(name, photos[:1], ["a"]))
    assert torch.equal(both[1:], run(name, between, ["b"]))
    levels = both * 255
    assert levels.min() >= 0 and levels.max() <= 255 and (levels - levels.round()).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(64, 41), (33, 70), (8, 5), (5, 8), (2, 2), (1, 9), (1, 1)])
@pytest.mark.parametrize("severity", [1, 5])
def test_any_size_works_or_is_refused_with_the_reason(
    name: str, severity: int, size: tuple[int, int], photos: Tensor
) -> None:
    x = photos[:2, :, : size[0], : size[1]] if max(size) < 36 else torch.nn.functional.interpolate(photos[:2], size)
    refused = None
    try:
        result = run(name, x, IDS[:2], severity)
    except DataError as error:
        refused = error
    if refused:
        assert min(size) < 32 and refused.remedy and "×".join(map(str, size)) in refused.problem
        return
    assert result.shape == x.shape and result.min() >= 0 and result.max() <= 1
    for i in range(2):
        assert torch.equal(run(name, x[i : i + 1], [IDS[i]], severity)[0], result[i])


def test_order_does_not_matter(name: str, photos: Tensor) -> None:
    order = [3, 0, 4, 1, 2]
    assert torch.equal(run(name, photos[order], [IDS[i] for i in order]), run(name, photos, IDS)[order])


def test_memory_layout_does_not_matter(name: str, photos: Tensor) -> None:
    assert torch.equal(run(name, photos.to(memory_format=torch.channels_last), IDS), run(name, photos, IDS))


def test_apply_with_the_draws_is_the_call(name: str, photos: Tensor) -> None:
    corruption = make_corruption(name, 2)
    streams = Streams(5, corruption.component, IDS)
    draws = corruption.draws(streams, 40, 36)
    assert all(len(values) == 5 for values in draws.values())
    before = {key: values.clone() for key, values in draws.items()}
    assert torch.equal(corruption.apply(photos, draws), corruption(photos, streams))
    assert all(torch.equal(values, before[key]) for key, values in draws.items())


@pytest.mark.parametrize("name", RANDOM)
def test_seed_id_and_severity_change_the_draws(name: str, photos: Tensor) -> None:
    same = photos[:1].expand(2, -1, -1, -1)
    one, other = run(name, same, ["a", "b"])
    assert not torch.equal(one, other)
    assert torch.equal(run(name, same, ["a", "a"])[1], one)
    assert not torch.equal(run(name, same, ["a", "b"], seed=1)[0], one)
    draws = [c.draws(Streams(0, c.component, ["a"]), 40, 36) for c in (make_corruption(name, s) for s in (1, 2))]
    assert any(not torch.equal(draws[0][key], draws[1][key]) for key in draws[0].keys() & draws[1].keys())


@pytest.mark.parametrize("name", sorted(RISING & set(NAMES)))
def test_higher_severity_is_further_from_the_clean_image(name: str, photos: Tensor) -> None:
    for size in ((32, 32), (64, 64), (224, 224)):
        x = torch.nn.functional.interpolate(photos[:3], size)
        distances = [float((run(name, x, IDS[:3], s) - x).square().mean().sqrt()) for s in (1, 2, 3, 4, 5)]
        assert distances == sorted(distances)
        assert len(set(distances)) == len(distances)
        assert distances[0] > 0


def test_the_doses_are_five_for_each_size_of_the_benchmark(name: str) -> None:
    doses = type(make_corruption(name, 1)).doses
    assert sorted(doses) == [32, 64, 224, 299]
    assert all(len(five) == len(set(five)) == 5 for five in doses.values())


@pytest.mark.parametrize("severity", [0, 6, -1, 2.0, "3", True, None])
def test_unknown_severity_is_refused(name: str, severity: object) -> None:
    with pytest.raises(SpecError, match="severity") as caught:
        make_corruption(name, severity)  # type: ignore[arg-type]
    assert "1, 2, 3, 4 or 5" in caught.value.remedy


def test_unknown_mode_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="unknown corruption mode 'memroy'") as caught:
        make_corruption(name, 1, "memroy")
    assert "'memory'" in caught.value.remedy
    with pytest.raises(SpecError, match="unknown corruption mode 'jpeg'") as caught:
        make_corruption(name, 1, "jpeg")
    assert "memory, disk or imagecorruptions" in caught.value.remedy


def test_disk_is_memory_saved_as_jpeg_of_quality_85(name: str, photos: Tensor) -> None:
    memory, disk = (make_corruption(name, 3, mode) for mode in ("memory", "disk"))
    kept = memory(photos, Streams(0, memory.component, IDS))
    for result, levels in zip(disk(photos, Streams(0, disk.component, IDS)), kept, strict=True):
        file = io.BytesIO()
        pixels = (levels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=85, optimize=True)
        assert np.array_equal((result * 255).round().permute(1, 2, 0).numpy(), np.array(Image.open(file)))


def test_imagecorruptions_takes_the_doses_of_224_px_at_every_size(name: str) -> None:
    for severity in (1, 2, 3, 4, 5):
        corruption = make_corruption(name, severity, "imagecorruptions")
        wanted = make_corruption(name, severity).describe(224, 224)
        for height, width in ((32, 32), (64, 90), (224, 224), (1000, 800)):
            described = corruption.describe(height, width)
            assert (described["mode"], described["parameter_set"]) == ("imagecorruptions", 224)
            if name != "elastic_transform":  # that package's is another algorithm, with parameters of its own
                assert described["parameters"] == wanted["parameters"]


def test_modes_are_different_records(name: str) -> None:
    made = [make_corruption(name, 2, mode) for mode in MODES]
    assert [c.describe()["mode"] for c in made] == ["memory", "disk", "imagecorruptions"]
    assert len(set(made)) == 3
    assert len({c.component for c in made}) == 1  # and the same draws: they differ by the protocol alone


@pytest.mark.parametrize(
    ("x", "problem"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), "must be a torch tensor"),
        (torch.zeros(3, 8, 8), "must have the shape"),
        (torch.zeros(1, 1, 8, 8), "must have the shape"),
        (torch.zeros(1, 8, 8, 3), "must have the shape"),
        (torch.zeros(1, 3, 0, 8), "must have the shape"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "must be float32 or float64"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float16), "must be float32 or float64"),
        (torch.full((1, 3, 8, 8), 255.0), r"must lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), -0.01), r"must lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), float("nan")), r"must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(name: str, x: Tensor, problem: str) -> None:
    corruption = make_corruption(name, 1)
    with pytest.raises(DataError, match=problem) as caught:
        corruption(x, Streams(0, corruption.component, ["a"]))
    assert caught.value.remedy
    with pytest.raises(DataError, match=problem):
        corruption.apply(x, {})
    with pytest.raises(DataError, match=problem):
        corrupt(x, name, 1)


def test_streams_must_be_as_many_as_images(name: str, photos: Tensor) -> None:
    with pytest.raises(DataError, match="5 images but 2 random streams"):
        run(name, photos, ["a", "b"])


def test_empty_batch_stays_empty(name: str) -> None:
    assert run(name, torch.zeros(0, 3, 8, 8), []).shape == (0, 3, 8, 8)


def test_record_names_everything_that_decides_the_numbers(name: str) -> None:
    corruption = make_corruption(name, 4)
    assert corruption.describe() == {"name": name, "severity": 4, "mode": "memory", "revision": corruption.revision}
    described = corruption.describe(224, 300)
    assert described["parameter_set"] == 224
    assert described["parameters"] != make_corruption(name, 3).describe(224, 300)["parameters"]
    sides = [(1, 32), (45, 32), (46, 64), (119, 64), (120, 224), (258, 224), (259, 299), (1024, 299)]
    assert [corruption.describe(side, 2000)["parameter_set"] for side, _ in sides] == [s for _, s in sides]


def test_settings_are_a_frozen_record_and_the_card_agrees(name: str) -> None:
    corruption = make_corruption(name, 4)
    assert corruption == make_corruption(name, 4) != make_corruption(name, 5)
    assert repr(corruption) == f"{type(corruption).__name__}(severity=4, mode='memory')"
    with pytest.raises(dataclasses.FrozenInstanceError):
        corruption.severity = 1  # type: ignore[misc]
    facts = card("corruptions", name).facts
    assert card("corruptions", name).summary
    assert isinstance(corruption, Corruption) and corruption.name == name
    for fact in ("name", "family", "paper", "revision"):
        assert facts[fact] == getattr(corruption, fact)
    assert facts["family"] in ("noise", "blur", "weather", "digital")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_levels_of_the_cpu(name: str, photos: Tensor) -> None:
    corruption = make_corruption(name, 3)
    x = torch.nn.functional.interpolate(photos, (224, 224))
    draws = corruption.draws(Streams(0, corruption.component, IDS), 224, 224)
    result = corruption.apply(x.cuda(), draws)
    assert result.is_cuda
    difference = ((result.cpu() - corruption.apply(x, draws)) * 255).round().abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() <= 3e-5
    own = corruption(x.cuda(), Streams(0, corruption.component, IDS, "cuda"))
    assert ((own - result).abs() > 0.5 / 255).float().mean() <= 3e-5
