"""Models of the Hugging Face hub, as folders made here and served from loopback: equal to their own library."""

from __future__ import annotations

import functools
import http.server
import json
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn

from aresbench.core.classes import match_classes
from aresbench.core.errors import DataError, ModelError, SpecError
from aresbench.core.preprocessing import Preprocessing
from aresbench.models.labels import imagenet_classes
from aresbench.models.load import load_model
from aresbench.models.sources import hf_transformers
from aresbench.ops import resize

PICTURE = Image.effect_noise((90, 67), 90).convert("RGB").resize((301, 223), Image.Resampling.BICUBIC)
PETS = ("cat", "dog", "parrot", "hamster")


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("exploded",)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ARESBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


def vit(labels: tuple[str, ...] = PETS) -> nn.Module:
    """A tiny ViT with random weights that differ in every tensor."""
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in config.id2label.items()}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = transformers.ViTForImageClassification(config).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository of transformers with a ViT of four pets."""
    vit().save_pretrained(tmp_path / "pets")
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "pets")
    return tmp_path / "pets"


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_transformers_classifier_gives_its_own_logits(folder: Path) -> None:
    model = load_model(f"hf:{folder}")
    processor = transformers.ViTImageProcessorPil.from_pretrained(folder)
    wanted = vit()(**processor(images=PICTURE, return_tensors="pt")).logits
    got = model(resize.apply(PICTURE, model.preprocessing)[None].float() / 255)
    assert torch.allclose(got, wanted, atol=1e-5) and wanted.std() > 0.1
    assert model.preprocessing == Preprocessing((32, 32), None, "bilinear", squash=True)
    assert model.classes is not None and model.classes.names == PETS
    assert model.card["architecture"] == "vit" and model.name == f"hf:{folder.parent.name}/pets" and not model.training


def test_gradients_reach_the_image(folder: Path) -> None:
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(load_model(f"hf:{folder}")(x).logsumexp(1).sum(), x)
    assert gradient.flatten(1).abs().amax(1).min() > 0


PROCESSORS = {
    "ViTImageProcessor": ({}, Preprocessing((224, 224), None, "bilinear", squash=True)),
    "DeiTImageProcessor": ({}, Preprocessing((224, 224), 256, "bicubic", squash=True)),
    "ConvNextImageProcessor": (
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
        Preprocessing((224, 224), 256, "bicubic"),
    ),
    "BitImageProcessor": ({}, Preprocessing((224, 224), 224, "bicubic")),
    "LevitImageProcessor": ({}, Preprocessing((224, 224), 256, "bicubic")),
    "PoolFormerImageProcessor": ({}, Preprocessing((224, 224), 248, "bicubic")),
    "MobileNetV2ImageProcessor": ({}, Preprocessing((224, 224), 256, "bilinear")),
    "EfficientNetImageProcessor": (
        {"size": {"height": 240, "width": 240}, "resample": 3},
        Preprocessing((240, 240), None, "bicubic", squash=True),
    ),
    "BeitImageProcessor": ({}, Preprocessing((224, 224), None, "bicubic", squash=True)),
}


@pytest.mark.parametrize("backend", ["", "Pil"])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_what_processors_do_is_known(kind: str, backend: str) -> None:
    settings, expected = PROCESSORS[kind]
    processor = getattr(transformers, kind + backend)(**settings)
    preprocessing, mean, std = hf_transformers._processor("hf:x/y", processor)
    assert preprocessing == expected
    made = processor(images=PICTURE, return_tensors="pt")["pixel_values"][0]
    ours = resize.apply(PICTURE, preprocessing).float() / 255
    difference = (ours - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None] - made
    assert (difference.abs() * torch.tensor(std)[:, None, None]).mean() < (2e-6 if backend else 0.004)


@pytest.mark.parametrize(
    "processor",
    [
        transformers.MobileViTImageProcessor(),  # blue before red
        transformers.PerceiverImageProcessor(),  # crops first
        transformers.ViTImageProcessor(do_rescale=False),
        transformers.ViTImageProcessor(do_resize=False),
        transformers.BitImageProcessor(resample=5),  # Hamming
    ],
)
def test_what_cannot_be_said_as_resize_and_crop_is_refused(processor: Any) -> None:
    with pytest.raises(ModelError, match=r"the preprocessing of its .* is not one this version knows"):
        hf_transformers._processor("hf:x/y", processor)


def test_a_slightly_wrong_reading_of_a_processor_would_be_noticed() -> None:
    processor = transformers.BitImageProcessor()
    mean, std = list(processor.image_mean), list(processor.image_std)
    assert hf_transformers._agrees(processor, Preprocessing((224, 224), 224, "bicubic"), mean, std)
    for wrong in (Preprocessing((224, 224), 227, "bicubic"), Preprocessing((224, 224), 224, squash=True)):
        assert not hf_transformers._agrees(processor, wrong, mean, std)
    assert not hf_transformers._agrees(processor, Preprocessing((224, 224), 224), [0.5] * 3, std)


def test_reordered_heads_are_matched_by_name_and_unknown_ones_refused(folder: Path) -> None:
    edit(folder, id2label={"0": "parrot", "1": "hamster", "2": "dog", "3": "cat"})
    model = load_model(f"hf:{folder}")
    assert model.classes is not None
    original = load_model(f"hf:{folder}").classes
    assert match_classes(type(model.classes)(PETS), model.classes).target == (3, 2, 0, 1) and original == model.classes
    with pytest.raises(DataError, match="'otter' of the data matches none of the model's classes"):
        match_classes(type(model.classes)(("cat", "otter")), model.classes)


def test_imagenet_in_another_order_is_recognised(folder: Path) -> None:
    names = imagenet_classes().names
    order = random.Random(1).sample([i for i in range(1000) if i not in (134, 517)], 40)
    edit(folder, id2label={str(k): names[i] for k, i in enumerate(order)})
    state = load_file(folder / "model.safetensors")
    state["classifier.weight"], state["classifier.bias"] = torch.rand(40, 16), torch.rand(40)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    classes = load_model(f"hf:{folder}").classes
    assert classes is not None and classes.ids == tuple(imagenet_classes().ids[i] for i in order)


def test_placeholders_are_no_names(folder: Path) -> None:
    edit(folder, id2label={str(i): f"LABEL_{i}" for i in range(4)})
    model = load_model(f"hf:{folder}")
    assert model.classes is None and model.num_classes == 4 and "LABEL_0" in model.card["notes"][-1]


def test_missing_tensors_and_wrong_class_counts_are_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "classifier" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"2 missing \(classifier.bias, classifier.weight\)"):
        load_model(f"hf:{folder}")
    save_file({**state, "extra.weight": torch.zeros(2)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 unexpected \(extra.weight\)"):
        load_model(f"hf:{folder}")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    edit(folder, id2label={str(i): f"pet {i}" for i in range(5)})
    with pytest.raises(ModelError, match="do not fit its configuration"):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_a_pickle_that_would_run_code_does_not(
    folder: Path, tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if library == "timm":
        folder = in_timm(tmp_path / "timm")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**state, "more": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickle that would run code when loaded.*: refused"):
        load_model(f"hf:{folder}")
    assert not (tmp_path / "exploded").exists()
    torch.save(state, folder / "pytorch_model.bin")
    assert load_model(f"hf:{folder}").num_classes in (4, 7)


def test_code_that_a_repository_brings_is_never_run(folder: Path, tmp_path: Path) -> None:
    (folder / "theirs.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'exploded')!r})\n")
    edit(
        folder, model_type="theirs", auto_map={"AutoConfig": "theirs.C", "AutoModelForImageClassification": "theirs.M"}
    )
    with pytest.raises(ModelError, match="could not be read by transformers"):
        load_model(f"hf:{folder}")
    assert not (tmp_path / "exploded").exists()


def in_timm(folder: Path, **settings: Any) -> Path:
    """A repository of timm with its small test network and seven classes."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        module = timm.create_model("test_resnet", num_classes=7)
        nn.init.normal_(module.get_classifier().weight)
    settings = {"label_names": [f"thing {i}" for i in range(7)], **settings}
    save_for_hf(module, folder, model_config=settings, safe_serialization=True)
    return folder


