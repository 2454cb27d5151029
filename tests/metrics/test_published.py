"""The tables of published figures: complete, sourced, and equal to the files they were made from."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aresbench.core.errors import UnknownName
from aresbench.metrics.published import names, published

ROOT = Path(__file__).parents[2]
DEV = os.environ.get("ARESBENCH_DEV_DATA")
needs_files = pytest.mark.skipif(not DEV, reason="needs ARESBENCH_DEV_DATA: the sources' own files")


def rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return [{k: "" if v == "null" else v for k, v in row.items()} for row in csv.DictReader(stream)]


def entries(source):
    return {(e.board, e.key): e for e in published(source).entries}


def threat(entry):
    return next((key.split()[1] for key in entry.figures if key.startswith("autoattack ")), "corruptions")


@pytest.mark.parametrize("source", names())
def test_every_figure_has_source_date_licence_and_protocol(source):
    table = published(source)
    assert all((table.title, table.address, table.date, table.licence, table.citation, table.remarks))
    assert len(entries(source)) == len(table.entries)
    used = set()
    for entry in table.entries:
        assert entry.key and entry.board and entry.facts["name"] and entry.figures
        assert all(0 <= value <= 110 for value in entry.figures.values())
        used |= set(entry.figures)
    assert used == set(table.measures)  # no figure without a protocol, no protocol without a figure
    for measure in table.measures.values():
        assert measure.label and len(measure.protocol) > 20 and measure.role
        assert not measure.budget or measure.role in ("robust", "shifted")


def test_the_tables_have_every_row():
    counts = {source: len(published(source).entries) for source in names()}
    assert counts == {"paper": 12, "robustbench": 236, "timm": 1556, "oodrobustbench": 11, "easyrobust": 16}


def test_figures_that_are_known():
    assert entries("paper")["imagenet", "zoo:swinl_at"].figures["autoattack linf 4/255"] == 62.3
    swin = entries("robustbench")["imagenet", "zoo:swinb_at"]
    assert (swin.figures["clean"], swin.figures["autoattack linf 4/255"]) == (76.16, 56.16)
    convnext = entries("timm")["imagenet", "timm:convnext_base.fb_in1k @224"]
    known = {"imagenet": 83.84, "v2": 73.78, "a": 36.69, "r": 51.25, "sketch": 38.24, "real": 88.38}
    assert {k: pytest.approx(convnext.figures[k], abs=0.01) for k in known} == known
    assert convnext.facts["paradigm"] == "normal" and convnext.facts["family"] == "convnext"


READ = {  # checked by hand against what the weights' authors say
    "dla102x2.in1k @224": ("dla", "normal", "ImageNet-1K"),
    "inception_next_tiny.sail_in1k @224": ("inception_next", "normal", "ImageNet-1K"),
    "cs3se_edgenet_x.c2ns_in1k @256": ("cs3edgenet", "normal", "ImageNet-1K"),
    "deit_base_distilled_patch16_224.fb_in1k @224": ("deit", "normal", "ImageNet-1K"),
    "regnety_160.deit_in1k @224": ("regnety", "normal", "ImageNet-1K"),
    "tf_efficientnet_b0.ap_in1k @224": ("efficientnet", "adversarially trained", "ImageNet-1K"),
    "inception_v3.tf_adv_in1k @299": ("inception", "adversarially trained", "ImageNet-1K"),
    "tf_efficientnet_b0.ns_jft_in1k @224": ("efficientnet", "pre-trained", "JFT-300M"),
    "resnet18.fb_swsl_ig1b_ft_in1k @224": ("resnet", "pre-trained", "Instagram"),
    "hgnetv2_b2.ssld_stage2_ft_in1k @224": ("hgnetv2", "pre-trained", "ImageNet-21K or a part of it"),
    "nextvit_base.bd_ssld_6m_in1k @224": ("nextvit", "pre-trained", "6 M images that are not told"),
    "hgnet_small.ssld_in1k @224": ("hgnet", "", ""),
    "flexivit_base.1200ep_in1k @240": ("flexivit", "", ""),
    "eva_large_patch14_196.in22k_ft_in1k @196": ("eva", "self-supervised", "ImageNet-21K or a part of it"),
    "hiera_base_224.mae_in1k_ft_in1k @224": ("hiera", "self-supervised", "ImageNet-1K"),
    "regnety_320.seer_ft_in1k @384": ("regnety", "self-supervised", "Instagram"),
    "beit3_base_patch16_224.indomain_in22k_ft_in1k @224": ("beit3", "multi-modal", "pairs of image and text"),
    "vit_base_patch32_clip_448.laion2b_ft_in12k_in1k @448": ("vit", "multi-modal", "LAION"),
}


@pytest.mark.parametrize("key", READ)
def test_family_and_training_are_read_from_timms_names(key):
    facts = entries("timm")["imagenet", f"timm:{key}"].facts
    assert (facts["family"], facts["paradigm"], facts["data"]) == READ[key]


def test_robustbenchs_words_are_those_of_the_other_tables():
    facts = {e.facts["name"]: e.facts for e in published("robustbench").entries}
    assert facts["Liu2023Comprehensive_Swin-B"]["data"] == entries("paper")["imagenet", "zoo:swinb_at"].facts["data"]
    assert facts["Carmon2019Unlabeled"]["data"] == "more than CIFAR-10"
    assert facts["Carmon2019Unlabeled"]["family"] == "wide_resnet"
    assert {f["family"] for f in facts.values() if "PreAct" in f["architecture"]} == {"preactresnet"}


def test_a_figure_that_its_board_doubts_says_so():
    doubted = [e.facts["name"] for e in published("robustbench").entries if e.facts["flags"]]
    assert len(doubted) == 2 and all("unreliable" in e.facts["note"] for e in published("robustbench").entries
                                     if e.facts["flags"])  # fmt: skip


def test_a_share_of_n_images_has_an_interval_and_a_mean_has_none():
    table = published("robustbench")
    value, low, high = table.measures["autoattack linf 4/255"].score(56.16, "imagenet")
    assert value == 0.5616 and 0.547 < low < 0.549 and 0.574 < high < 0.576  # 5,000 images
    assert table.measures["corruption accuracy"].score(36.09, "imagenet") == (pytest.approx(0.3609),) * 3
    assert table.measures["autoattack linf 4/255"].score(0, "imagenet")[1:] == (0, pytest.approx(0.00077, abs=1e-5))


def test_an_unknown_source_names_the_right_one():
    with pytest.raises(UnknownName, match="robustbench"):
        published("robustbensh")


@needs_files
def test_robustbench_is_what_its_file_says():
    table = published("robustbench")
    mine = {(e.board, e.facts["name"], threat(e)): e for e in table.entries}
    found = rows(Path(DEV, "robustbench", "leaderboard.csv"))
    assert len(found) == len(mine) == 236
    for row in found:
        entry = mine[row["dataset"], row["id"], row["threat"].lower()]
        budget = f" {row['threat'].lower()} {row['eps']}"
        expected = {
            "clean": row["clean_acc"],
            "autoattack" + budget: row["autoattack_acc"],
            "external" + budget: row["external"],
            "reported": row["reported"],
            "corruption accuracy": row["corruptions_acc"],
            "mce": row["corruptions_mce"],
            "corruption accuracy 3d": row["corruptions_acc_3d"],
            "mce 3d": row["corruptions_mce_3d"],
        }
        assert entry.figures == {k: float(v) for k, v in expected.items() if v}


@needs_files
def test_timm_is_what_its_files_say():
    files = {
        "imagenet": "imagenet", "a": "imagenet-a", "a-clean": "imagenet-a-clean", "r": "imagenet-r",
        "r-clean": "imagenet-r-clean", "real": "imagenet-real", "v2": "imagenetv2-matched-frequency",
        "sketch": "sketch",
    }  # fmt: skip
    mine = entries("timm")
    told = 0
    for measure, file in files.items():
        found = {
            f"timm:{r['model']} @{r['img_size']}": r for r in rows(Path(DEV, "timm-results", f"results-{file}.csv"))
        }
        for (_, key), entry in mine.items():
            assert entry.figures.get(measure) == (float(found[key]["top1"]) if key in found else None)
            told += measure in entry.figures
    assert told == 8 * 1556 - 1  # one model was not run on ImageNet-A


@needs_files
def test_the_script_makes_the_shipped_tables(tmp_path):
    command = [sys.executable, "scripts/make_published.py", "--robustbench", f"{DEV}/robustbench/leaderboard.csv"]
    command += ["--timm", f"{DEV}/timm-results", "-o", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, timeout=60)
    for name in ("robustbench.tsv", "timm.tsv"):
        assert (tmp_path / name).read_bytes() == (ROOT / "src/aresbench/metrics/published" / name).read_bytes()
