"""Models to be trained: their changes, and the weights they begin with."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from aresbench.core.classes import Classes
from aresbench.core.errors import AresError, ModelError, SpecError, UnknownName
from aresbench.models import first_weights
from aresbench.models.labels import imagenet_classes
from aresbench.models.modified import watched_relus
from aresbench.models.trainable import build

PLAIN = {
    "arguments": {},
    "initial": "",
    "activation": "",
    "stem": "",
    "drop_path": 0.0,
    "drop": 0.0,
    "size": 32,
    "resize": 0,
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}
FOUR = Classes(("ant", "bee", "cat", "dog"))
RESNET = {"architecture": "timm:resnet50", "arguments": {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}}
CONVNEXT = {"architecture": "timm:convnext_small", "arguments": {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}}
SWIN = {
    "architecture": "timm:swin_small_patch4_window7_224",
    "arguments": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
    "size": 64,
}
VIT = {
    "architecture": "timm:vit_small_patch16_224",
    "arguments": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    "size": 64,
}


def made(classes=FOUR, **changes):
    torch.manual_seed(0)
    return build(classes, **(PLAIN | changes))


def relus(classifier):
    size = classifier.preprocessing.size[0]
    with torch.no_grad(), watched_relus() as watched:
        classifier.eval()(torch.rand(1, 3, size, size))
    return watched.count


@pytest.fixture
def saved(tmp_path):
    """Writes a module's tensors to a file and says how to name them."""

    def save(module, arch, names=None):
        path = tmp_path / "weights.safetensors"
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, path)
        if names is not None:
            path.with_suffix(".classes.txt").write_text("\n".join(names))
        return f"{path}?arch={arch}"

    return save


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """Writes a Python file with a factory of a small network."""

    def write(body, classes=4):
        path = tmp_path / "mine.py"
        path.write_text(
            "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"
            "class Net(nn.Module):\n"
            "    def __init__(self):\n        super().__init__()\n"
            f"        self.conv = nn.Conv2d(3, 6, 3, 2)\n        self.head = nn.Linear(6, {classes})\n"
            f"    def forward(self, x):\n        x = {body}\n        return self.head(x.mean((2, 3)))\n"
            "def make():\n    return Net()\n"
        )
        return f"{path}:make"

    return write


# -- architectures and their arguments ------------------------------------------------------------


@pytest.mark.parametrize("kind", [RESNET, CONVNEXT, SWIN, VIT], ids=["resnet", "convnext", "swin", "vit"])
def test_an_architecture_of_timm_at_another_size_and_with_other_arguments(kind):
    model = made(**kind, drop_path=0.1, drop=0.2)
    size = kind.get("size", 32)
    assert model.preprocessing.size == (size, size)
    assert model(torch.rand(2, 3, size, size)).shape == (2, 4)
    assert sum(p.numel() for p in model.parameters()) < 200_000  # the arguments took effect
    rates = {getattr(part, "drop_prob", 0.0) for part in model.modules()}
    assert max(rates) == pytest.approx(0.1)


def test_own_architectures_by_name():
    assert made(architecture="small-cnn")(torch.rand(1, 3, 32, 32)).shape == (1, 4)
    assert made(architecture="preact-resnet18").card["parameters"] == pytest.approx(11.17e6, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "smal-cnn"}, "small-cnn"),
        ({"architecture": "resnet50"}, "write timm:resnet50"),
        ({"architecture": "timm:resnet5"}, "resnet50"),
        ({"architecture": "timm:convnext_small.fb_in22k"}, "initial = 'timm:convnext_small.fb_in22k'"),
        ({**RESNET, "arguments": {"chanels": [8, 8, 8, 8]}}, "'channels'"),
        ({**RESNET, "arguments": {"num_classes": 3}}, "the dataset says"),
        ({**RESNET, "arguments": {"drop_path_rate": 0.1}}, "model.drop_path"),
        ({"architecture": "timm:vgg11", "drop_path": 0.1}, "leave it at 0"),
        ({"architecture": "small-cnn", "drop": 0.1}, "model.drop is for architectures of timm"),
        ({"architecture": "small-cnn", "arguments": {"width": 3}}, "model.arguments.width"),
        ({"architecture": "small-cnn", "size": 64}, "set model.size"),
        ({**VIT, "arguments": {"embed_dim": 17, "num_heads": 2}}, "model.arguments"),
    ],
)
def test_what_cannot_be_built_is_said(changes, words):
    with pytest.raises(AresError) as caught:
        made(**changes)
    assert words in str(caught.value)


