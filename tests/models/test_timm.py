"""timm models come with the preprocessing that belongs to their weights. No network here."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config

from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.load import load_model
from aresbench.models.sources.timm import TimmSource, preprocessing_of, resolve

SMALL = "test_resnet.r160_in1k"  # timm's own test network, 0.5 M parameters


def test_preprocessing_is_timms_own() -> None:
    model = load_model(f"timm:{SMALL}?pretrained=false")
    data = resolve_model_data_config(timm.create_model(SMALL))
    steps = create_transform(**data, is_training=False).transforms
    assert model.preprocessing == Preprocessing(data["input_size"][1:], steps[0].size, data["interpolation"])
    assert list(steps[1].size) == list(model.preprocessing.size)
    assert model.mean is not None and torch.equal(model.mean.flatten(), steps[-1].mean)
    assert torch.equal(model.std.flatten(), steps[-1].std)
    assert model.card["architecture"] == "test_resnet" and model.card["family"] == "resnet"


def test_imagenet_names_come_with_in1k_weights() -> None:
    model = load_model(f"timm:{SMALL}?pretrained=false")
    assert model.classes is not None and len(model.classes) == 1000
    assert model.classes.ids[1] == "n01443537" and model.classes.names[1] == "goldfish, Carassius auratus"
    assert not model.training


@pytest.mark.parametrize(
    ("mode", "pct", "expected"),
    [
        ("center", 0.875, Preprocessing((260, 260), 297, "bicubic")),
        ("center", 0.95, Preprocessing((260, 260), 273, "bicubic")),
        ("squash", 1.0, Preprocessing((260, 260), None, "bicubic", squash=True)),
    ],
)
def test_resize_follows_timms_rule(mode: str, pct: float, expected: Preprocessing) -> None:
    cfg = {"input_size": (3, 260, 260), "crop_pct": pct, "crop_mode": mode, "interpolation": "bicubic"}
    assert preprocessing_of(cfg) == expected


def test_a_transform_that_is_not_known_is_refused() -> None:
    with pytest.raises(ModelError, match="crop mode 'border'"):
        preprocessing_of(
            {"input_size": (3, 224, 224), "crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"}
        )


def test_random_weights_are_fixed_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, second = (load_model(f"timm:{SMALL}?pretrained=false") for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.fingerprint == second.fingerprint
    assert any("never trained" in note for note in first.card["notes"])
    assert first.name == f"timm:{SMALL}?pretrained=false"


def test_an_ambiguous_name_is_refused_and_all_tags_offered() -> None:
    with pytest.raises(SpecError, match=r"timm:resnet50 could mean \d+ sets of weights") as caught:
        load_model("timm:resnet50")
    assert "timm:resnet50.a1_in1k" in caught.value.remedy and "tv_in1k" in caught.value.remedy


def test_a_name_with_one_tag_needs_none() -> None:
    assert resolve("tf_efficientnet_lite0") == "tf_efficientnet_lite0.in1k"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet5", "did you mean 'resnet50'"),
        ("timm:resnet50.a1in1k", "did you mean 'resnet50.a1_in1k'"),
        ("timm:resnet50.zzzzzzzzzz", "there are timm:resnet50.a1_in1k"),
    ],
)
def test_unknown_names_are_corrected(spec: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        load_model(spec)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(ModelError, match="gives features, not classes"):
        load_model("timm:vit_small_patch14_dinov2.lvd142m?pretrained=false")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=f"the weights of timm:{SMALL} could not be fetched") as caught:
        load_model(f"timm:{SMALL}")
    assert f"?arch=timm:{SMALL}" in caught.value.remedy and "HF_HUB_OFFLINE" in caught.value.remedy


def test_options_are_checked() -> None:
    with pytest.raises(SpecError, match="did you mean 'pretrained'"):
        load_model("timm:resnet18?pretraned=false")
    with pytest.raises(SpecError, match="neither true nor false"):
        load_model("timm:resnet18.a1_in1k?pretrained=maybe")
    with pytest.raises(SpecError, match="given twice"):
        load_model("timm:resnet18?pretrained=false", pretrained=False)


def test_names_are_listed_on_request() -> None:
    assert "resnet50.a1_in1k" in TimmSource().names()
