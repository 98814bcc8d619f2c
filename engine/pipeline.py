"""Stages in threads, joined by bounded queues: the slowest one sets the pace, and order is kept.

    items -> [queue] -> stage -> [queue] -> stage -> [queue] -> results

A stage pulls an item only once its output queue has room, so no queue exceeds its capacity.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")
JOIN_SECONDS = 5.0


class Ended(Exception):
    """A channel will give no more items."""


class Channel(Generic[T]):
    """A bounded queue from one thread to another.

    Args:
        capacity: items that may wait. With 0 the writer makes an item only once the reader waits
            for it, so the item is as fresh as it can be.

    Attributes:
        puts: items put in.
        depth_sum, depth_max: how many items waited after each put, summed up and at most.
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
        """Wait until there is room for an item; False when nothing will read it."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._has_room())
            return not self._aborted

    def put(self, item: T) -> bool:
        """Add an item once there is room; False, without adding it, when nothing will read it."""
        with self._changed:
            self._changed.wait_for(lambda: self._aborted or self._has_room())
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
            Ended: no item is left, and none will come.
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
        """The writer is done; what waits can still be read."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Drop what waits, and release the writer and the reader."""
        with self._changed:
            self._aborted = True
            self._items.clear()
            self._changed.notify_all()

    def _has_room(self) -> bool:
        if not self.capacity:
            return not self._items and self._readers > 0
        return len(self._items) < self.capacity


class Pipeline(Generic[T]):
    """Runs items through stages, each in a thread of its own.

        with Pipeline("read", lines).then("parse", parse).then("add", add) as pipeline:
            for total in pipeline:
                ...

    An exception in a stage or in the items stops the stages before it. The later stages finish what
    they have, and then `next` raises the exception. Leaving the block ends every thread.

    Args:
        name: of the thread that iterates over the items.
        items: what goes into the first stage.
        capacity: items that may wait for the first stage; see `Channel`.
    """

    def __init__(self, name: str, items: Iterable[T], *, capacity: int = 2) -> None:
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._names, self._channels = [name], [Channel[Any](capacity)]
        feed = partial(self._feed, items, self._channels[0])
        self._threads = [threading.Thread(target=feed, name=f"retinart-{name}", daemon=True)]

    def then(self, name: str, work: Callable[[T], U], *, capacity: int = 2) -> Pipeline[U]:
        """Add a stage, before the block is entered.

        Args:
            name: of the stage and of its thread.
            work: turns one item into one item.
            capacity: how many of its items may wait for the next stage or for `next`.

        Returns:
            This pipeline, which now yields the results of `work`.
        """
        source, sink = self._channels[-1], Channel[Any](capacity)
        serve = partial(self._run, lambda: work(source.get()), sink, source)
        self._threads.append(threading.Thread(target=serve, name=f"retinart-{name}", daemon=True))
        self._names.append(name)
        self._channels.append(sink)
        return cast("Pipeline[U]", self)

    @property
    def queues(self) -> dict[str, Channel[Any]]:
        """Each queue under the name of the stage that reads it; "" stands for `next`."""
        return dict(zip([*self._names[1:], ""], self._channels, strict=True))

    def next(self, timeout: float | None = None) -> T:
        """The next result.

        Raises:
            Ended: there are no more.
            TimeoutError: none came within `timeout` seconds.
            BaseException: what a stage or the items raised, after the last result.
        """
        try:
            result: T = self._channels[-1].get(timeout)
            return result
        except Ended:
            if self._error is not None:
                error, self._error = self._error, None
                raise error from None
            raise

    def stop(self, *, before: str) -> None:
        """Take no more items: drop what waits before the stage `before`, and finish the rest."""
        for channel in self._channels[: self._names.index(before)]:
            channel.abort()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                yield self.next()
            except Ended:
                return

    def __enter__(self) -> Pipeline[T]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for channel in self._channels:
            channel.abort()
        for thread in self._threads:
            thread.join(JOIN_SECONDS)

    def _feed(self, items: Iterable[Any], sink: Channel[Any]) -> None:
        iterator = iter(items)

        def take() -> Any:
            try:
                return next(iterator)
            except StopIteration:
                raise Ended from None

        self._run(take, sink)

    def _run(
        self, make: Callable[[], Any], sink: Channel[Any], source: Channel[Any] | None = None
    ) -> None:
        """One thread: make items and hand them on, until nothing comes or nothing is wanted."""
        try:
            while sink.wanted() and sink.put(make()):
                pass
        except Ended:
            pass
        except BaseException as error:  # `next` raises it again
            with self._lock:
                self._error = self._error or error
        finally:
            if source is not None:
                source.abort()  # the stages before this one stop
            sink.end()  # those after it finish what they have