def test_a_factory_keeps_its_program_text_in_the_fingerprint(factory):
    one = made(architecture=factory("F.relu(self.conv(x))"))
    path = factory("F.gelu(self.conv(x))")
    other = made(architecture=path)
    other.load_state_dict(one.state_dict())
    assert one.fingerprint != other.fingerprint
    with pytest.raises(ModelError, match="returns 5 logits, and 4 classes"):
        made(architecture=factory("self.conv(x)", classes=5))


def test_a_factory_of_a_classifier_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import aresbench as ab\nfrom torch import nn\ndef make():\n    return ab.Classifier(nn.Flatten())\n"
    )
    with pytest.raises(ModelError, match="return the module inside"):
        made(architecture=f"{path}:make")


# -- changes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gelu", "silu"])
@pytest.mark.parametrize(
    "architecture",
    [
        "small-cnn",
        "preact-resnet18",
        "timm:resnet18",
        "timm:resnetv2_50d_gn",
        "timm:mobilenetv2_050",
        "timm:densenet121",
    ],
)
def test_no_relu_is_left_under_a_smooth_activation(architecture, kind):
    """Batch norms of timm that apply an activation, ReLU6, and functions inside a forward are replaced too."""
    assert relus(made(architecture=architecture)) > 0
    assert relus(made(architecture=architecture, activation=kind)) == 0


def test_a_smooth_activation_changes_nothing_else():
    plain, smooth = made(**RESNET), made(**RESNET, activation="gelu")
    for name, value in plain.state_dict().items():
        assert torch.equal(value, smooth.state_dict()[name]), name
    assert plain.fingerprint != smooth.fingerprint


def test_the_activation_of_a_residual_network_is_part_of_its_fingerprint():
    plain, smooth = made(architecture="preact-resnet18"), made(architecture="preact-resnet18", activation="silu")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), smooth.parameters(), strict=True))
    assert plain.fingerprint != smooth.fingerprint


def test_an_activation_is_refused_where_it_cannot_be(factory):
    with pytest.raises(SpecError, match="has no ReLU to replace"):
        made(**VIT, activation="gelu")
    with pytest.raises(ModelError, match="applies ReLU inside its forward"):
        made(architecture=factory("F.relu(self.conv(x))"), activation="gelu")


