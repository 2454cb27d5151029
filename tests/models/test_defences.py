"""Input defences: what the model sees, through which gradient it is attacked, and how they are named."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import aresbench as ab
from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.data.base import load_images
from aresbench.data.load import load_dataset
from aresbench.models.defences import BitDepth, Jpeg, ResizePad, describe, make_defence


@pytest.fixture(scope="module")
def plain():
    return ab.load_model("samples:digits-plain")


@pytest.fixture(scope="module")
def digits(plain):
    data = load_dataset("digits")[:24]
    x, _, _ = load_images(data, range(24), plain.preprocessing)
    return x, torch.tensor(data.labels)


@pytest.fixture
def photographs():
    """Smooth colours with an edge and noise, in values that lie between the grey levels: [3, 3, 40, 56]."""
    draws = torch.Generator().manual_seed(1)
    ramp = torch.linspace(0, 1, 56).expand(3, 3, 40, 56) * torch.rand(3, 3, 1, 1, generator=draws)
    return (ramp + 0.2 * torch.rand(3, 3, 40, 56, generator=draws)).clamp(0, 1)


def gradient(model, x, y):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(nn.functional.cross_entropy(model(x), y, reduction="sum"), x)[0]


@pytest.mark.parametrize("quality", [75, 10])
def test_jpeg_is_pillows_to_the_bit(photographs, quality):
    found = Jpeg(quality)(photographs)
    for image, mine in zip(photographs, found, strict=True):
        pixels = np.rint(image.numpy() * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        theirs = np.asarray(Image.open(file)).astype(np.float32).transpose(2, 0, 1) / np.float32(255)
        assert np.array_equal(mine.numpy(), theirs)


def test_bit_depth_keeps_the_nearest_levels(photographs):
    found = BitDepth(2)(photographs)
    assert sorted({round(v * 3) for v in found.flatten().tolist()}) == [0, 1, 2, 3]
    assert (found - photographs).abs().max() <= 1 / 6 + 1e-6
    assert torch.equal(BitDepth(8)(torch.arange(256) / 255), torch.arange(256) / 255)


def test_resize_pad_shrinks_each_image_by_its_own_draw_and_pads_with_black():
    x = torch.arange(1, 31).float().expand(200, 3, 30, 30) / 30  # column k shows (k + 1) / 30
    torch.manual_seed(0)
    found = ResizePad(0.8)(x)
    assert found.shape == x.shape
    shown = (found[:, 0] > 0).flatten(1).sum(1)
    sides = shown.float().sqrt()
    assert torch.equal(sides, sides.round())
    assert (sides.min(), sides.max()) == (24, 30) and len(set(sides.tolist())) == 7
    for image, side in zip(found[:20, 0], sides[:20].int().tolist(), strict=True):
        rows = image[image.amax(1) > 0]
        columns = rows[:, rows.amax(0) > 0]
        expected = torch.tensor([(k * 30 // side + 1) / 30 for k in range(side)])  # nearest neighbours
        assert torch.allclose(columns, expected.expand(side, side))
    corners = {
        (int((image[0].amax(1) > 0).int().argmax()), int((image[0].amax(0) > 0).int().argmax())) for image in found
    }
    assert len(corners) > 20, "it is put anywhere on the canvas"


def test_a_draw_each_pass_and_the_true_gradient(plain, digits):
    x, y = digits
    model = ab.defend(plain, "resize-pad")
    torch.manual_seed(3)
    slope = gradient(model, x, y)
    torch.manual_seed(3)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))
    step = 1e-3 * slope / slope.flatten(1).norm(dim=1)[:, None, None, None]
    losses = []
    for point in (x - step, x + step):
        torch.manual_seed(3)
        losses.append(nn.functional.cross_entropy(model(point).double(), y, reduction="none"))
    wanted = 2e-3 * slope.flatten(1).norm(dim=1)
    strong = wanted > 1e-5
    assert strong.sum() > 3
    assert torch.allclose((losses[1] - losses[0])[strong].float(), wanted[strong], rtol=0.1)


@pytest.mark.parametrize("spec", ["jpeg(quality=30)", "bit-depth(bits=2)"])
def test_the_gradient_is_the_models_own_at_the_changed_image(plain, digits, spec):
    x, y = digits
    model = ab.defend(plain, spec)
    changed = make_defence(spec)(x)
    assert torch.equal(model(x), plain(changed))
    assert torch.equal(gradient(model, x, y), gradient(plain, changed, y))
    blind = ab.defend(plain, spec.replace(")", ", gradient=none)"))
    assert torch.equal(blind(x), plain(changed))
    image = x.clone().requires_grad_(True)
    assert torch.autograd.grad(blind(image).sum(), image, allow_unused=True) == (None,), "the true gradient"


@pytest.mark.parametrize("spec", ["jpeg(quality=75", "bit-depth(bits=3"])
def test_straight_through_breaks_what_no_gradient_leaves_standing(plain, digits, spec):
    x, y = digits
    blind = ab.attack(ab.defend(plain, f"{spec}, gradient=none)"), x, y, "pgd(steps=10)", "linf:0.1")
    through = ab.attack(ab.defend(plain, f"{spec})"), x, y, "pgd(steps=10)", "linf:0.1")
    assert blind.broken.float().mean() < 0.3
    assert through.broken.float().mean() > 0.9
    assert int(blind.zero_gradients.sum()) == int(blind.backwards.sum()) and not through.zero_gradients.any()


def test_names_fingerprints_and_cards(plain):
    spec = "samples:digits-plain + jpeg(quality=75)"
    model = ab.load_model(spec)
    assert model.name == spec and model.card["defence"] == "jpeg(quality=75)"
    assert model.classes == plain.classes and model.preprocessing == plain.preprocessing
    assert model.card["mean"] == plain.card["mean"] and model.published == {}
    assert not model.training and not any(m.training for m in model.modules())
    others = ["jpeg(quality=74)", "jpeg(gradient=none)", "bit-depth", "resize-pad"]
    prints = [plain.fingerprint, model.fingerprint, *(ab.defend(plain, other).fingerprint for other in others)]
    assert len(set(prints)) == len(prints)
    assert ab.defend(plain, "jpeg").fingerprint == model.fingerprint
    assert ab.defend(plain, "jpeg(gradient=none)").name == "samples:digits-plain + jpeg(quality=75, gradient=none)"


def test_the_last_defence_named_meets_the_image_first(plain, digits):
    x, _ = digits
    both = ab.load_model("samples:digits-plain + bit-depth(bits=3) + jpeg(quality=20)")
    assert both.name == "samples:digits-plain + bit-depth(bits=3) + jpeg(quality=20)"
    assert both.card["defence"] == "bit-depth(bits=3), jpeg(quality=20)"
    assert torch.equal(both(x), plain(BitDepth(3)(Jpeg(20)(x))))


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("jpg", UnknownName, "jpeg"),
        ("jpeg(75)", SpecError, "quality=75"),
        ("jpeg(qualty=75)", SpecError, "quality"),
        ("jpeg(quality=100)", SpecError, "1 to 95"),
        ("bit-depth(bits=2.5)", SpecError, "1 to 8"),
        ("bit-depth(gradient=straight)", SpecError, "straight-through"),
        ("resize-pad(smallest=0)", SpecError, "smallest"),
        ("torch.nn:ReLU", SpecError, "not a defence"),
    ],
)
def test_what_is_refused(plain, spec, error, words):
    with pytest.raises(error, match=words):
        ab.load_model(f"samples:digits-plain + {spec}")


def test_a_bare_module_and_the_wrong_channels_are_refused():
    with pytest.raises(ModelError, match="not a Classifier"):
        ab.defend(nn.Identity(), "jpeg")
    with pytest.raises(ModelError, match="1 channels"):
        Jpeg()(torch.zeros(1, 1, 8, 8))


def test_a_defence_of_ones_own(tmp_path, plain, digits, monkeypatch):
    text = (
        "from dataclasses import dataclass\nfrom aresbench.models.defences import Defence\n"
        "@dataclass(frozen=True)\nclass Darker(Defence):\n    '''Darker images.'''\n    share: float = 0.5\n"
        "    differentiable = True\n    revision = 1\n    paper = 'none'\n    choose_when = 'never'\n"
        "    def __call__(self, x):\n        return x * self.share\n"
    )
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    model = ab.load_model("samples:digits-plain + ./mine.py:Darker(share=0.25)")
    assert torch.equal(model(digits[0]), plain(digits[0] * 0.25))
    assert model.name.endswith("+ Darker(share=0.25)")


def test_bpda_around_any_change(plain, digits):
    x, y = digits

    def through_numpy(images):
        return torch.from_numpy(np.rint(images.numpy() * 4) / np.float32(4))

    guarded = ab.Bpda(through_numpy, plain)
    assert torch.equal(guarded(x), plain(through_numpy(x)))
    assert torch.equal(gradient(guarded, x, y), gradient(plain, through_numpy(x), y))
    assert ab.attack(guarded, x, y, "pgd(steps=10)", "linf:0.15").broken.float().mean() > 0.9
    one, other = (ab.Classifier(ab.Bpda(f, plain), classes=10) for f in (through_numpy, lambda x: x))
    assert one.fingerprint != other.fingerprint


def test_bpda_with_a_substitute(digits):
    x, y = digits
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    with pytest.raises(ModelError, match="substitute"):
        ab.Bpda(lambda x: x[:, :, ::2, ::2].round(), net)(x)

    def substitute(images):
        return images[:, :, ::2, ::2]

    guarded = ab.Bpda(lambda x: x[:, :, ::2, ::2].round(), net, substitute)
    assert torch.equal(guarded(x), net(x[:, :, ::2, ::2].round()))
    slope = gradient(guarded, x, y)
    assert slope[:, :, ::2, ::2].any() and not slope[:, :, 1::2].any()


def test_settings_survive_the_text():
    for defence in (Jpeg(), Jpeg(30, "none"), BitDepth(3), ResizePad(0.5)):
        assert make_defence(describe(defence)) == defence
