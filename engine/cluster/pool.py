"""Ray's actors on all nodes, and shards of pictures for them, each detected on once."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from retinart.engine.cluster.actor import ActorSettings, DetectorActor, version
from retinart.engine.errors import BadInput, MissingDependency, RetinartError
from retinart.engine.evaluation.picture_result import PictureResult

_POLL_SECONDS = 0.2
_BEGIN_SECONDS = 300.0  # until an actor has begun; it waits for free CPUs, and starts a process
_SAY_SECONDS = 20.0  # until a line says that none has begun
_TRIES = 3  # of a shard whose actors ended
_MOST_CPUS = 8  # of an actor by default: one thread of it decodes

Step = Literal["begin", "load"] | int  # an actor's work; a number is a shard's


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """How many actors there are.

    Attributes:
        cpus: of an actor, for its threads; None takes all of the smallest node's, at most 8.
        gpus: of an actor: 0, or 1 for a model that runs on a GPU.

    Raises:
        BadInput: less than one CPU.
    """

    cpus: int | None = None
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.cpus is not None and self.cpus < 1:
            raise BadInput(f"`cpus` is {self.cpus}", fix="Give a whole number from 1 on")


class Pool:
    """Actors that each hold a detector.

    An actor that ends, with its node or alone, is replaced, and its shard is detected on again,
    whole. A shard that ends three actors is an error.

    Args:
        ray: Ray's module, connected.
        actor: what each actor loads.
        settings: how many there are.
        say: told in a line what happens to actors.

    Attributes:
        size: number of actors that the nodes have room for.
        cpus: of an actor.
        lost: actors that ended and were replaced.
        seconds: from the first shard that an actor got to the last result.

    Raises:
        BadInput: no node has room for an actor.
    """

    def __init__(
        self,
        ray: Any,
        actor: ActorSettings,
        settings: PoolSettings,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._ray, self._actor, self._say = ray, actor, say
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self.cpus, self.size = actors_of(nodes, settings)
        self.lost, self.seconds, self._first = 0, 0.0, 0.0
        self._make = ray.remote(DetectorActor).options(num_cpus=self.cpus, num_gpus=settings.gpus)
        self._under_way: dict[Any, tuple[Any, Step]] = {}
        self._free: list[Any] = []  # actors that wait for a shard
        self._began: dict[Any, int] = {}
        self._seen = time.monotonic()  # when there was an actor that had begun
        self._said = False

    def run(
        self, shards: Mapping[int, Sequence[str]], stop: Callable[[], bool] = lambda: False
    ) -> Generator[tuple[int, list[PictureResult]], None, None]:
        """Detect on shards, in any order.

        Args:
            shards: paths of pictures, by number.
            stop: asked several times a second; once it says so, no result comes any more.

        Yields:
            The number of a shard and its results, as it is finished.

        Raises:
            BadInput: no actor begins in time, actors end again and again, or Ray ends.
            RetinartError: the model cannot be loaded, or a detector refuses.
        """
        todo, tries, left = deque(shards), Counter[Step](), len(shards)
        self._seen = time.monotonic()
        try:
            for _ in range(min(self.size, len(shards))):
                self._begin()
            while left and not stop():
                while todo and self._free:
                    number = todo.popleft()
                    self._give(self._free.pop(), number, list(shards[number]))
                self._check_begun()
                for work in self._wait():
                    actor, step = self._under_way.pop(work)
                    try:
                        result = self._ray.get(work)
                    except self._ended as error:
                        self._replace(actor)
                        tries[step] += 1
                        if isinstance(step, int):
                            todo.appendleft(step)
                        if tries[step] == _TRIES * (1 if isinstance(step, int) else self.size):
                            raise _again_and_again(step, shards, error) from error
                        continue
                    if isinstance(result, RetinartError):
                        raise result
                    self._next(actor, step, result)
                    if isinstance(step, int):
                        left -= 1
                        self.seconds = time.perf_counter() - self._first
                        yield step, result
        finally:
            self.close()

    def close(self) -> None:
        """End all actors."""
        actors = [actor for actor, _ in self._under_way.values()] + self._free
        with suppress(*self._lost_ray):
            for actor in actors:
                self._ray.kill(actor)
        self._under_way.clear()
        self._free.clear()
        self._began.clear()

    @property
    def pids(self) -> list[int]:
        """The processes of the actors that have begun, on their nodes."""
        return list(self._began.values())

    @property
    def _lost_ray(self) -> tuple[type[Exception], ...]:
        """What Ray's calls raise when Ray itself has ended."""
        return (OSError, self._ray.exceptions.RaySystemError)

    @property
    def _ended(self) -> tuple[type[Exception], ...]:
        errors = self._ray.exceptions
        return (errors.RayActorError, errors.OutOfMemoryError, errors.NodeDiedError)

    def _wait(self) -> list[Any]:
        """The steps that have ended since."""
        try:
            done: list[Any] = self._ray.wait(list(self._under_way), timeout=_POLL_SECONDS)[0]
        except self._lost_ray as error:
            raise BadInput(
                "Ray ended before the work was done",
                why=str(error),
                fix="See its logs, start it again, and run the same command",
            ) from error
        return done

    def _begin(self) -> None:
        actor = self._make.remote(self._actor)
        self._under_way[actor.begin.remote()] = actor, "begin"

    def _give(self, actor: Any, number: int, paths: list[str]) -> None:
        self._first = self._first or time.perf_counter()
        self._under_way[actor.detect.remote(paths)] = actor, number

    def _next(self, actor: Any, step: Step, result: Any) -> None:
        """What an actor does after a step."""
        if step == "begin":
            if (there := result[1]) != (here := version()):
                raise MissingDependency(
                    f"a node of the cluster has retinart {there}, and this one has {here}",
                    fix="Install the same version on all nodes",
                )
            self._began[actor] = result[0]
            self._under_way[actor.load.remote()] = actor, "load"
            return
        if step == "load" and result:
            self._say(f"{self._actor.model}: {result}")
        self._free.append(actor)

    def _replace(self, actor: Any) -> None:
        self.lost += 1
        self._began.pop(actor, None)
        self._say("an actor of Ray ended, and another one takes its place; Ray's logs say why")
        self._begin()

    def _check_begun(self) -> None:
        now = time.monotonic()
        if self._began:
            self._seen = now
            return
        why = f"each needs {self.cpus} free CPUs on one node"
        if now - self._seen > _SAY_SECONDS and not self._said:
            self._said = True
            self._say(f"no actor of Ray has begun yet: {why}")
        if now - self._seen > _BEGIN_SECONDS:
            raise BadInput(
                f"no actor of Ray could begin within {_BEGIN_SECONDS:g} s",
                why=why,
                fix="See `ray status` for what other jobs hold, wait for them, or give less CPUs",
            )


