"""RobustBench's models: equal to what its package loads, from every place where a file may be, and no code is run."""

from __future__ import annotations

import copy
import functools
import http.server
import importlib
import importlib.util
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from aresbench.core.errors import ModelError, SpecError, UnknownName
from aresbench.models import robustbench_package, zoo
from aresbench.models.architectures.small_cnn import SmallCNN
from aresbench.models.fingerprint import _installed
from aresbench.models.load import load_model
from aresbench.models.robustbench import entry
from aresbench.models.robustbench_package import OUTPUTS, package

SMALL = "cifar10/corruptions/Hendrycks2020AugMix_WRN"  # 2 million parameters
CONSTANTS = {"mu", "sigma", "mean", "std", "normalize.mean", "normalize.std"}


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one; no checkpoints, an empty cache, and the network is allowed."""
    for variable in ("ARESBENCH_OFFLINE", "HF_HUB_OFFLINE", "ARESBENCH_CHECKPOINTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def theirs() -> Any:
    """``robustbench.utils``, the package's own loader; its downloaders are not there."""
    (folder,) = importlib.util.find_spec("robustbench").submodule_search_locations  # type: ignore[union-attr]
    with pytest.MonkeyPatch.context() as patch, robustbench_package._beneath_an_empty_package([folder]):
        patch.setitem(sys.modules, "gdown", ModuleType("gdown"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("robustbench.utils")


def random_state(module: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """Random weights under which signals neither vanish nor explode; normalising constants stay."""
    draw = torch.Generator().manual_seed(seed)
    made = {}
    for name, value in module.state_dict().items():
        unit = torch.rand(value.shape, generator=draw)
        if not value.is_floating_point() or name in CONSTANTS:
            made[name] = value.clone()
        elif value.ndim >= 2:
            made[name] = (unit - 0.5) * 2 * (3 / value[0].numel()) ** 0.5
        else:
            made[name] = unit + 0.5 if name.endswith(("weight", "running_var")) else (unit - 0.5) / 5
    return made


def wrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As data-parallel training writes them."""
    return {f"module.{name}": value for name, value in state.items()}


def within(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network alone, out of its normalising wrapper."""
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def without_constants(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name not in CONSTANTS}


def of_xcits_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As XCiT's own code names things: one matrix for query, key and value of the class attention."""
    made = {k.replace("pos_embed.", "pos_embeder."): v for k, v in within(state).items()}
    for block in (0, 1):
        for kind in ("weight", "bias"):
            names = [f"cls_attn_blocks.{block}.attn.{letter}.{kind}" for letter in "qkv"]
            made[f"cls_attn_blocks.{block}.attn.qkv.{kind}"] = torch.cat([made.pop(name) for name in names])
    return {"model": made}  # type: ignore[dict-item]


def two_sets(state: dict[str, Tensor]) -> dict[str, Any]:
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    return {"best": other, "last": state, "epoch": 3}


# Name → how its checkpoint is written, where it is more than a state dict.
EQUAL: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    SMALL: without_constants,
    "cifar100/corruptions/Hendrycks2020AugMix_ResNeXt": lambda state: {"state_dict": wrapped(without_constants(state))},
    "cifar10/linf/Andriushchenko2020Understanding": lambda state: two_sets(
        {**state, "model_preact_hl1.1.weight": state["linear.bias"]}
    ),
    "cifar10/linf/Wong2020Fast": lambda state: wrapped(without_constants(state)),
    "cifar10/linf/Addepalli2021Towards_RN18": wrapped,
    "cifar10/linf/Rade2021Helper_R18_ddpm": dict,
    "cifar10/corruptions/Modas2021PRIMEResNet18": dict,
    "cifar10/corruptions/Kireev2021Effectiveness_RLAT": lambda state: two_sets(without_constants(state)),
    "cifar100/linf/Rice2020Overfitting": without_constants,
    "cifar10/linf/Debenedetti2022Light_XCiT-S12": of_xcits_authors,
    "imagenet/linf/Salman2020Do_R18": lambda state: {"state_dict": wrapped(within(state)), "epoch": 3},
    "imagenet/corruptions/Tian2022Deeper_DeiT-S": within,
}


@pytest.mark.parametrize("name", EQUAL)
def test_logits_are_those_of_the_package(
    name: str, theirs: Any, somewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = package().files(name)
    dataset, folder, model_file = file.split("/")
    path = somewhere / "models" / file
    path.parent.mkdir(parents=True)
    torch.save(EQUAL[name](random_state(package().build(name))), path)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", lambda *_, **__: torch.load(path))
    own = theirs.load_model(model_file.removesuffix(".pt"), dataset=dataset, threat_model=folder)

    model = load_model(f"robustbench:{name}")  # found in the package's own folder
    x = torch.rand(2, 3, *model.preprocessing.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits, expected = model(x), own(x)
    assert torch.equal(logits, expected), "not twice normalised, and every tensor in its place"
    assert logits.shape == (2, OUTPUTS[dataset]) and logits.isfinite().all() and logits.std() > 0.01
    assert model.card["mean"] is None, "what normalises is inside"
    assert not model.training and not any(part.training for part in model.modules())


class Deck(nn.Module):
    """A small ensemble, made as RobustBench makes its large ones."""

    def __init__(self) -> None:
        super().__init__()
        self.models = nn.ModuleList(SmallCNN(10) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x).softmax(1) for member in self.models]).mean(0)


def test_an_ensemble_is_put_together_from_its_files(
    theirs: Any, somewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "cifar10/corruptions/Diffenderfer2021Winning_Binary_CARD_Deck"
    own_table = theirs.all_models[theirs.BenchmarkDataset("cifar10")][theirs.ThreatModel("corruptions")]
    for entry_of_table in (package().table[name], own_table[entry(name).model]):
        monkeypatch.setitem(entry_of_table, "model", Deck)
    files = list(package().files(name))
    assert [Path(file).name for file in files] == [f"{entry(name).model}.pt_m{k}.pt" for k in range(6)]
    for k, file in enumerate(files):
        (somewhere / "models" / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(wrapped(random_state(SmallCNN(10), seed=k)), somewhere / "models" / file)
    own = theirs.load_model(entry(name).model, dataset="cifar10", threat_model="corruptions")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    base = somewhere / "models" / files[0].removesuffix("_m0.pt")
    for given in ("", f"?checkpoint={base.parent}", f"?checkpoint={base}"):
        model = load_model(f"robustbench:{name}{given}")
        with torch.no_grad():
            assert torch.equal(model(x), own(x))
    assert any("probabilities, not logits" in note for note in model.card["notes"])
    (somewhere / "models" / files[3]).unlink()
    with pytest.raises(ModelError, match=r"there is no file .*_m3\.pt"):
        load_model(f"robustbench:{name}?checkpoint={base}")


def test_weights_of_an_old_timm_are_renamed_as_timm_does_it() -> None:
    from aresbench.models.sources.robustbench import _named_as

    swin = timm.models.SwinTransformer(
        img_size=56, window_size=7, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=3
    )
    module = nn.Sequential()
    module.add_module("normalize", nn.Identity())
    module.add_module("model", swin)
    old = {}
    for name, value in random_state(swin).items():
        old[name.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc.", "head.")] = value
    old |= {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    by_timm = timm.models.swin_transformer.checkpoint_filter_fn(dict(old), swin)
    ours = _named_as(module, wrapped(old))
    assert set(ours) == {f"model.{name}" for name in swin.state_dict()}
    assert all(torch.equal(value, by_timm[name.removeprefix("model.")]) for name, value in ours.items())


@pytest.mark.parametrize("name", ["pre_training", "rst", "trades"])
def test_the_zoo_gives_the_same_logits_for_the_same_file(name: str, somewhere: Path) -> None:
    """Ours and the package's architectures, written apart, and what each says of mean and std, agree."""
    ours = f"zoo:cifar10/{name}"
    board = f"robustbench:cifar10/linf/{zoo.entry(f'cifar10/{name}').published['robustbench']['id']}"
    state = random_state(package().build(board.removeprefix("robustbench:")))
    torch.save(without_constants(state), somewhere / "w.pt")
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_model(f"{board}?checkpoint=w.pt")(x)
        torch.testing.assert_close(load_model(f"{ours}?file=w.pt")(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.005


# -- the card and the name --------------------------------------------------------------------


@pytest.fixture
def checkpoint(somewhere: Path) -> Path:
    path = somewhere / "augmix.pt"
    torch.save(random_state(package().build(SMALL)), path)
    return path


def test_the_card_says_what_the_board_says(checkpoint: Path) -> None:
    model = load_model(f"robustbench:{SMALL}?checkpoint={checkpoint}")
    assert model.name == f"robustbench:{SMALL}"
    assert model.card["family"] == "wide_resnet" and model.card["licence"] == "MIT"
    assert "AugMix" in model.card["paper"] and model.card["verified"] is True
    assert model.published == {"cifar10 top1": entry(SMALL).clean / 100, "source": "RobustBench leaderboard"}
    assert model.classes is not None and model.classes.names[:2] == ("airplane", "automobile")
    assert _installed(type(model.module)), "the fingerprint knows that its class comes with a package"
    assert copy.deepcopy(model).fingerprint == model.fingerprint
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_random_weights_say_so() -> None:
    model = load_model(f"robustbench:{SMALL}?pretrained=false")
    assert model.name.endswith("?pretrained=false") and any("never trained" in note for note in model.card["notes"])
    assert "paradigm" not in model.card and not model.published
    assert model.fingerprint == load_model(f"robustbench:{SMALL}?pretrained=false").fingerprint


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("robustbench:cifar10/linf/Carmon2019Unlabelled", UnknownName, "cifar10/linf/Carmon2019Unlabeled"),
        (
            "robustbench:cifar10/Linf/Carmon2019Unlabeled",
            UnknownName,
            "did you mean 'cifar10/linf/Carmon2019Unlabeled'",
        ),
        ("robustbench:xyz", UnknownName, "DATASET/THREAT/NAME"),
        ("robustbench:cifar10/linf/Madry2018Towards", UnknownName, "figures of cifar10/linf/Madry2018Towards"),
        (f"robustbench:{SMALL}?pretrained=maybe", SpecError, "neither true nor false"),
        (f"robustbench:{SMALL}?pretrained=false&checkpoint=a.pt", SpecError, "leave one of the two out"),
        (f"robustbench:{SMALL}?file=a.pt", SpecError, "no option 'file'"),
        (f"robustbench:{SMALL}?checkpoint=no.pt", ModelError, "there is no file"),
    ],
)
def test_errors_tell_what_is_right(spec: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        load_model(spec)
    assert words in str(caught.value)


# -- files that are not what they should be ---------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def _loads(somewhere: Path, content: object) -> None:
    torch.save(content, somewhere / "w.pt")
    load_model(f"robustbench:{SMALL}?checkpoint=w.pt")


def test_a_pickle_that_would_run_code_does_not_run(somewhere: Path) -> None:
    with pytest.raises(ModelError, match=r"would run code when loaded.*refused"):
        _loads(somewhere, {"state_dict": random_state(package().build(SMALL)), "config": Bomb()})
    assert not (somewhere / "exploded").exists()


def test_wrong_checkpoints_are_refused(somewhere: Path, checkpoint: Path) -> None:
    state = torch.load(checkpoint)
    with pytest.raises(ModelError, match=r"1 missing \(block1\.layer\.0\.conv1\.weight\)"):
        _loads(somewhere, {k: v for k, v in state.items() if k != "block1.layer.0.conv1.weight"})
    with pytest.raises(ModelError, match=r"has 100 classes and robustbench:.* has 10"):
        _loads(somewhere, {**state, "fc.weight": torch.zeros(100, 128), "fc.bias": torch.zeros(100)})
    with pytest.raises(ModelError, match=r"two tensors that mean fc\.bias"):
        _loads(somewhere, {**state, "module.fc.bias": state["fc.bias"]})
    with pytest.raises(ModelError, match=r"holds 2 state dicts: ema, net\n.*\?key=ema"):
        _loads(somewhere, {"ema": state, "net": state})
    strict = "cifar10/linf/Addepalli2021Towards_RN18"
    torch.save({**random_state(package().build(strict)), "attacker.step": torch.zeros(1)}, somewhere / "w.pt")
    with pytest.raises(ModelError, match=r"1 unexpected \(attacker\.step\)"):
        load_model(f"robustbench:{strict}?checkpoint=w.pt")


def test_what_has_no_place_is_told_where_the_package_is_silent(somewhere: Path, checkpoint: Path) -> None:
    torch.save(torch.load(checkpoint) | {"attacker.step": torch.zeros(1)}, somewhere / "w.pt")
    model = load_model(f"robustbench:{SMALL}?checkpoint=w.pt")
    assert "1 tensors of w.pt have no place in it (first: attacker.step)" in model.card["notes"]


def test_a_key_chooses_among_sets(somewhere: Path, checkpoint: Path) -> None:
    state = torch.load(checkpoint)
    torch.save({"ema": state, "state_dict": {k: torch.zeros_like(v) for k, v in state.items()}}, somewhere / "w.pt")
    right = load_model(f"robustbench:{SMALL}?checkpoint={checkpoint}")
    assert load_model(f"robustbench:{SMALL}?checkpoint=w.pt&key=ema").fingerprint == right.fingerprint
    assert load_model(f"robustbench:{SMALL}?checkpoint=w.pt").fingerprint != right.fingerprint, "the package's choice"


def test_a_truncated_file_is_told_apart(somewhere: Path, checkpoint: Path) -> None:
    (somewhere / "w.pt").write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="truncated or damaged"):
        load_model(f"robustbench:{SMALL}?checkpoint=w.pt")


# -- downloads --------------------------------------------------------------------------------


@pytest.fixture
def drive(somewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a loopback server offers as Google Drive does: files by their ids."""
    shelf = somewhere / "drive"
    shelf.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(shelf)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(robustbench_package, "DRIVE", (f"http://127.0.0.1:{server.server_port}/{{id}}",))
    yield shelf
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_are_downloaded_once_and_kept_as_the_package_keeps_them(
    drive: Path, checkpoint: Path, somewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "cifar10/corruptions/Hendrycks2020AugMix_WRN.pt"
    on_drive = drive / package().table[SMALL]["gdrive_id"]
    shutil.copy(checkpoint, on_drive)
    first = load_model(f"robustbench:{SMALL}")
    assert (somewhere / "cache" / "weights" / "robustbench" / file).read_bytes() == checkpoint.read_bytes()
    on_drive.unlink()
    assert load_model(f"robustbench:{SMALL}").fingerprint == first.fingerprint
    monkeypatch.setenv("ARESBENCH_CHECKPOINTS", str(somewhere / "cache" / "weights" / "robustbench"))
    assert load_model(f"robustbench:{SMALL}").fingerprint == first.fingerprint
    monkeypatch.setenv("ARESBENCH_CHECKPOINTS", str(somewhere / "empty"))
    with pytest.raises(ModelError, match=r"404"):
        load_model(f"robustbench:{SMALL}")


@pytest.mark.parametrize("name", ["page.html", "page"])
def test_a_page_instead_of_weights_and_a_dead_link(drive: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = robustbench_package.DRIVE[0].format(id=name)
    monkeypatch.setattr(robustbench_package, "DRIVE", (address,))
    with pytest.raises(ModelError, match=r"(?s)needs the file Hendrycks2020AugMix_WRN\.pt: .*404.*\?checkpoint="):
        load_model(f"robustbench:{SMALL}")
    (drive / name).write_text("<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>")
    with pytest.raises(ModelError, match=r"(?s)web page \(HTML\) came instead of weights.*fetch it in a browser"):
        load_model(f"robustbench:{SMALL}")


def test_offline_says_where_the_file_would_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARESBENCH_OFFLINE", "1")
    with pytest.raises(ModelError) as caught:
        load_model("robustbench:cifar10/linf/Carmon2019Unlabeled")
    for part in (
        "ARESBENCH_OFFLINE forbids",
        "drive.usercontent.google.com",
        "cifar10/Linf/Carmon2019Unlabeled.pt",
        "?checkpoint=",
    ):
        assert part in str(caught.value)


def test_the_standard_models_of_imagenet_take_torchvisions_weights(
    monkeypatch: pytest.MonkeyPatch, somewhere: Path
) -> None:
    from torchvision.models import resnet50

    torch.save(random_state(resnet50()), somewhere / "IMAGENET1K_V1.pth")
    monkeypatch.setattr(
        "aresbench.models.sources.torchvision.fetch_weights", lambda weights: somewhere / f"{weights.name}.pth"
    )
    model = load_model("robustbench:imagenet/linf/Standard_R50")
    assert torch.equal(model.module.model.fc.bias, torch.load(somewhere / "IMAGENET1K_V1.pth")["fc.bias"])
