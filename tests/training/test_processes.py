"""Several processes train as one would; attacks stay among themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from plugins.forked import Forge, Outcome, free_port
from safetensors.torch import load_file
from torch import Tensor, nn

from aresbench.core.errors import SpecError, StoreError
from aresbench.core.preprocessing import Preprocessing
from aresbench.data.load import load_dataset
from aresbench.models.architectures.small_cnn import SmallCNN
from aresbench.models.classifier import Classifier
from aresbench.store.files import write_atomic
from aresbench.training import lesson, loop
from aresbench.training import world as worlds
from aresbench.training.learner import Learner
from aresbench.training.loop import train
from aresbench.training.recipe import load_recipe
from aresbench.training.spread import has_spare_parameters
from aresbench.training.watch import SHARD, HeldOut, Measured
from aresbench.training.world import first_host, joined

RECIPE = """
[model]
architecture = "timm:vit_tiny_patch16_224"
arguments = {patch_size = 8, embed_dim = 24, depth = 2, num_heads = 2}
size = 32
resize = 32
[data]
train = "npz:learned.npz"
validation = "npz:watched.npz"
[augment]
crop = "none"
smoothing = 0.1
[threat]
budgets = ["linf:8/255"]
attack = "pgd(steps=2, rel_step=0.75)"
iterate = "best"
[optimizer]
name = "sgd"
lr = 0.05
lr_batch = 0
clip = 1.0
[schedule]
epochs = 2
[average]
decay = 0.8
[engine]
batch = 12
[watch]
every = 2
attack = "pgd(steps=2)"
[machine]
workers = 0
checkpoint_minutes = 60
log_every = 1
"""


@pytest.fixture(scope="module")
def recipe(coloured: Callable[[str, int], Path]) -> Path:
    """Eight updates of a small vision transformer, which has no batch norm."""
    return coloured(RECIPE, 48)


def run(recipe: str, out: str, changes: Any) -> dict[str, Any]:
    """Train, listening to what processes tell one another in attacks and in training passes."""
    heard: dict[str, set[str]] = {"attacks": set(), "passes": set()}
    lesson.ascend = _listened(lesson.ascend, heard["attacks"])
    lesson.ClassroomLesson._descend = _listened(  # type: ignore[method-assign]
        lesson.ClassroomLesson._descend, heard["passes"]
    )
    card = train(load_recipe(recipe, changes), out).card
    return {"notes": card["notes"], **{place: sorted(words) for place, words in heard.items()}}


def _listened(work: Any, words: set[str]) -> Any:
    calls = iter(range(2))

    def call(*args: Any, **named: Any) -> Any:
        if next(calls, None) is None:  # listening takes time
            return work(*args, **named)
        with torch.autograd.profiler.profile() as listener:
            result = work(*args, **named)
        words.update(e.name for e in listener.function_events or () if "c10d" in e.name or "gloo" in e.name)
        return result

    return call


def interrupted(recipe: str, out: str, changes: list[str], after: int) -> None:
    """Train, and be asked to stop after some updates: of several processes only the last one is asked."""
    advance = Learner.advance

    def counted(self: Learner) -> None:
        advance(self)
        if self.step == after and self.world.rank == self.world.size - 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    Learner.advance = counted  # type: ignore[method-assign]
    train(load_recipe(recipe, changes), out)


def fine(ends: list[Outcome]) -> list[Outcome]:
    assert [end.error for end in ends] == [""] * len(ends)
    return ends


def apart(one: Path, other: Path) -> float:
    """The largest difference between the weights of two trainings, relative to the largest change they made."""
    a, b = load_file(one / "last.safetensors"), load_file(other / "last.safetensors")
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max() / a[k].abs().max()) for k in a)


@pytest.fixture(scope="module")
def alone(forge: Forge, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the recipe."""
    out = tmp_path_factory.mktemp("alone")
    fine(forge.run(__file__, "run", recipe=str(recipe), out=str(out), changes=[]))
    return out


@pytest.mark.parametrize(
    ("processes", "changes"),
    [(1, ["engine.accumulate=3"]), (2, []), (2, ["engine.accumulate=2"]), (2, ["engine.parallel=fsdp"])],
)
def test_processes_and_parts_make_the_update_of_the_whole_batch(
    forge: Forge, recipe: Path, alone: Path, tmp_path: Path, processes: int, changes: list[str]
) -> None:
    ends = fine(forge.run(__file__, "run", processes, recipe=str(recipe), out=str(tmp_path), changes=changes))
    assert apart(alone, tmp_path) < 1e-4
    for end in ends:
        assert end.value["attacks"] == []
        assert bool(end.value["passes"]) == (processes > 1)  # gradients are exchanged there, and only there


def test_perturbed_weights_move_alike_on_all_processes(forge: Forge, recipe: Path, tmp_path: Path) -> None:
    changes = ["perturb=awp(gamma=0.05)", "schedule.epochs=1", "watch.every=1"]
    for processes in (1, 2):
        out = str(tmp_path / str(processes))
        fine(forge.run(__file__, "run", processes, recipe=str(recipe), out=out, changes=changes))
    assert apart(tmp_path / "1", tmp_path / "2") < 1e-4


