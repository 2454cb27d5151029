"""The zoo: 61 + 10 models, each with its card, its explicit weights and the architecture it says it has."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.models import get_arch_pretrained_cfgs, is_model_pretrained

from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.models.architectures.denoising_resnet import DenoisingResNet
from aresbench.models.architectures.t2t_vit import T2TViT
from aresbench.models.load import load_model
from aresbench.models.sources.zoo import _published, build
from aresbench.models.state_dicts import LAYOUTS
from aresbench.models.zoo import Entry, checkpoint_path, entries, entry, sources

PAPER = [
    f"{stem}_{kind}"
    for stem, kinds in {
        "resnet50": ("normal", "moco", "at", "sota1", "sota2"),
        "resnet101": ("normal", "at"),
        "resnet152": ("normal", "at", "fd"),
        "wresnet50": ("normal", "at", "sota"),
        **dict.fromkeys(("vgg13", "vgg16", "vgg19", "densenet121", "densenet161", "densenet201"), ("normal",)),
        **dict.fromkeys(("convs", "convb", "convl"), ("normal", "21k")),
        **dict.fromkeys(("convnexts", "convnextb", "convnextl"), ("at",)),
        "swins": ("normal", "21k", "at"),
        "swinb": ("normal", "21k", "at"),
        "swinl": ("21k", "at"),
        "vits": ("normal", "21k", "at"),
        "vitb": ("normal", "21k", "at", "mae"),
        "vitl": ("normal", "21k", "mae"),
        **dict.fromkeys(("t2t14", "t2t19", "t2t24"), ("normal",)),
        **dict.fromkeys(("xcits", "xcitm", "xcitl"), ("normal", "sota")),
    }.items()
    for kind in kinds
]
CIFAR10 = ["at_he", "awp", "fast_at", "featurescatter", "hydra", "label_smoothing", "pre_training", "robust_overfiting"]
CIFAR10 += ["rst", "trades"]
TAGGED = [one for one in entries().values() if one.tag]
FILES = [one for one in entries().values() if not one.tag]


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARESBENCH_CHECKPOINTS", raising=False)


def test_it_holds_the_papers_models_six_of_our_choice_and_ten_for_cifar() -> None:
    imagenet = [one for one in entries().values() if one.dataset == "imagenet"]
    assert sorted(one.name for one in imagenet if one.choice == "paper") == sorted(PAPER)
    assert len([one for one in imagenet if one.choice == "ours"]) == 6
    assert [name for name in entries() if name.startswith("cifar10/")] == [f"cifar10/{name}" for name in CIFAR10]


def test_paradigms_are_counted_as_in_the_paper() -> None:
    assert Counter(entry(name).paradigm for name in PAPER) == {
        "normal": 24,
        "pre-trained": 9,
        "self-supervised": 3,
        "adversarially trained": 19,
    }
    ours = Counter(one.paradigm for one in entries().values() if one.choice == "ours")
    assert ours == {"multi-modal": 3, "self-supervised": 3}


@pytest.mark.parametrize("name", entries())
def test_every_card_is_complete(name: str) -> None:
    one = entry(name)
    assert one.family and one.data and one.licence and re.search(r"\b(19|20)\d\d\b", one.paper)
    assert (one.tag is None) == bool(one.mirrors), "either timm fetches the weights or mirrors are named"
    assert all(mirror.startswith("https://") for mirror in one.mirrors)
    assert one.sha256 == "" or re.fullmatch(r"[0-9a-f]{64}", one.sha256)
    assert one.layout in LAYOUTS
    assert one.choice in ("paper", "ours")
    assert one.verified or "never run with the authors' weights" in one.note
    assert one.preprocessing.size == ((224, 224) if one.dataset == "imagenet" else (32, 32))
    assert one.preprocessing.resize == (256 if one.dataset == "imagenet" else None)
    for source, numbers in one.published.items():
        assert source in sources()
        assert all(0 < value <= 100 for what, value in numbers.items() if what not in ("id", "size"))


def test_every_file_belongs_to_one_model() -> None:
    assert len({one.weights for one in FILES}) == len(FILES) == 40


@pytest.mark.parametrize("one", TAGGED, ids=lambda one: one.name)
def test_every_tag_is_what_the_table_says_of_it(one: Entry) -> None:
    """Explicit tags, so that another version of timm cannot mean other weights by the same name."""
    assert one.tag
    architecture, _, tag = one.tag.partition(".")
    assert tag, "a name without a tag changes its meaning from version to version"
    assert one.architecture == f"timm:{architecture}"
    cfg = get_arch_pretrained_cfgs(architecture)[one.tag]
    assert is_model_pretrained(one.tag)
    assert cfg.num_classes == one.classes
    assert (cfg.mean, cfg.std) == (one.mean, one.std)
    assert {"size": cfg.input_size[1], "crop": cfg.crop_pct, "interpolation": cfg.interpolation} == one.own
    assert cfg.license == one.licence
    assert one.published["timm"]["size"] == one.own["size"]


@pytest.mark.parametrize("one", TAGGED, ids=lambda one: one.name)
def test_normal_weights_saw_nothing_but_imagenet(one: Entry) -> None:
    """The trap: from timm 0.9 on, these names without a tag mean weights pre-trained on more."""
    more = re.search(r"in12k|in21k|in22k|clip|fcmae|mae|mim|beitv2", str(one.tag))
    assert bool(more) == (one.paradigm != "normal")
    assert ("21" in one.data) == (one.paradigm == "pre-trained")


@pytest.mark.parametrize("family", dict.fromkeys(one.family for one in entries().values()))
def test_every_architecture_has_the_parameters_it_says(family: str) -> None:
    for one in entries().values():
        if one.family == family:
            with torch.device("meta"):
                module = build(one)
                logits = module(torch.empty(1, 3, *one.preprocessing.size)) if one.dataset == "cifar10" else None
            assert sum(p.numel() for p in module.parameters()) == one.parameters, one.name
            assert module.num_classes == one.classes
            assert logits is None or logits.shape == (1, 10)


@pytest.mark.parametrize("module", [T2TViT(64, 2, 2, classes=7), DenoisingResNet([1, 2, 1, 1], classes=7)])
def test_our_own_architectures_run_forward_and_backward(module: torch.nn.Module) -> None:
    x = torch.rand(2, 3, 224, 224, requires_grad=True)
    logits = module.eval()(x)
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().amax((1, 2, 3)).min() > 0


def test_the_largest_robust_resnets_use_gelu() -> None:
    for one in entries().values():
        if one.family in ("ResNet", "Wide ResNet") and one.architecture.startswith("timm:"):
            with torch.device("meta"):
                kinds = {type(part).__name__ for part in build(one).modules()}
            assert ("GELU" in kinds, "ReLU" in kinds) == ((True, False) if one.arguments else (False, True)), one.name


def test_t2t_has_the_parameters_of_its_paper() -> None:
    """21.5, 39.2 and 64.1 million (Yuan et al., 2021, table 2), with the position codes counted."""
    for name, published in (("t2t14_normal", 21.5), ("t2t19_normal", 39.2), ("t2t24_normal", 64.1)):
        width = entry(name).arguments["width"]
        assert round((entry(name).parameters + 197 * width) / 1e6, 1) == published


def test_tokens_know_their_places() -> None:
    """Position codes as Vaswani et al. (2017) give them: sines at even channels, cosines at odd ones."""
    codes = T2TViT(64, 1, 2).pos_embed
    assert codes.shape == (1, 197, 64)
    torch.testing.assert_close(codes[0, 3, 10], torch.tensor(3 / 10000 ** (10 / 64)).sin())
    torch.testing.assert_close(codes[0, 3, 11], torch.tensor(3 / 10000 ** (10 / 64)).cos())


def test_denoising_takes_softmax_means_over_all_places() -> None:
    """Xie et al. (2019), equations 3 and 4, one place after the other."""
    block = DenoisingResNet([1, 1, 1, 1]).eval().group0[-1]
    x = torch.rand(1, 256, 2, 3)
    theta, phi = block.embedding_theta(x)[0].flatten(1), block.embedding_phi(x)[0].flatten(1)
    places = x[0].flatten(1)
    means = torch.stack([places @ (theta[:, i] @ phi / 256**0.5).softmax(0) for i in range(6)], 1)
    torch.testing.assert_close(block(x), x + block.bn(block.conv(means.view(1, 256, 2, 3))))


def test_a_model_is_loaded_with_the_papers_preprocessing_and_its_card() -> None:
    model = load_model("zoo:vits_at?pretrained=false")
    assert model.name == "zoo:vits_at?pretrained=false"
    assert model.preprocessing == entry("vits_at").preprocessing
    assert (model.preprocessing.resize, model.preprocessing.interpolation) == (256, "bicubic")
    assert model.classes is not None and len(model.classes) == 1000
    assert model.card["parameters"] == 22_050_664
    assert model.card["mean"] == [0.485, 0.456, 0.406]
    assert "never trained" in model.card["notes"][0]
    assert "paradigm" not in model.card, "random weights are not adversarially trained"
    assert not model.published and not model.training


def test_tagged_weights_come_from_timm_and_keep_the_papers_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(name: str, *, pretrained: bool) -> torch.nn.Module:
        asked.append((name, pretrained))
        return build(entry("xcits_normal"))

    monkeypatch.setattr("aresbench.models.sources.timm.build", fetched)
    model = load_model("zoo:xcits_normal")
    assert asked == [("xcit_small_24_p16_224.fb_in1k", True)]
    assert model.name == "zoo:xcits_normal"
    assert model.preprocessing == entry("xcits_normal").preprocessing, "not timm's crop of 1.0"
    assert model.card["weights"] == "timm:xcit_small_24_p16_224.fb_in1k"
    assert "imagenet top1" not in model.published, "timm measured with another crop"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of ``cifar10/fast_at`` with random weights, under the usual names, as its authors' program saves."""
    state = build(entry("cifar10/fast_at")).state_dict()
    rules = ((r"^stem\.", "conv1."), (r"^norm\.", "bn."), (r"^head\.", "linear."), (r"\.norm", ".bn"))
    usual = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"^stages\.(\d)\.", lambda match: f"layer{int(match[1]) + 1}.", name)
        usual[name.replace("shortcut.", "shortcut.0.")] = value + 0.01 if value.is_floating_point() else value
    path = tmp_path / entry("cifar10/fast_at").weights
    torch.save(usual, path)
    return path


