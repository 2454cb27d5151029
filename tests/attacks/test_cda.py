"""CDA: what the user's generator makes, in the ball and in the box, asked about once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from aresbench.attacks import geometry
from aresbench.attacks.cda import CDA
from aresbench.attacks.load import describe, make_attack
from aresbench.core.errors import SpecError, UnknownName
from aresbench.core.registry import card

GENERATORS = '''
import torch
from torch import nn

class Lift(nn.Module):
    """Brighter on the left, darker on the right; in training mode nothing."""

    def forward(self, x):
        if self.training:
            return x
        side = torch.linspace(0.5, -0.5, x.shape[3])
        return x + side

class Broken(Lift):
    def forward(self, x):
        return torch.full_like(x, float("nan"))

class Small(Lift):
    def forward(self, x):
        return x[:, :, :-1]

class Fails(Lift):
    def forward(self, x):
        raise RuntimeError("out of ideas")

made = Lift().train()
number = 3
'''


@pytest.fixture(autouse=True)
def generators(tmp_path, monkeypatch):
    (tmp_path / "made.py").write_text(GENERATORS)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["Lift", "made"])
def test_the_generators_picture_is_brought_into_ball_and_box(linear, run, name, norm):
    model, x, y = linear(edges=True)
    eps = {"linf": 0.1, "l2": 1.0}[norm]
    out = run(model, CDA(f"./made.py:{name}"), x, y, norm, eps, goal="maximise")
    wanted = geometry.project(x + torch.linspace(0.5, -0.5, 6), x, torch.full((32,), eps), norm)
    torch.testing.assert_close(out.x_adv, wanted)
    assert (out.forwards + out.backwards == 0).all()


def test_the_model_is_asked_about_it_once(linear, run):
    model, x, y = linear()
    out = run(model, CDA("./made.py:Lift"), x, y, "linf", 0.5)
    assert out.broken.any()
    assert (out.forwards == 1 + out.broken.long()).all()  # the judge asks again about a break
    assert (out.backwards == 0).all()


def test_smoothing_is_that_of_a_gaussian_of_three_pixels(linear, run):
    model, x, y = linear(shape=(3, 8, 6))
    line = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
    kernel = (line[:, None] * line).div(line.sum() ** 2).expand(3, 1, 3, 3)
    made = F.conv2d(x + torch.linspace(0.5, -0.5, 6), kernel, padding=1, groups=3)
    wanted = geometry.project(made, x, torch.full((32,), 0.2), "linf")
    out = run(model, CDA("./made.py:Lift", smooth=True), x, y, "linf", 0.2, goal="maximise")
    torch.testing.assert_close(out.x_adv, wanted)


def test_values_that_are_no_numbers_leave_the_image_alone(linear, run):
    model, x, y = linear()
    out = run(model, CDA("./made.py:Broken"), x, y, "linf", 0.5)
    assert not out.broken.any()
    assert torch.equal(out.x_adv, x)


def test_its_text_reads_back():
    attack = make_attack("cda(generator=./made.py:Lift, smooth=true)")
    assert attack == CDA("./made.py:Lift", smooth=True)
    assert describe(attack) == "cda(generator=./made.py:Lift, smooth=true)"
    assert card("attacks", "cda").settings["generator"] == ""


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("cda", SpecError, "needs generator"),
        ("cda(generator=gan)", SpecError, r"cda\(generator=./generator.py:make\)"),
        ("cda(generator=./made.py:Lif)", UnknownName, "did you mean 'Lift'"),
        ("cda(generator=./nowhere.py:Lift)", UnknownName, "no file"),
        ("cda(generator=./made.py:number)", SpecError, "is no generator"),
        ("cda(generator=./made.py:Small)", SpecError, r"makes \[4, 3, 7, 6\] of images of shape \[4, 3, 8, 6\]"),
        ("cda(generator=./made.py:Fails)", SpecError, "out of ideas"),
    ],
)
def test_mistakes_are_named_with_the_remedy(linear, run, text, error, says):
    model, x, y = linear(n=4)
    with pytest.raises(error, match=says):
        run(model, make_attack(text), x, y, "linf", 0.1)