def actors_of(nodes: Sequence[Mapping[str, float]], settings: PoolSettings) -> tuple[int, int]:
    """The CPUs of an actor, and the number of actors that fit on nodes with these resources.

    Raises:
        BadInput: none fits.
    """
    fit = [
        node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= settings.gpus
    ]
    cpus = settings.cpus
    if cpus is None and fit:
        share = [n["CPU"] // (max(1, n["GPU"]) if settings.gpus else 1) for n in fit]
        cpus = max(1, min(_MOST_CPUS, int(min(share))))
    rooms = [int(n["CPU"] // cpus) for n in fit] if cpus else []
    if settings.gpus:
        rooms = [min(room, int(n["GPU"])) for room, n in zip(rooms, fit, strict=True)]
    if not sum(rooms) or cpus is None:
        most = int(max((node.get("CPU", 0) for node in nodes), default=0))
        wanted = f"{cpus or 1} CPUs" + (" and a GPU" if settings.gpus else "")
        raise BadInput(
            f"no node of the cluster has {wanted}",
            why=f"the largest has {most} CPUs",
            fix="Give less CPUs, or add nodes",
        )
    return cpus, sum(rooms)


def _again_and_again(step: Step, shards: Mapping[int, Sequence[str]], error: Exception) -> BadInput:
    why = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(step, int):
        paths = shards[step]
        what = f"the actors that detected on {paths[0]} to {paths[-1]} ended {_TRIES} times"
        return BadInput(
            what, why=why, fix="See Ray's logs; a picture or the memory may be at fault"
        )
    return BadInput(
        "the actors of Ray end before they have loaded the model",
        why=why,
        fix="See Ray's logs; the memory may be too small",
    )