def test_a_checkpoint_is_found_in_the_folder_and_by_its_path(
    saved: Path, monkeypatch: pytest.MonkeyPatch, images: torch.Tensor
) -> None:
    named = load_model(f"zoo:cifar10/fast_at?file={saved}")
    monkeypatch.setenv("ARESBENCH_CHECKPOINTS", str(saved.parent))
    found = load_model("zoo:cifar10/fast_at")
    assert found.name == named.name == "zoo:cifar10/fast_at"
    assert found.fingerprint == named.fingerprint
    assert found.fingerprint != load_model("zoo:cifar10/fast_at?pretrained=false").fingerprint
    assert found(images).shape == (4, 10)
    assert found.classes is not None and found.classes.names[:2] == ("airplane", "automobile")
    assert found.card["paradigm"] == "adversarially trained"
    assert not found.published, "RobustBench's figures of this paper are another network's"
    figures = _published(entry("cifar10/trades"))
    assert figures["cifar10 top1"] == pytest.approx(0.8492) and figures["source"] == "RobustBench leaderboard"


def test_a_missing_checkpoint_says_which_where_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARESBENCH_OFFLINE", "1")
    with pytest.raises(ModelError) as missing:
        load_model("zoo:swinb_at")
    for part in ("ARES_Swin_base_patch4_window7_224_AT.pth", "https://", "ARESBENCH_CHECKPOINTS", "?file="):
        assert part in str(missing.value)
    monkeypatch.setenv("ARESBENCH_CHECKPOINTS", str(tmp_path))
    with pytest.raises(ModelError, match="is not there"):
        checkpoint_path(entry("swinb_at"))
    with pytest.raises(ModelError, match=r"there is no file .*no\.pth"):
        load_model(f"zoo:swinb_at?file={tmp_path}/no.pth")


