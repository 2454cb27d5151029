"""Make the tables of published figures anew from their sources' files.

    python scripts/make_published.py --robustbench leaderboard.csv --timm FOLDER -o src/aresbench/metrics/published

RobustBench: one file with its entries, a row each. timm: the folder of its results-*.csv.
The other tables (paper, oodrobustbench, easyrobust) were typed by hand from publications: a few rows each.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from aresbench.metrics.published import FACTS

Row = dict[str, str]

TIMM = {
    "imagenet": "results-imagenet.csv",
    "v2": "results-imagenetv2-matched-frequency.csv",
    "sketch": "results-sketch.csv",
    "r": "results-imagenet-r.csv",
    "r-clean": "results-imagenet-r-clean.csv",
    "a": "results-imagenet-a.csv",
    "a-clean": "results-imagenet-a-clean.csv",
    "real": "results-imagenet-real.csv",
}
# The board's entries that are models of this package's zoo.
OURS = {
    "Liu2023Comprehensive_ConvNeXt-B": "zoo:convnextb_at",
    "Liu2023Comprehensive_ConvNeXt-L": "zoo:convnextl_at",
    "Liu2023Comprehensive_Swin-B": "zoo:swinb_at",
    "Liu2023Comprehensive_Swin-L": "zoo:swinl_at",
}
FAMILIES = {
    "ConvNeXtV2": "convnextv2", "ConvNeXt": "convnext", "PreActResNet": "preactresnet", "WideResNet": "wide_resnet",
    "ResNeXt": "resnext", "ResNest": "resnest", "ResNet": "resnet", "DenseNet": "densenet", "AlexNet": "alexnet",
    "Swin": "swin", "XCiT": "xcit", "DeiT": "deit", "ViT": "vit",
}  # fmt: skip
OWN_DATA = {"imagenet": "ImageNet-1K", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
# timm's names are NETWORK.TAG. How weights were made, and on what: the first pattern found in the name. What stands in
# none, and is no tag of words we know to be recipes for ImageNet-1K alone, is not told: empty, never guessed.
IN21K = "ImageNet-21K or a part of it"
TRAINING = (
    (r"\.tf_adv_|\.tf_ens_adv_|\.ap_in1k$", "adversarially trained", "ImageNet-1K"),  # ap: AdvProp
    (r"laion", "multi-modal", "LAION"),
    (r"\.openai_", "multi-modal", "OpenAI's pairs"),
    (r"\.webli_", "multi-modal", "WebLI"),
    (r"\.clip_ft_in1k$|^beit3_", "multi-modal", "pairs of image and text"),
    (r"\.mim_m38m_|\.m30m_", "self-supervised", "merged 30 or 38 M"),
    (r"\.seer_", "self-supervised", "Instagram"),
    (r"\.fcmae_ft_in22k_|\.mim_in22k_|^(beit|beitv2|eva_large)_.*in22k_", "self-supervised", IN21K),
    (r"\.fcmae_ft_in1k$|\.mae_in1k_ft_in1k$|^beitv2_.*\.in1k_ft_in1k$", "self-supervised", "ImageNet-1K"),
    (r"\.ns_jft_", "pre-trained", "JFT-300M"),
    (r"\.fb_s?wsl_ig1b_|\.swag_", "pre-trained", "Instagram"),
    (r"\.fb_ssl_yfcc100m_", "pre-trained", "YFCC100M"),
    (r"(in12k|in21k|in22k)_(ft_)?in1k", "pre-trained", IN21K),
    (r"\.ssld_stage2_ft_in1k", "pre-trained", IN21K),
    (r"\.bd_ssld_6m_in1k", "pre-trained", "6 M images that are not told"),
    (r"ssld|^flexivit_", "", ""),  # distilled, on images or begun from weights that the name does not tell
)
# Words of tags that name who trained, or by which recipe, and no further data.
RECIPES = (
    r"\d+ep?|e\d+|[rs]\d+|a[123]h?|aa|agc|ah|am|apple|aug|augreg|b[12]k|bd|bt|c[123]|c2ns|ch|cvnets|d|d[12]h?|deit|"
    r"dist|distilled|dm|fb|ft|gluon|goog|green|idstcv|ix|lamb|miil|ms|msft|mx|nav|naver|nv|orig|paddle|pycls|ra[234]?|"
    r"racm|ram|rmsp|rvgg|sail|sam|sbb|snap|sw|tf|tv2?|usi|in1k|\d+"
)
# Networks whose family is not the first word of their names, or that is written together with a size.
FAMILY = (
    (r"inception_(next|resnet)|mobilenet_edgetpu|lambda_resnet|nf_regnet|tiny_vit|wide_resnet", None),
    (r"cs3(se_)?edgenet", "cs3edgenet"), (r"nasneta", "nasnet"), (r"pnasnet", "pnasnet"), (r"dla\d", "dla"),
    (r"ecaresnet", "ecaresnet"), (r"beit3", "beit3"),
)  # fmt: skip


def robustbench(file: Path) -> list[Row]:
    """One row an entry of the board; figures stand in a column of their budget."""
    rows = []
    for entry in _read(file):
        adversary = entry["threat"] in ("Linf", "L2")
        budget = f" {entry['threat'].lower()} {entry['eps']}"
        named = entry["id"].startswith("Standard") or entry["id"] == "AlexNet"
        trained = adversary or bool(re.search(r"_(Linf|L2)$", entry["id"])) or bool(entry["eps"])
        row = {
            "key": OURS.get(entry["id"], f"robustbench:{entry['dataset']}/{entry['threat'].lower()}/{entry['id']}"),
            "board": entry["dataset"],
            "name": entry["id"],
            "family": next((own for word, own in FAMILIES.items() if word in entry["architecture"]), ""),
            "architecture": entry["architecture"] if re.search("[A-Za-z]", entry["architecture"]) else "",
            "paradigm": "normal" if named else "adversarially trained" if trained else "",
            "data": "more than " * (entry["additional_data"] == "True") + OWN_DATA[entry["dataset"]],
            "note": f"{entry['name']}. {entry['venue']}"
            + (". The board marks its AutoAttack figure as unreliable" if entry["unreliable"] == "True" else ""),
            "flags": "unreliable" if entry["unreliable"] == "True" else "",
            "link": entry["link"],
            "clean": entry["clean_acc"],
            "reported": entry["reported"],
            "corruption accuracy": entry["corruptions_acc"],
            "mce": entry["corruptions_mce"],
            "corruption accuracy 3d": entry["corruptions_acc_3d"],
            "mce 3d": entry["corruptions_mce_3d"],
        }
        if adversary:
            row |= {"autoattack" + budget: entry["autoattack_acc"], "external" + budget: entry["external"]}
        rows.append(row)
    return sorted(rows, key=lambda r: (r["board"], r["key"]))


def timm(folder: Path) -> list[Row]:
    """One row a (model, input size) of its ImageNet table: top-1 on every dataset."""
    found = {measure: {(r["model"], r["img_size"]): r for r in _read(folder / file)} for measure, file in TIMM.items()}
    rows = []
    for (model, size), entry in found["imagenet"].items():
        network = model.partition(".")[0]
        paradigm, data = training(model)
        row = {
            "key": f"timm:{model} @{size}",
            "board": "imagenet",
            "name": model,
            "family": family(network),
            "architecture": network,
            "paradigm": paradigm,
            "data": data,
            "parameters": str(round(float(entry["param_count"].replace(",", "")) * 1e6)),
            "size": size,
            "note": f"crop {float(entry['crop_pct']):g}, {entry['interpolation']}",
        }
        for measure, table in found.items():
            if (model, size) in table:
                row[measure] = f"{float(table[model, size]['top1']):g}"
        rows.append(row)
    return sorted(rows, key=lambda r: (r["name"], int(r["size"])))


def family(network: str) -> str:
    """``resnet`` of ``resnet50``, ``vit`` of ``vit_base_patch16_224``, ``convnextv2`` of ``convnextv2_tiny``."""
    for pattern, name in FAMILY:
        if found := re.match(pattern, network):
            return name or found.group()
    parts = [p for p in network.split("_") if p not in ("tf", "legacy", "test", "nf", "dm", "eca", "gc", "ese")]
    return re.sub(r"(?<!v)(?<!\d)\d+[a-z]{0,3}$", "", parts[0]) or parts[0]


def training(model: str) -> tuple[str, str]:
    """Paradigm and training data by the name of the weights; empty where it does not tell them.

    Pre-trained means labels or pseudo-labels of more images than ImageNet-1K's; the student's images count where one
    network was distilled from another.
    """
    for pattern, paradigm, data in TRAINING:
        if re.search(pattern, model):
            return paradigm, data
    words = model.partition(".")[2].split("_")
    plain = "in1k" in words and all(re.fullmatch(RECIPES, word) for word in words)
    return ("normal", "ImageNet-1K") if plain else ("", "")


def _read(file: Path) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [{k: "" if v == "null" else v for k, v in row.items()} for row in csv.DictReader(stream)]


def write(rows: Iterable[Mapping[str, str]], file: Path) -> None:
    """Facts first, then the figures that any row has."""
    rows = list(rows)
    figures = [k for k in dict.fromkeys(k for row in rows for k, v in row.items() if v) if k not in FACTS]
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*FACTS, *figures], delimiter="\t", lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    print(file, len(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robustbench", type=Path, metavar="FILE")
    parser.add_argument("--timm", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    args = parser.parse_args()
    if args.robustbench:
        write(robustbench(args.robustbench), args.output / "robustbench.tsv")
    if args.timm:
        write(timm(args.timm), args.output / "timm.tsv")


if __name__ == "__main__":
    main()
