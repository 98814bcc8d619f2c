"""Stages in threads, joined by bounded queues: the slowest one sets the pace, and order is kept.

    items -> [queue] -> stage -> [queue] -> stage -> [queue] -> whoever iterates

It knows nothing of what the items are. A stage takes its next item only when what it makes of it
has a place, so that with n places in each queue no more than that waits anywhere.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
JOIN_SECONDS = 5.0


class Ended(Exception):
    """A channel has nothing more to give."""


class Channel(Generic[T]):
    """A bounded queue from one thread to another.

    Args:
        capacity: items that may wait. With 0 an item is wanted only once its reader waits for it,
            so that it is as fresh as it can be.

    Attributes:
        puts, depth_sum, depth_max: items put in, and how many then waited, that one included.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.puts = self.depth_sum = self.depth_max = 0
        self._items: deque[T] = deque()
        self._readers = 0
        self._ended = False
        self._aborted = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def wanted(self) -> bool:
        """Wait until an item has a place; False when nobody will read one any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._has_place())
            return not self._aborted

    def put(self, item: T) -> bool:
        """Add an item when it has a place; False, and no item, when nobody will read it."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._has_place())
            if self._aborted:
                return False
            self._items.append(item)
            self.puts += 1
            self.depth_sum += len(self._items)
            self.depth_max = max(self.depth_max, len(self._items))
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> T:
        """The next item.

        Raises:
            Ended: there is none and will be none.
            TimeoutError: none came within `timeout` seconds.
        """
        with self._changed:
            self._readers += 1
            try:
                self._changed.notify_all()
                ready = self._changed.wait_for(
                    lambda: bool(self._items) or self._ended or self._aborted, timeout
                )
            finally:
                self._readers -= 1
            if not ready:
                raise TimeoutError
            if self._aborted or not self._items:
                raise Ended
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """The writer has no more; what waits is still read."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop what waits, and let writer and reader go."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def _has_place(self) -> bool:
        if not self.capacity:
            return not self._items and self._readers > 0
        return len(self._items) < self.capacity


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of the work, in a thread of its own.

    Attributes:
        name: for figures and thread names.
        work: makes one item of one item.
        capacity: items that may wait before it; see `Channel`.
    """

    name: str
    work: Callable[[Any], Any]
    capacity: int = 2


class Pipeline:
    """Runs items through stages, each in its own thread.

        with Pipeline("read", lines, [Stage(name="parse", work=parse)]) as pipeline:
            for result in pipeline:
                ...

    An exception in a stage or in the items ends what stands before it; what has passed it comes
    out, and then the exception is raised here. Leaving the block ends every thread.

    Args:
        name: of the items' own thread.
        items: iterated in that thread.
        stages: one or more, in order.
        capacity: results that may wait for whoever iterates.
    """

    def __init__(
        self,
        name: str,
        items: Iterable[Any],
        stages: Sequence[Stage],
        *,
        capacity: int = 2,
    ) -> None:
        self._stages = stages
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._channels: list[Channel[Any]] = [Channel(s.capacity) for s in stages]
        self._channels.append(Channel(capacity))
        names = [name, *(s.name for s in stages)]
        works = [self._feed, *([self._serve] * len(stages))]
        self._threads = [
            threading.Thread(target=work, args=(i, items), name=f"retinart-{n}", daemon=True)
            for i, (n, work) in enumerate(zip(names, works, strict=True))
        ]

    @property
    def queues(self) -> dict[str, Channel[Any]]:
        """The queues by the name of the stage that reads them; "" is the last."""
        return dict(zip([*(s.name for s in self._stages), ""], self._channels, strict=True))

    def next(self, timeout: float | None = None) -> Any:
        """The next result.

        Raises:
            Ended: there are no more.
            TimeoutError: none came within `timeout` seconds.
            BaseException: what a stage or the items raised, after the last result.
        """
        try:
            return self._channels[-1].get(timeout)
        except Ended:
            if self._error is not None:
                error, self._error = self._error, None
                raise error from None
            raise

    def stop(self, *, before: str) -> None:
        """Take no more items: what waits before `before` is dropped, the rest comes out."""
        for stage, channel in zip(self._stages, self._channels, strict=False):
            channel.abort()
            if stage.name == before:
                return

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self.next()
            except Ended:
                return

    def __enter__(self) -> Pipeline:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for channel in self._channels:
            channel.abort()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _feed(self, index: int, items: Iterable[Any]) -> None:
        sink, iterator = self._channels[index], iter(items)

        def step() -> Any:
            try:
                return next(iterator)
            except StopIteration:
                raise Ended from None

        self._loop(step, None, sink)

    def _serve(self, index: int, items: Iterable[Any]) -> None:
        del items
        stage = self._stages[index - 1]
        self._loop(stage.work, self._channels[index - 1], self._channels[index])

    def _loop(
        self,
        work: Callable[..., Any],
        source: Channel[Any] | None,
        sink: Channel[Any],
    ) -> None:
        try:
            while sink.wanted():
                item = () if source is None else (source.get(),)
                made = work(*item)
                del item
                if not sink.put(made):
                    break
        except Ended:
            pass
        except BaseException as error:  # raised again where the results are read
            with self._lock:
                self._error = self._error or error
        finally:
            if source is not None:
                source.abort()  # those before it stop
            sink.end()  # those after it finish what they have
