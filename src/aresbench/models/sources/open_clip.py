"""Zero-shot classifiers made of OpenCLIP's models: the classes are words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aresbench.core.errors import ModelError, SpecError, UnknownName, did_you_mean
from aresbench.models.sources.base import Source

if TYPE_CHECKING:
    from aresbench.core.classes import Classes
    from aresbench.models.classifier import Classifier

# Seven plain ways to say what a picture shows.
TEMPLATES = (
    "a photo of a {}.",
    "a close-up photo of a {}.",
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a drawing of a {}.",
    "a photo of a large {}.",
    "a photo of a small {}.",
)


class OpenClipSource(Source):
    """A zero-shot classifier of OpenCLIP (Radford et al., ICML 2021): ``open-clip:ViT-B-32/laion2b_s34b_b79k``.

    Each class is the normalised mean of the text embeddings of a few sentences about it; its logit is the cosine with
    the image's embedding times the model's scale. Classes are ImageNet's, or ``classes`` (a text or JSON file);
    ``templates`` is one sentence, or a list, in which ``{}`` stands for the class (default: seven of our own).
    Instead of a tag, a file of weights may follow: ``open-clip:ViT-B-32//path/weights.safetensors``.
    Needs ``pip install "aresbench[open-clip]"``.
    """

    example: ClassVar[str] = "open-clip:ViT-B-32/laion2b_s34b_b79k"
    quick: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("classes", "templates")

    def names(self) -> list[str]:
        """Every model with each of its weights (imports open_clip)."""
        return [f"{model}/{tag}" for model, tag in _library().list_pretrained()]

    def load(self, rest: str, options: Mapping[str, Any]) -> Classifier:
        """Read both towers, let the words through one of them once, and keep the other."""
        from aresbench.models.classifier import Classifier
        from aresbench.models.labels import imagenet_classes, read_labels
        from aresbench.models.sources.python import short_name
        from aresbench.models.zero_shot import build

        library = _library()
        architecture, slash, tag = rest.partition("/")
        if architecture not in library.list_models():
            hint = did_you_mean(architecture, library.list_models()) or "`aresbench list models 'open-clip:*'`"
            raise UnknownName(f"open_clip has no model called {architecture!r}", hint)
        tags = library.list_pretrained_tags_by_model(architecture)
        local = tag.startswith(("/", ".", "~"))
        if not slash or (not local and tag not in tags):
            raise UnknownName(
                f"open_clip has no weights {tag!r} for {architecture}"
                if slash
                else f"which weights of {architecture}?",
                did_you_mean(tag, tags)
                or f"write open-clip:{architecture}/TAG with one of {', '.join(tags) or 'none'}",
            )
        given = options.get("classes")
        classes = imagenet_classes() if given is None else read_labels(given) if isinstance(given, str) else given
        templates = sentences(options.get("templates"))
        zero_shot = build(architecture, Path(tag).expanduser() if local else tag, words(classes), templates)
        return Classifier(
            zero_shot.module,
            zero_shot.mean,
            zero_shot.std,
            classes,
            zero_shot.preprocessing,
            f"open-clip:{architecture}/{short_name(tag) if local else tag}",
            card={
                "architecture": architecture,
                "family": "clip",
                "templates": list(templates),
                "notes": [f"zero-shot: {len(templates)} sentences for each class"],
            },
        ).eval()


def _library() -> Any:
    try:
        import open_clip
    except ImportError:
        raise ModelError("the library open_clip is needed", 'pip install "aresbench[open-clip]"') from None
    return open_clip


def sentences(given: object) -> tuple[str, ...]:
    """The templates: the default ones, one, or a list.

    Raises:
        SpecError: one of them has no place for the class.
    """
    found = TEMPLATES if given is None else (given,) if isinstance(given, str) else tuple(map(str, _list(given)))
    wrong = next((one for one in found if one.count("{}") != 1), None)
    if wrong is not None or not found:
        raise SpecError(f"template {wrong!r} needs one place for the class", "write 'a photo of a {}.'")
    return found


def _list(given: object) -> Sequence[object]:
    if not isinstance(given, list | tuple):
        raise SpecError(f"templates={given!r}", "give one sentence or a list of them")
    return given


def words(classes: Classes) -> list[str]:
    """What each class is called in a sentence: its first name that is not the first name of another class, too.

    Raises:
        ModelError: two classes have the same names only.
    """
    from aresbench.models.labels import OTHER_NAMES

    called = {wnid: name for name, wnid in OTHER_NAMES.items()}
    names = [[part.strip() for part in name.split(",") if part.strip()] for name in classes.names]
    if classes.ids:
        names = [([called[key]] if key in called else []) + own for key, own in zip(classes.ids, names, strict=True)]
    firsts = Counter(own[0].lower() for own in names)
    chosen = [
        own[0] if firsts[own[0].lower()] == 1 else next((n for n in own[1:] if n.lower() not in firsts), own[0])
        for own in names
    ]
    count = Counter(one.lower() for one in chosen)
    twice = next((one for one in chosen if count[one.lower()] > 1), None)
    if twice is not None:
        raise ModelError(f"two classes are both called {twice!r}", "give classes that differ in words: ?classes=FILE")
    return chosen