def test_a_timm_repository_gives_timms_logits(tmp_path: Path) -> None:
    folder = in_timm(tmp_path / "timm")
    model = load_model(f"hf:{folder}")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    wanted = theirs(transform(PICTURE)[None])
    got = model(resize.apply(PICTURE, model.preprocessing)[None].float() / 255)
    assert torch.allclose(got, wanted, atol=1e-4) and wanted.std() > 0.1
    assert model.classes is not None and model.classes.names[3] == "thing 3"


def test_a_timm_repository_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = in_timm(tmp_path / "timm")
    edit(folder, num_classes=8)
    with pytest.raises(ModelError, match="does not fit timm's test_resnet with 8 classes"):
        load_model(f"hf:{folder}")
    edit(folder, num_classes=7, label_names=["one", "two"])
    with pytest.raises(ModelError, match="7 outputs and 2 class names"):
        load_model(f"hf:{folder}")
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if k != "fc.bias"}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"fc\.bias"):
        load_model(f"hf:{folder}")


class Hub(http.server.SimpleHTTPRequestHandler):
    """The few answers of the hub that its client needs to fetch a file."""

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{len(self.path)}{self.path.rpartition("/")[2]}"')
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_repository_of_the_hub_is_fetched_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    in_timm(tmp_path / "site" / "someone" / "net" / "resolve" / "main")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read from the environment when it was imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    try:
        model = load_model("hf:someone/net")
        assert model.name == "hf:someone/net" and model.num_classes == 7
        assert load_model("hf:someone/net?revision=main").fingerprint == model.fingerprint
        with pytest.raises(ModelError, match="hf:someone/nothing"):
            load_model("hf:someone/nothing")
    finally:
        server.shutdown()
        server.server_close()
    monkeypatch.setenv("ARESBENCH_OFFLINE", "1")
    assert load_model("hf:someone/net").fingerprint == model.fingerprint
    with pytest.raises(ModelError, match="ARESBENCH_OFFLINE forbids the network") as caught:
        load_model("hf:someone/other")
    assert "hf:/path/to/other" in caught.value.remedy


def test_what_is_no_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        load_model(f"hf:{tmp_path}/nothing")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="names neither a model of timm nor one of transformers"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("<html>")
    with pytest.raises(ModelError, match="is not JSON"):
        load_model(f"hf:{tmp_path}")
    with pytest.raises(SpecError, match="no option 'weights'"):
        load_model(f"hf:{tmp_path}?weights=x")