@pytest.mark.parametrize(("processes", "parallel"), [(2, "fsdp"), (3, "ddp")])
def test_models_in_parts_and_sums_of_three_go_on_to_the_bit(
    forge: Forge, recipe: Path, tmp_path: Path, processes: int, parallel: str
) -> None:
    changes = [f"engine.parallel={parallel}", "optimizer.name=adamw", "optimizer.lr=1e-3"]
    order = {"processes": processes, "recipe": str(recipe), "changes": changes}
    fine(forge.run(__file__, "run", **order, out=str(tmp_path / "whole")))
    ends = forge.run(__file__, "interrupted", **order, out=str(tmp_path / "torn"), after=3)
    assert all("stopped after 3 of 8 updates" in end.error for end in ends), ends
    fine(forge.run(__file__, "run", **order, out=str(tmp_path / "torn")))
    for name in ("last.safetensors", "weights.safetensors"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_number_of_processes_and_workers_goes_on_and_is_written_down(
    forge: Forge, recipe: Path, alone: Path, tmp_path: Path
) -> None:
    order = {"recipe": str(recipe), "out": str(tmp_path)}
    forge.run(__file__, "interrupted", **order, changes=[], after=2)
    forge.run(__file__, "interrupted", 2, **order, changes=["machine.workers=1"], after=5)
    (end,) = fine(forge.run(__file__, "run", **order, changes=["machine.workers=2"]))
    assert end.value["notes"] == [
        "from update 2 on 2 processes instead of 1",
        "from update 5 on 1 processes instead of 2",
    ]
    assert apart(alone, tmp_path) < 1e-4


class Spare(nn.Module):
    """A classifier with a layer that nobody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.spare = nn.Linear(3 * 32 * 32, 3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x.flatten(1))
        return logits


def test_a_layer_that_no_objective_reaches_holds_nobody_up(forge: Forge, recipe: Path, tmp_path: Path) -> None:
    changes = {"model.architecture": f"{__file__}:Spare", "model.arguments": {}, "optimizer.clip": 0}
    order = {"recipe": str(recipe), "changes": changes}
    fine(forge.run(__file__, "run", **order, out=str(tmp_path / "one")))
    fine(forge.run(__file__, "run", 2, **order, out=str(tmp_path / "two")))
    assert apart(tmp_path / "one", tmp_path / "two") < 1e-4


def test_layers_that_nobody_asks_are_found() -> None:
    classifier = Classifier(Spare(), (0.5,) * 3, (0.5,) * 3, 3, Preprocessing((32, 32)))
    assert has_spare_parameters(classifier)
    classifier.module.spare.requires_grad_(False)
    assert not has_spare_parameters(classifier)


def test_batches_that_do_not_divide_are_refused(forge: Forge, recipe: Path, tmp_path: Path) -> None:
    order = {"recipe": str(recipe), "out": str(tmp_path)}
    for changes, words in (
        (["engine.batch=14", "engine.accumulate=2"], "does not fall into 4 equal parts"),
        (["engine.batch=10", "augment.mixup=0.5"], "does not fall into 2 equal parts of pairs"),
        (["engine.sync_batch_norm=true"], "runs on GPUs only"),
        (["engine.parallel=fsdp", "perturb=awp(gamma=0.01)"], "does not go with adversarial weight perturbation"),
    ):
        for end in forge.run(__file__, "run", 2, **order, changes=changes):
            assert words in end.error
    (end,) = forge.run(__file__, "run", **order, changes=["engine.parallel=fsdp"])
    assert "there is one" in end.error


# -- precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["float32", "bfloat16"])
@pytest.mark.parametrize("outer", ["float32", "bfloat16"])
def test_each_pass_has_the_precision_of_the_recipe(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: str, attack: str
) -> None:
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    forward, learn, busy = Classifier.forward, loop.learn, []

    def learning(*args: Any) -> Any:
        busy.append(True)
        try:
            return learn(*args)
        finally:
            busy.pop()

    def noted(self: Classifier, x: Tensor) -> Tensor:
        if not busy:
            return forward(self, x)
        half = torch.is_autocast_enabled("cpu")
        seen[self.training].add("bfloat16" if half else "float32")
        assert not half or torch.get_autocast_dtype("cpu") == torch.bfloat16
        return forward(self, x)

    monkeypatch.setattr(loop, "learn", learning)
    monkeypatch.setattr(Classifier, "forward", noted)
    monkeypatch.setattr(HeldOut, "measure", lambda *args: Measured(0.5, 0.5, 30))
    changes = ["schedule.epochs=1", "watch.every=1", f"engine.precision={outer}", f"threat.precision={attack}"]
    train(load_recipe(recipe, changes), tmp_path)
    assert seen == {True: {outer}, False: {attack}}
    assert {tensor.dtype for tensor in load_file(tmp_path / "last.safetensors").values()} == {torch.float32}


# -- compiling ---------------------------------------------------------------------------------


def graphs(recipe: str, out: str) -> list[int]:
    """Graphs that torch had made after each update of a compiled training, with a compiler that does nothing."""
    from torch._dynamo.utils import counters

    compile_ = torch.compile
    torch.compile = lambda module, **named: compile_(module, backend="aot_eager", **named)
    made = []
    advance = Learner.advance

    def counted(self: Learner) -> None:
        advance(self)
        made.append(int(counters["stats"]["unique_graphs"]))

    Learner.advance = counted  # type: ignore[method-assign]
    train(load_recipe(recipe, ["machine.compile=true"]), out)
    return made


def test_attack_and_training_are_compiled_once_each(forge: Forge, recipe: Path, alone: Path, tmp_path: Path) -> None:
    (end,) = fine(forge.run(__file__, "graphs", recipe=str(recipe), out=str(tmp_path)))
    assert end.value == [3] * 8  # the attack's steps, its last look without a gradient, the training pass
    assert apart(alone, tmp_path) < 1e-4


def test_methods_that_derive_twice_are_not_compiled(recipe: Path, tmp_path: Path) -> None:
    changes = ["machine.compile=true", "method=grad-align", "threat.iterate=last"]
    with pytest.raises(SpecError, match="grad-align derives gradients once more, which torch cannot compile"):
        train(load_recipe(recipe, changes), tmp_path)


# -- measuring ---------------------------------------------------------------------------------


def measure(n: int, first: int | None) -> list[float]:
    with joined("cpu") as world:
        torch.manual_seed(0)
        classifier = Classifier(SmallCNN(), mean=(0.5,) * 3, std=(0.5,) * 3, preprocessing=Preprocessing((32, 32), 32))
        data = load_dataset("digits")[:n]
        with torch.no_grad():  # an untrained head, turned so that some digits are right
            classifier.module.head.bias[int(data.labels[0])] += 0.05
        found = HeldOut(data, classifier, world).measure(classifier, "pgd(steps=3)", "linf:0.05", first)
    return [found.clean, found.robust, found.n]


def test_held_out_accuracy_is_the_same_over_any_number_of_processes(forge: Forge) -> None:
    for n, first in ((2 * SHARD + 3, None), (2 * SHARD + 3, SHARD + 5), (2, None)):
        (alone,) = fine(forge.run(__file__, "measure", 1, n=n, first=first))
        assert alone.value[2] == (first or n) and alone.value[0] > 0
        for processes in (2, 3, 4):
            for end in fine(forge.run(__file__, "measure", processes, n=n, first=first)):
                assert end.value == alone.value


# -- finding each other ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("gpu[007-010,12],login1", "gpu007"),
        ("a-b[3,5]-x.site", "a-b3-x.site"),
        ("alpha,beta", "alpha"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_slurm_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


SLURM = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": "4711"}


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No launcher has started this process."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "MASTER_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_a_batch_script_runs_one_process_whatever_its_job_may_start(nowhere: pytest.MonkeyPatch) -> None:
    nowhere.setenv("SLURM_PROCID", "0")
    nowhere.setenv("SLURM_NTASKS", "8")
    nowhere.setenv("SLURM_LOCALID", "0")
    assert worlds._place() == (0, 1, 0)


def test_slurms_processes_meet_on_the_first_node_at_the_jobs_port(nowhere: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        nowhere.setenv(name, value)
    with pytest.raises(SpecError, match="MASTER_ADDR does not say where they meet"), joined("cpu"):
        pass
    nowhere.setenv("SLURM_JOB_NODELIST", "gpu[03-04]")
    assert worlds._place() == (1, 2, 1)
    assert worlds._meeting_point(2) == "tcp://gpu03:19711"
    nowhere.setenv("SLURM_STEP_ID", "1")
    assert worlds._meeting_point(2) != "tcp://gpu03:19711"
    nowhere.setenv("MASTER_ADDR", "other")
    nowhere.setenv("MASTER_PORT", "1234")
    assert worlds._meeting_point(2) == "env://"


def tell() -> list[Any]:
    with joined("cpu") as world:
        try:
            world.once(lambda: write_atomic(Path("/proc/nothing/here"), b""))
        except StoreError as error:
            return [world.rank, world.size, error.problem, world.once(lambda: world.rank)]
    return []


def test_slurm_alone_brings_processes_together_and_an_error_reaches_all(forge: Forge) -> None:
    port = str(free_port())  # on a cluster it follows from the job
    slurm = {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "2", "MASTER_PORT": port}
    ends = fine(forge.run(__file__, "tell", 2, environment=slurm, launcher="slurm"))
    assert [end.value[:2] for end in ends] == [[0, 2], [1, 2]]
    assert ends[0].value[2] == ends[1].value[2] and "/proc/nothing" in ends[0].value[2]
    assert [end.value[3] for end in ends] == [0, 0]