@pytest.mark.parametrize(("kind", "stride", "widths"), [(VIT, 16, [2, 4, 8, 16]), (CONVNEXT, 4, [4, 8])])
def test_a_convolutional_stem(kind, stride, widths):
    """The same patches, cut by strided 3×3 convolutions of doubling width."""
    plain, stemmed = made(**kind), made(**kind, stem="convolutional")
    size = kind.get("size", 32)
    x = torch.rand(2, 3, size, size)
    assert stemmed(x).shape == plain(x).shape
    stem = stemmed.module.patch_embed.proj if kind is VIT else stemmed.module.stem
    convolutions = [part for part in stem if isinstance(part, nn.Conv2d)]
    strided = [part for part in convolutions if part.stride == (2, 2)]
    assert [part.out_channels for part in strided] == widths
    assert all(part.kernel_size == (3, 3) for part in strided)
    assert [type(part).__name__ for part in stem][:3] == ["Conv2d", "LayerNorm2d", "GELU"]
    assert stem(x).shape == (2, widths[-1], size // stride, size // stride)
    # A batch of patches sees only what it saw before, and a little around it: nothing is mixed over the image.
    far = x.clone()
    far[:, :, : stride // 2, : stride // 2] = 0
    assert torch.equal(stem(x)[..., -1, -1], stem(far)[..., -1, -1])


def test_a_stem_is_refused_elsewhere():
    for kind in (RESNET, SWIN):
        with pytest.raises(SpecError, match="has no patch embedding"):
            made(**kind, stem="convolutional")
    with pytest.raises(SpecError, match="patches of 14 pixels"):
        made(**{**VIT, "architecture": "timm:vit_small_patch14_dinov2", "size": 70}, stem="convolutional")


# -- first weights --------------------------------------------------------------------------------


def ours(tmp_path, kind, outputs):
    """A file with a factory of a tiny timm network of some number of outputs."""
    path = tmp_path / f"net{outputs}.py"
    extra = {"img_size": kind["size"]} if kind in (VIT, SWIN) else {}
    arguments = kind["arguments"] | extra | {"num_classes": outputs}
    path.write_text(
        f"import timm\ndef make():\n    return timm.create_model({kind['architecture'][5:]!r}, **{arguments!r})\n"
    )
    from aresbench.models.sources.python import make

    torch.manual_seed(1)
    return make(f"{path}:make")[0], f"{path}:make"


@pytest.mark.parametrize("kind", [RESNET, CONVNEXT, VIT], ids=["resnet", "convnext", "vit"])
def test_the_same_classes_in_another_order_are_copied_by_name(kind, tmp_path, saved):
    old, arch = ours(tmp_path, kind, 4)
    spec = saved(old, arch, ["dog", "cat", "bee", "ant"])
    model = made(**kind, initial=spec)
    size = kind.get("size", 32)
    x = torch.rand(3, 3, size, size)
    with torch.no_grad():
        expected = old.eval()((x - 0.5) / 0.25).flip(1)
        assert torch.allclose(model.eval()(x), expected, atol=1e-6)
    assert any("picked by name" in note for note in model.card["notes"])


def test_outputs_without_names_are_the_classes_in_order(tmp_path, saved):
    old, arch = ours(tmp_path, RESNET, 4)
    model = made(**RESNET, initial=saved(old, arch))
    assert torch.equal(model.module.fc.weight, old.fc.weight)
    assert any("taken to be the data's classes in order" in note for note in model.card["notes"])


def test_a_head_of_other_classes_begins_anew(tmp_path, saved):
    fresh = made(**RESNET)
    old, arch = ours(tmp_path, RESNET, 3)
    model = made(**RESNET, initial=saved(old, arch, ["ant", "bee", "cow"]))
    assert torch.equal(model.module.conv1.weight, old.conv1.weight)
    assert torch.equal(model.module.fc.weight, fresh.module.fc.weight)
    assert any("the head begins anew" in note for note in model.card["notes"])


def test_a_head_of_imagenet_21k_gives_its_rows_to_the_thousand_classes(tmp_path, saved):
    """21,841 classes of which one of the thousand, the teddy, is missing."""
    from timm.data import ImageNetInfo

    known = imagenet_classes()
    wide = {"architecture": "small-cnn"}
    fresh = made(known, **wide)
    path = tmp_path / "wide.py"
    path.write_text(
        "from aresbench.models.architectures.small_cnn import SmallCNN\ndef make():\n    return SmallCNN(21841)\n"
    )
    from aresbench.models.sources.python import make

    old = make(f"{path}:make")[0]
    model = made(known, **wide, initial=saved(old, f"{path}:make"))
    names = ImageNetInfo("imagenet-22k").label_names()
    for wnid in ("n01440764", "n02123045", "n15075141"):  # tench, tabby, toilet tissue
        row = model.module.head.weight[known.ids.index(wnid)]
        assert torch.equal(row, old.head.weight[names.index(wnid)])
        assert torch.equal(model.module.head.bias[known.ids.index(wnid)], old.head.bias[names.index(wnid)])
    teddy = known.ids.index("n04399382")
    assert torch.equal(model.module.head.weight[teddy], fresh.module.head.weight[teddy])
    notes = [note for note in model.card["notes"] if "n04399382 (teddy" in note]
    assert notes and notes[0].startswith("1 of 1000 classes begin anew")


@pytest.mark.parametrize("outputs", [1000, 11221, 11821, 21841, 21842, 21843])
def test_rows_of_all_heads_that_timm_has(outputs):
    rows, _ = first_weights.rows_of(imagenet_classes(), None, outputs, "weights")
    known = [row for row in rows if row is not None]
    assert len(known) >= 990 and len(set(known)) == len(known) and max(known) < outputs


def test_position_embeddings_are_resized(tmp_path, saved):
    old, arch = ours(tmp_path, VIT, 4)
    model = made(**{**VIT, "size": 32}, initial=saved(old, arch, FOUR.names))
    assert model.module.pos_embed.shape[1] == 5 and old.pos_embed.shape[1] == 17
    assert torch.equal(model.module.pos_embed[:, 0], old.pos_embed[:, 0])
    assert any("were resized" in note for note in model.card["notes"])
    swin, arch = ours(tmp_path, SWIN, 4)
    arguments = {**SWIN["arguments"], "window_size": 4}
    model = made(**{**SWIN, "arguments": arguments, "size": 128}, initial=saved(swin, arch, FOUR.names))
    table = model.module.layers[0].blocks[0].attn.relative_position_bias_table
    assert table.shape[0] == 49 and swin.layers[0].blocks[0].attn.relative_position_bias_table.shape[0] == 9


def test_a_stem_that_the_first_weights_lack_begins_anew(tmp_path, saved):
    fresh = made(**VIT, stem="convolutional")
    old, arch = ours(tmp_path, VIT, 4)
    model = made(**VIT, stem="convolutional", initial=saved(old, arch, FOUR.names))
    assert torch.equal(model.module.patch_embed.proj[0].weight, fresh.module.patch_embed.proj[0].weight)
    assert torch.equal(model.module.blocks[1].mlp.fc1.weight, old.blocks[1].mlp.fc1.weight)
    assert any("stem begins anew" in note for note in model.card["notes"])


def test_a_checkpoint_of_another_model_is_refused_by_its_keys(tmp_path, saved):
    old, arch = ours(tmp_path, CONVNEXT, 4)
    spec = saved(old, arch, FOUR.names)
    with pytest.raises(ModelError) as caught:
        made(**RESNET, initial=spec)
    assert "model.initial" in str(caught.value) and "conv1.weight" in str(caught.value)
    assert "stem.0.weight" in str(caught.value)
    wider = {**CONVNEXT, "arguments": {**CONVNEXT["arguments"], "dims": [8, 8, 16, 32]}}
    with pytest.raises(ModelError, match="differ in shape, first stages"):
        made(**wider, initial=spec)


def test_weights_that_cannot_be_had_are_an_error_at_the_start(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnknownName, match="timm has no weights 'fb_in23k'"):
        made(architecture="timm:convnext_small", initial="timm:convnext_small.fb_in23k")
    with pytest.raises(UnknownName):
        made(architecture="small-cnn", initial="nowhere")


def test_other_statistics_are_noted(tmp_path, saved):
    old, arch = ours(tmp_path, RESNET, 4)
    model = made(**RESNET, initial=saved(old, arch, FOUR.names) + "&mean=0.1&std=0.2")
    assert any("another mean and std" in note for note in model.card["notes"])


def test_a_shared_module_stays_as_it_is(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\nnet = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))\n")
    model = made(architecture=f"{path}:net")
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.module[1].weight.add_(1)
    again = made(architecture=f"{path}:net")
    assert torch.equal(again.module[1].weight, before["module.1.weight"])
    assert functional.mse_loss(again.module[1].weight, model.module[1].weight) > 0.5


def test_weights_of_timm_without_a_head_are_good_to_begin_with(monkeypatch):
    """Masked autoencoders and their like: everything but the head is taken over."""
    import timm

    def fetched(name, *, pretrained, headless):
        assert (name, pretrained, headless) == ("vit_small_patch16_224.mine", True, True)
        torch.manual_seed(5)
        return timm.create_model("vit_small_patch16_224", num_classes=0, img_size=64, **VIT["arguments"])

    monkeypatch.setattr(first_weights, "resolve", lambda name: name)
    monkeypatch.setattr(first_weights, "build", fetched)
    fresh = made(**VIT)
    model = made(**VIT, initial="timm:vit_small_patch16_224.mine")
    old = fetched("vit_small_patch16_224.mine", pretrained=True, headless=True)
    assert torch.equal(model.module.blocks[0].attn.qkv.weight, old.blocks[0].attn.qkv.weight)
    assert torch.equal(model.module.head.weight, fresh.module.head.weight)
    assert any("the head begins anew: timm:vit_small_patch16_224.mine has none" in n for n in model.card["notes"])
    assert not any("another mean and std" in n for n in made(**VIT).card["notes"])