def test_a_checkpoint_comes_from_the_first_mirror_that_gives_it(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("ARESBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ARESBENCH_CHECKPOINTS", str(tmp_path))
    one = replace(entry("cifar10/fast_at"), mirrors=((tmp_path / "gone.pth").as_uri(), saved.as_uri()))
    path = checkpoint_path(one)
    assert path == tmp_path / one.weights
    assert path.read_bytes() == saved.read_bytes()
    saved_elsewhere = replace(one, mirrors=((tmp_path / "gone.pth").as_uri(),))
    assert checkpoint_path(saved_elsewhere) == path  # kept: no mirror is asked again
    path.unlink()
    with pytest.raises(ModelError, match=r"(?s)needs the file .*no such file.*\?file="):
        checkpoint_path(saved_elsewhere)


def test_a_checkpoint_of_another_model_is_refused(saved: Path) -> None:
    with pytest.raises(ModelError, match="does not fit zoo:cifar10/trades"):
        load_model(f"zoo:cifar10/trades?file={saved}")


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("zoo:swinb", UnknownName, "swinb_"),
        ("zoo:xyz", UnknownName, "aresbench list models"),
        ("zoo:swinb_at?pretrained=maybe", SpecError, "neither true nor false"),
        ("zoo:swinb_at?pretrained=false&file=a.pth", SpecError, "leave one of the two out"),
        ("zoo:vgg13_normal?key=model", SpecError, "come from timm"),
        ("zoo:swinb_at?crop=1", SpecError, "no option 'crop'"),
    ],
)
def test_errors_tell_what_is_right(spec: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        load_model(spec)
