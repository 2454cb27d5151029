"""torchvision's models come with their own weights, preprocessing and class names. Served from loopback."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, get_model_weights, squeezenet1_1

from aresbench.core.classes import Classes, match_classes
from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.labels import imagenet_classes, recognised
from aresbench.models.load import load_model
from aresbench.models.sources.torchvision import TorchvisionSource, _of_transform
from aresbench.ops import resize

SPEC = "torchvision:squeezenet1_1"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], str]]:
    """Make these bytes the file of SqueezeNet's weights, on a server of our own; torch's folder is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for variable in ("ARESBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "site").mkdir()
    kind = functools.partial(Quiet, directory=str(tmp_path / "site"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def put(content: bytes) -> str:
        name = f"squeezenet1_1-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        (tmp_path / "site" / name).write_bytes(content)
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        monkeypatch.setattr(SqueezeNet1_1_Weights.IMAGENET1K_V1.value, "url", url)
        return url

    yield put
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


def saved(value: object, folder: Path) -> bytes:
    torch.save(value, folder / "saved.pth")
    return (folder / "saved.pth").read_bytes()


@pytest.fixture(scope="module")
def original() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return squeezenet1_1().eval()


def test_logits_are_the_originals_on_the_same_picture(
    served: Callable[[bytes], str], original: nn.Module, tmp_path: Path
) -> None:
    url = served(saved(original.state_dict(), tmp_path))
    model = load_model(SPEC)
    assert model.name == f"{SPEC}?weights=IMAGENET1K_V1" and model.card["weights"] == url and not model.training
    assert model.published["imagenet top1"] == pytest.approx(0.58178)
    picture = Image.effect_noise((301, 243), 90).convert("RGB")
    wanted = original(SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()(picture)[None])
    got = model(resize.apply(picture, model.preprocessing)[None].float() / 255)
    assert torch.allclose(got, wanted, atol=1e-5)
    assert load_model(f"{SPEC}?weights=DEFAULT").fingerprint == model.fingerprint


def test_a_pickle_that_would_run_code_does_not(
    served: Callable[[bytes], str], original: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served(saved({**original.state_dict(), "more": Bomb()}, tmp_path))
    with pytest.raises(ModelError, match=r"would run code when loaded \(it asks for \w+\.mkdir\): refused"):
        load_model(SPEC)
    assert not (tmp_path / "exploded").exists()


def test_a_missing_tensor_and_a_wrong_class_count_are_refused(
    served: Callable[[bytes], str], original: nn.Module, tmp_path: Path
) -> None:
    state = original.state_dict()
    served(saved({k: v for k, v in state.items() if k != "classifier.1.bias"}, tmp_path))
    with pytest.raises(ModelError, match=r"do not fit torchvision's squeezenet1_1: .*classifier.1.bias"):
        load_model(SPEC)
    served(saved({k: v[:10] if k.startswith("classifier") else v for k, v in state.items()}, tmp_path))
    with pytest.raises(ModelError, match=r"size mismatch for classifier.1.weight"):
        load_model(SPEC)


def test_a_wrong_hash_and_a_dead_link_are_refused(
    served: Callable[[bytes], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = served(b"other weights")
    value = SqueezeNet1_1_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(value, "url", url.rpartition("-")[0] + "-00000000.pth")
    with pytest.raises(ModelError, match="answers 404") as caught:
        load_model(SPEC)
    assert str(tmp_path / "torch") in caught.value.remedy
    (tmp_path / "site" / "squeezenet1_1-00000000.pth").write_bytes(b"other weights")
    with pytest.raises(ModelError, match="another file"):
        load_model(SPEC)


def test_every_weights_preprocessing_is_known_and_their_hash_readable() -> None:
    pictures = [Image.effect_noise(size, 90).convert("RGB") for size in ((301, 243), (160, 220))]
    seen = set()
    for name in TorchvisionSource().names():
        for weights in get_model_weights(name):
            facts = _of_transform(weights)
            assert weights.url.rpartition("-")[2].removesuffix(".pth").isalnum()
            if weights.meta.get("categories") and facts["preprocessing"] not in seen:
                seen.add(facts["preprocessing"])
                mean, std = (torch.tensor(facts[key])[:, None, None] for key in ("mean", "std"))
                for picture in pictures:
                    ours = resize.apply(picture, facts["preprocessing"]).float() / 255
                    assert torch.allclose((ours - mean) / std, weights.transforms()(picture), atol=1e-6), weights
    assert Preprocessing((224, 224), 232, "bilinear") in seen and len(seen) > 8


def test_class_names_are_matched_by_name() -> None:
    names = SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    ids = imagenet_classes().ids
    assert recognised(names).ids == ids
    order = random.Random(0).sample(range(1000), 1000)
    shuffled = recognised([names[i] for i in order])
    same = shuffled.ids == tuple(ids[i] for i in order)
    assert same, "crane, maillot and Cardigan included"
    assert match_classes(imagenet_classes(), shuffled).target == tuple(order.index(i) for i in range(1000))
    few = recognised(["goldfish", "tench, Tinca tinca"])
    assert few.ids == ("n01443537", "n01440764")
    assert recognised(["crane", "crane"]).ids == () == recognised(["crane", "goldfish"]).ids
    assert recognised(["goldfish", "my cat"]) == Classes(("goldfish", "my cat"))
    twice = list(imagenet_classes().names)
    assert twice.count("crane") == 2 and recognised(twice).ids == imagenet_classes().ids


def test_random_weights_are_fixed() -> None:
    one, two = (load_model(f"{SPEC}?weights=none") for _ in range(2))
    assert one.fingerprint == two.fingerprint and "never trained" in one.card["notes"][0]


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        ("torchvision:resnet5", UnknownName, "did you mean 'resnet50'"),
        ("torchvision:fcn_resnet50", UnknownName, "no classifier called"),
        ("torchvision:resnet50", SpecError, r"2 sets of weights.*\?weights=IMAGENET1K_V2 \(torchvision's own"),
        ("torchvision:resnet50?weights=IMAGENET1K_V3", UnknownName, "did you mean 'IMAGENET1K_V"),
        ("torchvision:vgg16?weights=IMAGENET1K_FEATURES", UnknownName, "there are IMAGENET1K_V1|did you mean"),
        ("torchvision:resnet50?pretrained=true", SpecError, "no option 'pretrained'"),
    ],
)
def test_unknown_names_are_corrected(spec: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"(?s){message}"):
        load_model(spec)


def test_the_classifiers_are_all_there() -> None:
    assert {"resnet50", "vit_b_16", "swin_v2_t"} <= set(TorchvisionSource().names())
