"""Attempt after attempt on many images: each follows its own plan, those at the same attack share a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from torch import Tensor

from aresbench.attacks.base import Attack
from aresbench.core.threat import Adversary
from aresbench.engine.driver import Driver, Finished, Job
from aresbench.engine.ladder import Attempt, Move, next_move
from aresbench.engine.prepare import Prepared
from aresbench.engine.transfer import Made, Transfer

Group = list[tuple[Finished, Move]]


class Campaign:
    """An adversary against one model and a set of images.

    Args:
        model: the prepared classifier.
        adversary: ladder and attacks, ensembles already taken apart.
        attacks: its attacks and its bound by their spec texts.
        x, y, ids, target, seed, batch, rounding: as in ``Driver``.
        surrogate: what the attacks see instead of ``model``, which then only judges.
        made: what they made of these images for another model.
    """

    def __init__(
        self,
        model: Prepared,
        adversary: Adversary,
        attacks: Mapping[str, Attack],
        x: Tensor,
        y: Tensor,
        ids: Sequence[str],
        *,
        target: Tensor | None = None,
        seed: int = 0,
        batch: int | None = None,
        rounding: bool = False,
        surrogate: Prepared | None = None,
        made: Made | None = None,
    ) -> None:
        self.model, self.adversary, self.attacks, self.surrogate = model, adversary, attacks, surrogate
        self.made = made
        self.x, self.y, self.ids, self.target = x, y, ids, target
        self.seed, self.batch, self.rounding = seed, batch, rounding
        self.minimal = frozenset(spec for spec, attack in attacks.items() if attack.kind == "minimal")
        self.attempts: dict[int, list[Attempt]] = {row: [] for row in range(len(x))}
        self.closed = 0
        self._waiting: dict[str, deque[tuple[int, Move]]] = {spec: deque() for spec in attacks}

    def run(self, rows: Collection[int]) -> Iterator[Group]:
        """Work through the plans of these images; yields finished attempts in groups.

        What ``attempts`` already holds of them is not done again. ``closed`` counts the images whose case
        is closed.
        """
        for row in rows:
            self._enqueue(row)
        while any(self._waiting.values()):
            spec = max(self._waiting, key=lambda s: len(self._waiting[s]))
            for group in self._drive(spec, self._waiting[spec]):
                for finished, move in group:
                    seen = finished.prediction if finished.broken else None
                    row = finished.job.row
                    self.attempts[row].append(Attempt(move.attack, move.eps, finished.broken, finished.distance, seen))
                    self._enqueue(row)
                yield group

    def again(self, row: int, move: Move) -> Finished:
        """One attempt made once more; it draws the same numbers."""
        ((finished, _),) = [pair for group in self._drive(move.attack, deque([(row, move)])) for pair in group]
        return finished

    def repeat(self, moves: Iterable[tuple[int, Move]]) -> Iterator[Group]:
        """Many attempts made once more, those of one attack in batches; yields them in groups."""
        queues: dict[str, deque[tuple[int, Move]]] = {spec: deque() for spec in self.attacks}
        for row, move in moves:
            queues[move.attack].append((row, move))
        for spec, queue in queues.items():
            yield from self._drive(spec, queue)

    def _enqueue(self, row: int) -> None:
        move = next_move(self.adversary, self.attempts[row], self.minimal)
        if move is None:
            self.closed += 1
        else:
            self._waiting[move.attack].append((row, move))

    def _drive(self, spec: str, queue: deque[tuple[int, Move]]) -> Iterator[Group]:
        """Run one attack until its queue is empty; what the consumer enqueues meanwhile joins the batch."""
        driver = self._driver(spec)
        jobs: deque[Job] = deque()
        moves: dict[tuple[int, str], Move] = {}

        def refill() -> None:
            while queue:
                row, move = queue.popleft()
                moves[row, move.eps] = move
                jobs.append(Job(row, move.size, move.eps, enough=move.enough))

        refill()
        for group in driver.run(jobs):
            yield [(finished, moves.pop((finished.job.row, finished.job.label))) for finished in group]
            refill()

    def _driver(self, spec: str) -> Driver | Transfer:
        attack, norm = self.attacks[spec], self.adversary.ladder.norm
        if self.surrogate is not None:
            return Transfer(
                self.model,
                self.surrogate,
                attack,
                self.x,
                self.y,
                self.ids,
                norm=norm,
                target=self.target,
                seed=self.seed,
                batch=self.batch,
                component=spec,
                rounding=self.rounding,
                made=self.made,
            )
        return Driver(
            self.model,
            attack,
            self.x,
            self.y,
            self.ids,
            norm=norm,
            goal="minimise" if spec in self.minimal else "break",
            target=self.target,
            seed=self.seed,
            batch=self.batch,
            component=spec,
            rounding=self.rounding,
        )
