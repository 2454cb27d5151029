"""What may happen to an image: ``clean``, ``corruption(fog, 3)``, ``lowpass(40)``, ``adversary(linf, 4/255, apgd-ce)``,
``transfer(linf, 16/255, mim, from=MODEL)``, or a sum."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from aresbench.core.budget import Ladder, format_fraction, ladder_of
from aresbench.core.errors import SpecError, did_you_mean
from aresbench.core.registry import card, table
from aresbench.core.spec import Call, parse_call, split_top

KINDS = ("clean", "corruption", "adversary", "transfer")  # besides the filters of the registry
EACH = "each"  # in place of a surrogate: every model of the run, one after the other
SEVERITIES = ("1", "2", "3", "4", "5")
DEFAULT_BOUND = "fmn(steps=30)"

# The corruptions whose mean error is mCE, in the order of the benchmark's tables, and those beside it (Hendrycks
# and Dietterich, ICLR 2019).
IMAGENET_C = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
IMAGENET_C_EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")


@dataclass(frozen=True)
class Corruption:
    """A named image change at one severity.

    Args:
        name: registered name, e.g. ``fog``.
        severity: 1 (mild) to 5.
        mode: the protocol: ``memory`` (as ImageNet-C, without saving to JPEG), ``disk`` or ``imagecorruptions``.
    """

    name: str
    severity: int
    mode: str = "memory"

    def __str__(self) -> str:
        mode = "" if self.mode == "memory" else f", mode={self.mode}"
        return f"corruption({self.name}, {self.severity}{mode})"

    @property
    def title(self) -> str:
        return f"{self.name} {self.severity}" + ("" if self.mode == "memory" else f" ({self.mode})")


@dataclass(frozen=True)
class Filter:
    """A part of the picture's frequencies.

    Args:
        name: registered name: ``lowpass`` or ``highpass``.
        radius: where the part ends, in whole waves per image side.
    """

    name: str
    radius: int

    def __str__(self) -> str:
        return f"{self.name}({self.radius})"

    @property
    def title(self) -> str:
        return f"{self.name} {self.radius}"


@dataclass(frozen=True)
class Adversary:
    """An adversary with a ladder of budgets and a list of attacks; the worst case over them counts.

    Args:
        ladder: norm and rungs; pinned ones are attacked cold and in full.
        attacks: attack specs in order; each sees only what the ones before left standing.
        bound: the minimal-norm attack that opens the search between pins, or ``none`` (the search then
            halves the ladder instead). Dropped where every rung is pinned, and where the ladder is a search with
            an order of its own.
        surrogates: of a transfer, the models that the attacks see in place of the one they are to fool (of
            several the mean logits); such an adversary has no bound. ``each``: every model of the run, one
            after the other, each a task of its own.
    """

    ladder: Ladder
    attacks: tuple[str, ...]
    bound: str = DEFAULT_BOUND
    surrogates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unbounded:
            object.__setattr__(self, "bound", "none")

    def __str__(self) -> str:
        attacks = _listed(self.attacks)
        norm, _, sizes = str(self.ladder).partition(":")
        if self.surrogates:
            return f"transfer({norm}, {sizes}, {attacks}, from={_listed(self.surrogates)})"
        bound = "" if self.bound == DEFAULT_BOUND or self.unbounded else f", bound={self.bound}"
        return f"adversary({norm}, {sizes}, {attacks}{bound})"

    @property
    def all_pinned(self) -> bool:
        """Nothing lies between the pins, so nothing is ever searched."""
        return len(self.ladder.pinned) == len(self.ladder.rungs)

    @property
    def unbounded(self) -> bool:
        """No bound opens the search: nothing is searched, the search has its own order, or nobody sees the model."""
        return self.all_pinned or self.ladder.search is not None or bool(self.surrogates)

    @property
    def title(self) -> str:
        names = " + ".join(parse_call(a).name for a in self.attacks)
        rungs = [format_fraction(r) for r in self.ladder.marks]
        sizes = ", ".join(rungs) if self.all_pinned else f"{rungs[0]} … {rungs[-1]}"
        origin = f" from {' + '.join(self.surrogates)}" if self.surrogates else ""
        return f"{names} {self.ladder.norm} {sizes}{origin}"


@dataclass(frozen=True)
class Threat:
    """A chain of changes, applied in order: at most one adversary, and it comes last.

    An empty chain is ``clean``.
    """

    changes: tuple[Corruption | Filter, ...] = ()
    adversary: Adversary | None = None

    @property
    def parts(self) -> tuple[Corruption | Filter | Adversary, ...]:
        return (*self.changes, *([self.adversary] if self.adversary else []))

    @property
    def kind(self) -> str:
        """``clean``, ``corruption``, ``filter`` (filters alone) or ``adversary`` (which may follow the others)."""
        if self.adversary:
            return "adversary"
        if any(isinstance(change, Corruption) for change in self.changes):
            return "corruption"
        return "filter" if self.changes else "clean"

    def __str__(self) -> str:
        """Canonical text; ``parse_threat`` reads it back."""
        return " + ".join(map(str, self.parts)) or "clean"

    @property
    def title(self) -> str:
        """A short name for tables."""
        return " + ".join(part.title for part in self.parts) or "clean"


def parse_threats(text: str) -> list[Threat]:
    """Read a text in which corruptions, severities and radii may be lists: one threat for each combination.

    ``corruption([fog, snow], [1, 3])`` is four threats, ``corruption(imagenet-c, all)`` the 75 of the benchmark,
    ``corruption(imagenet-c-extra, all)`` those of its four extras, ``lowpass([110, 60, 10])`` three. The first part
    varies slowest.

    Raises:
        SpecError, UnknownName: as :func:`parse_threat`.
    """
    return [parse_threat(" + ".join(parts)) for parts in product(*map(_each, split_top(text, "+")))]


def _each(piece: str) -> list[str]:
    """The texts of one part, its lists taken apart."""
    call = parse_call(piece)
    if call.name not in ("corruption", *table("filters")) or not call.args:
        return [piece]
    rest = [f"{key}={value}" for key, value in call.kwargs.items()]
    if call.name == "corruption":
        firsts = benchmark(call.args[0]) or unlisted(call.args[0])
        if "severity" in call.kwargs:
            rest = [text for text in rest if not text.startswith("severity=")]
        levels = call.args[1] if len(call.args) > 1 else call.kwargs.get("severity", "")
        seconds = list(SEVERITIES) if levels == "all" else unlisted(levels)
        variants = [[a, b] if b else [a] for a in firsts for b in seconds]
    else:
        variants = [[a] for a in unlisted(call.args[0])]
    return [f"{call.name}({', '.join([*settings, *call.args[2:], *rest])})" for settings in variants]


def parse_threat(text: str) -> Threat:
    """Read e.g. ``corruption(fog, 3) + adversary(linf, [1,2,4*]/255, [apgd-ce, square])``.

    Raises:
        SpecError: unknown kind or setting, or an adversary that is not the last part.
        UnknownName: no such corruption or attack.
    """
    changes: list[Corruption | Filter] = []
    adversary: Adversary | None = None
    for piece in split_top(text, "+"):
        call = parse_call(piece)
        if adversary is not None:
            raise SpecError(f"in {text!r} something follows the adversary", "an adversary comes last, and only once")
        if call.name == "clean":
            _no_more(call, 0, ())
        elif call.name == "corruption":
            changes.append(_corruption(call))
        elif call.name in table("filters"):
            changes.append(_filter(call))
        elif call.name == "adversary":
            adversary = _adversary(call)
        elif call.name == "transfer":
            adversary = _transfer(call)
        else:
            raise SpecError(
                f"there is no threat called {call.name!r}",
                did_you_mean(call.name, known := (*KINDS, *table("filters"))) or f"threats are {', '.join(known)}",
            )
    return Threat(tuple(changes), adversary)


def _no_more(call: Call, most: int, keys: tuple[str, ...]) -> None:
    if len(call.args) > most:
        raise SpecError(f"{call.name}(…) takes at most {most} unnamed settings, got {len(call.args)}")
    for key in call.kwargs:
        if key not in keys:
            hint = did_you_mean(key, keys) or f"its settings are {', '.join(keys) or 'none'}"
            raise SpecError(f"{call.name}(…) has no setting {key!r}", hint)


def _corruption(call: Call) -> Corruption:
    _no_more(call, 2, ("severity", "mode"))
    if not call.args:
        raise SpecError("a corruption needs a name", "write e.g. corruption(fog, 3)")
    if len(call.args) > 1 and "severity" in call.kwargs:
        raise SpecError(f"the severity of {call.args[0]} is given twice", f"write e.g. corruption({call.args[0]}, 3)")
    name = call.args[0]
    severity = call.args[1] if len(call.args) > 1 else call.kwargs.get("severity", "")
    if benchmark(name) or name.startswith("[") or severity == "all" or severity.startswith("["):
        raise SpecError(
            f"{call.name}({', '.join(call.args)}) is several threats, where one is asked for",
            "a suite takes them apart, and so does aresbench.tasks(dataset, threats)",
        )
    known_component("corruptions", name)
    if severity not in SEVERITIES:
        raise SpecError(f"severity must be 1 to 5, got {severity!r}", f"write e.g. corruption({name}, 3)")
    return Corruption(name, int(severity), call.kwargs.get("mode", "memory"))


def _filter(call: Call) -> Filter:
    _no_more(call, 1, ("r",))
    example = f"write e.g. {call.name}(40)"
    if len(call.args) == len(call.kwargs):
        raise SpecError(f"{call.name}(…) takes one radius", example)
    radius = call.args[0] if call.args else call.kwargs["r"]
    if not radius.isascii() or not radius.isdigit() or int(radius) < 1:
        raise SpecError(f"the radius of {call.name}(…) must be a whole number of at least 1, got {radius!r}", example)
    return Filter(call.name, int(radius))


def benchmark(name: str) -> tuple[str, ...]:
    """The corruptions of a benchmark (``imagenet-c``, ``imagenet-c-extra``), or none if it is no such name."""
    return {"imagenet-c": IMAGENET_C, "imagenet-c-extra": IMAGENET_C_EXTRA}.get(name, ())


def _adversary(call: Call) -> Adversary:
    _no_more(call, 3, ("attacks", "bound"))
    ladder, attacks = _ladder_and_attacks(call, "adversary(linf, 4/255, apgd-ce)")
    return Adversary(ladder, attacks, canonical(call.kwargs.get("bound", DEFAULT_BOUND)))


def _transfer(call: Call) -> Adversary:
    _no_more(call, 3, ("attacks", "from"))
    example = "transfer(linf, 16/255, mim, from=timm:resnet50.a1_in1k)"
    ladder, attacks = _ladder_and_attacks(call, example)
    surrogates = unlisted(call.kwargs.get("from", ""))
    if surrogates == [""]:
        raise SpecError("a transfer needs a surrogate, on which its attacks search", f"e.g. {example}")
    return Adversary(ladder, attacks, "none", tuple(surrogates))


def _ladder_and_attacks(call: Call, example: str) -> tuple[Ladder, tuple[str, ...]]:
    if len(call.args) < 2:
        raise SpecError(f"{call.name}(…) needs a norm, a budget and an attack", f"e.g. {example}")
    if len(call.args) > 2 and "attacks" in call.kwargs:
        raise SpecError("the attacks of an adversary are given twice", "put several into one list: [apgd-ce, square]")
    listed = unlisted(call.args[2] if len(call.args) > 2 else call.kwargs.get("attacks", ""))
    if listed == [""]:
        raise SpecError("an adversary needs at least one attack", f"e.g. {example}")
    for spec in listed:
        known_component("attacks", parse_call(spec).name)
    return ladder_of(call.args[0], call.args[1]), tuple(map(canonical, listed))


def unlisted(text: str) -> list[str]:
    """The entries of ``[a, b]``, or the one text."""
    return split_top(text[1:-1], ",") if text.startswith("[") else [text]


def _listed(entries: tuple[str, ...]) -> str:
    return entries[0] if len(entries) == 1 else "[" + ", ".join(entries) + "]"


def canonical(spec: str) -> str:
    """One spelling for a component with settings: no spaces but after commas."""
    call = parse_call(spec)
    settings = [*map(_tidy, call.args), *(f"{key}={_tidy(value)}" for key, value in call.kwargs.items())]
    return f"{call.name}({', '.join(settings)})" if settings else call.name


def _tidy(value: str) -> str:
    """One spelling of a setting's value: of lists too, and of components inside them."""
    if value.startswith("[") and value.endswith("]"):
        return "[" + ", ".join(map(_tidy, split_top(value[1:-1], ","))) + "]"
    return canonical(value) if value.endswith(")") and value[0] not in "'\"" else value


def known_component(kind: str, name: str) -> None:
    """Refuse a name that is neither registered nor a path to an object, before anything is loaded."""
    if ":" not in name and name not in table(kind):
        card(kind, name)  # the registry words the refusal
