"""What unpickling would build, counted before anything is built.

Few bytes of a pickle can ask for a large memo, long bytes that do not follow, or lists that refer
to each other until their content is endless. The reader here follows the operations without making
an object. It counts how large each object would be with all that it refers to.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

DEPTH = 64  # of containers in each other
LONG = 1024  # bytes from which on a text that is referred to again counts as a copy
ROOM = 1 << 20  # bytes that any pickle may refer to

Persistent = Callable[[Sequence[object]], None]


class _Object:
    """An object that the pickle would make.

    Attributes:
        size: bytes of the pickle for it and all that it refers to, each time anew.
        depth: of containers in it.
        value: of text and numbers; the objects in a tuple; otherwise None.
        container: it can hold others.
        open: others may still be put in. An object that another one refers to stays as it is, so
            none can hold itself.
    """

    __slots__ = ("container", "depth", "open", "size", "value")

    def __init__(
        self, size: int, *, value: object = None, container: bool = False, depth: int = 0
    ) -> None:
        self.size, self.value, self.container, self.depth = size, value, container, depth
        self.open = container


def check_pickle(file: BinaryIO, length: int, persistent: Persistent | None = None) -> None:
    """Follow one pickle from the file's position to its end.

    Args:
        file: is left behind the pickle.
        length: bytes of the pickle, or of the file that it stands in.
        persistent: called with each persistent identifier, a tuple of texts and numbers (None for
            other objects). Without it a pickle may have none.

    Raises:
        pickle.UnpicklingError: the pickle would build more than it holds, or holds operations that
            weights do not need.
        ValueError, LookupError: it is damaged.
    """
    _Checker(file, length, persistent).run()


class _Checker:
    def __init__(self, file: BinaryIO, length: int, persistent: Persistent | None) -> None:
        self._file, self._length, self._persistent = file, length, persistent
        self._stack: list[_Object | None] = []  # None is a mark
        self._memo: dict[int, _Object] = {}

    def run(self) -> None:
        start = self._file.tell()
        for operation, argument, position in pickletools.genops(self._file):
            name, handler = operation.name, _HANDLERS.get(operation.name)
            if handler is None:
                raise pickle.UnpicklingError(f"it holds the operation {name}, as no weights do")
            place = (position or 0) - start  # bytes so far, and so the most objects
            handler(self, argument, place)
        self._pop()

    def push_value(self, argument: Any, place: int) -> None:
        size = len(argument) if isinstance(argument, str | bytes | bytearray) else 8
        self._stack.append(_Object(1 + size, value=argument))

    def push_container(self, argument: Any, place: int) -> None:
        self._stack.append(_Object(1, container=True))

    def mark(self, argument: Any, place: int) -> None:
        self._stack.append(None)

    def nothing(self, argument: Any, place: int) -> None:
        """An operation that makes no object."""

    def frame(self, argument: Any, place: int) -> None:
        if argument > self._length:
            raise ValueError("it is cut off")

    def pop(self, argument: Any, place: int) -> None:
        self._stack.pop()

    def pop_mark(self, argument: Any, place: int) -> None:
        self._since_mark()

    def put(self, argument: Any, place: int) -> None:
        index = len(self._memo) if argument is None else argument
        if not 0 <= index <= place:
            raise pickle.UnpicklingError(
                f"it numbers an object {index}, and so many do not fit into it"
            )
        self._memo[index] = self._top()

    def get(self, argument: Any, place: int) -> None:
        found = self._memo[argument]
        if found.container:
            found.open = False
        elif found.size <= LONG:
            found = _Object(1, value=found.value)
        self._stack.append(found)

    def make_tuple(self, argument: Any, place: int) -> None:
        self._make(self._since_mark())

    def make_tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._make(items[::-1])

    def make_list(self, argument: Any, place: int) -> None:
        items = self._since_mark()
        self.push_container(None, place)
        self._put_in(items)

    def make_dict(self, argument: Any, place: int) -> None:
        items = self._since_mark()
        self.push_container(None, place)
        self._put_pairs(items)

    def append(self, argument: Any, place: int) -> None:
        self._put_in([self._pop()])

    def extend(self, argument: Any, place: int) -> None:
        self._put_in(self._since_mark())

    def set_item(self, argument: Any, place: int) -> None:
        value, key = self._pop(), self._pop()
        self._put_pairs([key, value])

    def set_items(self, argument: Any, place: int) -> None:
        self._put_pairs(self._since_mark())

    def add_items(self, argument: Any, place: int) -> None:
        items = self._since_mark()
        _check_keys(items)
        self._put_in(items)

    def call(self, argument: Any, place: int) -> None:
        arguments, function = self._pop(), self._pop()
        self._make([function, arguments])
        self._top().open = True  # such as an ordered dict, which items follow

    def build(self, argument: Any, place: int) -> None:
        self._put_in([self._pop()])

    def name_from_stack(self, argument: Any, place: int) -> None:
        self._pop(), self._pop()
        self._stack.append(_Object(1))

    def persistent(self, argument: Any, place: int) -> None:
        identifier = self._pop()
        if self._persistent is None:
            raise pickle.UnpicklingError("it refers to other files")
        parts = identifier.value if isinstance(identifier.value, tuple) else ()
        self._persistent([part.value for part in parts])
        self._stack.append(_Object(identifier.size))

    def _make(self, items: Sequence[_Object]) -> None:
        made = _Object(1, container=True)
        self._stack.append(made)
        self._put_in(items)
        made.value, made.open = tuple(items), False

    def _put_in(self, items: Sequence[_Object]) -> None:
        into = self._top()
        if not into.open:
            raise pickle.UnpicklingError("it changes an object that others refer to")
        for item in items:
            item.open = False
            into.size += item.size
            into.depth = max(into.depth, item.depth + 1)
        if into.depth > DEPTH:
            raise pickle.UnpicklingError(f"its containers are nested more than {DEPTH} deep")
        if into.size > 2 * self._length + ROOM:
            raise pickle.UnpicklingError(
                "its objects refer to each other so often that they would be far larger than it"
            )

    def _put_pairs(self, items: Sequence[_Object]) -> None:
        _check_keys(items[::2])
        self._put_in(items)

    def _since_mark(self) -> list[_Object]:
        items = list[_Object]()
        while (item := self._stack.pop()) is not None:
            items.append(item)
        return items[::-1]

    def _pop(self) -> _Object:
        found = self._stack.pop()
        if found is None:
            raise ValueError("an object is missing")
        return found

    def _top(self) -> _Object:
        found = self._stack[-1]
        if found is None:
            raise ValueError("an object is missing")
        return found


def _check_keys(keys: Sequence[_Object]) -> None:
    """To find a place for a tuple takes as long as all that it refers to."""
    if any(key.container for key in keys):
        raise pickle.UnpicklingError("a key is neither a text nor a number")


def _tuple_of(count: int) -> Callable[[_Checker, Any, int], None]:
    return lambda checker, argument, place: checker.make_tuple_of(count)


_VALUES = (
    "NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING "
    "BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 GLOBAL"
)
_HANDLERS: dict[str, Callable[[_Checker, Any, int], None]] = {
    **dict.fromkeys(_VALUES.split(), _Checker.push_value),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), _Checker.push_container),
    **dict.fromkeys(("PROTO", "STOP"), _Checker.nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Checker.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Checker.get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Checker.call),
    **{f"TUPLE{count}": _tuple_of(count) for count in (1, 2, 3)},
    "EMPTY_TUPLE": _tuple_of(0),
    "FRAME": _Checker.frame,
    "MARK": _Checker.mark,
    "POP": _Checker.pop,
    "POP_MARK": _Checker.pop_mark,
    "TUPLE": _Checker.make_tuple,
    "LIST": _Checker.make_list,
    "DICT": _Checker.make_dict,
    "APPEND": _Checker.append,
    "APPENDS": _Checker.extend,
    "SETITEM": _Checker.set_item,
    "SETITEMS": _Checker.set_items,
    "ADDITEMS": _Checker.add_items,
    "BUILD": _Checker.build,
    "STACK_GLOBAL": _Checker.name_from_stack,
    "BINPERSID": _Checker.persistent,
}
