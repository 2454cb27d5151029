"""Make the tables of published figures anew from their sources' files.

    python scripts/make_published.py --robustbench leaderboard.csv --timm FOLDER -o src/aresbench/metrics/published

RobustBench: one file with its entries, a row each. timm: the folder of its results-*.csv and model_metadata-in1k.csv.
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
    "ConvNeXtV2": "convnextv2", "ConvNeXt": "convnext", "PreActResNet": "preact_resnet", "WideResNet": "wide_resnet",
    "ResNeXt": "resnext", "ResNest": "resnest", "ResNet": "resnet", "DenseNet": "densenet", "AlexNet": "alexnet",
    "Swin": "swin", "XCiT": "xcit", "DeiT": "deit", "ViT": "vit",
}  # fmt: skip
# What timm's words for training data and manner mean, first match first.
MULTI_MODAL = r"laion|openai|clip|webli|dfn|metaclip|datacomp|siglip"
SELF_SUPERVISED = r"mae|mim|dino|seer|indomain|beit|m30m|m38m|selfsl"
DATA = (
    (r"laion", "LAION"), (r"clip_ft", "pairs of image and text"), (r"openai", "OpenAI's pairs"),
    (r"webli", "WebLI"), (r"dfn", "DFN"),
    (r"m30m|m38m", "merged 30 or 38 M"), (r"jft", "JFT-300M"), (r"ig1b|swag|seer", "Instagram"), (r"yfc", "YFCC100M"),
    (r"in22k|in21k|in12k", "ImageNet-21K or a part of it"), (r"in1k|", "ImageNet-1K"),
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
            "data": "more than the dataset" if entry["additional_data"] == "True" else "the dataset alone",
            "note": f"{entry['name']}. {entry['venue']}"
            + (". The board marks its AutoAttack figure as unreliable" if entry["unreliable"] == "True" else ""),
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
    known = {row["model"]: row["pretrain"] for row in _read(folder / "model_metadata-in1k.csv")}
    found = {measure: {(r["model"], r["img_size"]): r for r in _read(folder / file)} for measure, file in TIMM.items()}
    rows = []
    for (model, size), entry in found["imagenet"].items():
        network, _, tag = model.partition(".")
        words = f"{network} {tag} {known.get(network, '')}"
        row = {
            "key": f"timm:{model} @{size}",
            "board": "imagenet",
            "name": model,
            "family": family(network),
            "architecture": network,
            "paradigm": paradigm(words, tag),
            "data": next(name for pattern, name in DATA if re.search(pattern, tag or words)),
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
    parts = [p for p in network.split("_") if p not in ("tf", "legacy", "test", "nf", "dm", "eca", "gc", "ese")] or [
        network
    ]
    word = "_".join(parts[:2]) if parts[0] in ("wide", "tiny") else parts[0]
    return re.sub(r"(?<!v)(?<!\d)\d+[a-z]{0,3}$", "", word) or word


def paradigm(words: str, tag: str) -> str:
    """How the weights were made, by the words of their names."""
    if re.search(r"\badv|_adv", words) or tag in ("tf_adv_in1k", "tf_ens_adv_in1k"):
        return "adversarially trained"
    if re.search(MULTI_MODAL, tag):
        return "multi-modal"
    if re.search(SELF_SUPERVISED, words):
        return "self-supervised"
    if re.search(r"in22k|in21k|in12k|jft|ig1b|swag|yfc", tag):
        return "pre-trained"
    return "normal"


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
