"""What only a GPU can show of CUDA without TensorRT: each check goes through one Python binding.

A check returns its figures, and raises Incomplete where one of them is wrong. They also run, and
fail where they should, on a stand-in for NVIDIA's driver (tests/stand_in_cuda.cpp).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

from retinart.engine.cuda.api import Bytes, CudaError
from retinart.engine.cuda.open_gpu import Binding, open_gpu
from retinart.engine.errors import MissingDependency
from retinart.engine.media.images import Image
from retinart.engine.tensorrt.gpu_resize import GpuResize, plan_resize
from retinart.verify.gpu_workspace import Desk, desk, some_bytes
from retinart.verify.judge import Figures, judged
from retinart.verify.kernel_checks import PICTURES, nms, resize, rule_of

SIZES = (1, 255, 256, 4097, (8 << 20) + 1)  # bytes
REPLAYS, THREADS = 1000, 8


def round_trips(binding: Binding) -> Figures:
    """Bytes to the GPU and back through page-locked memory, and how fast the largest go."""
    figures, faults = Figures(), list[str]()
    with desk(binding) as at:
        for size in SIZES:
            sent, there = some_bytes(size), at.device(size)
            host, back = at.host(size), at.host(size)
            host[:] = sent
            begin = at.stream.record()
            at.stream.upload(there, host)
            half = at.stream.record()
            at.stream.download(back, there)
            end = at.stream.record()
            at.stream.synchronize()
            if not np.array_equal(back, sent):
                faults.append(f"{size} bytes came back changed")
            if there % 256:
                faults.append(f"memory of {size} bytes is not aligned to 256")
            up, down = half.ms_since(begin), end.ms_since(half)
            del begin, half, end  # they are freed with their objects, which takes the context
        figures["GB/s"] = {k: round(size / 1e6 / max(ms, 1e-6), 1) for k, ms in
                           (("up", up), ("down", down))}  # fmt: skip
        if min(up, down) <= 0:
            faults.append("the GPU's clock stands still")
    return judged(figures, faults)


def replays(binding: Binding) -> Figures:
    """A captured upload, resize and download, replayed 1,000 times on other pictures."""
    (size, canvas), wrong = PICTURES[2], 0
    rule = rule_of("opencv", canvas)
    with desk(binding) as at:
        nbytes = 3 * canvas[0] * canvas[1]
        frame, back = at.device(nbytes), at.host(nbytes)
        resizer = GpuResize(at.cuda, at.stream, rule)
        pictures = [some_bytes(3 * size[0] * size[1], i).reshape(*size, 3) for i in range(7)]
        expected = [rule.apply([picture])[0] for picture in pictures]
        shape = (1, *canvas, 3)

        def work(picture: Image) -> None:
            resizer.enqueue([picture], plan_resize(rule, [picture]), shape, frame)
            at.stream.download(back, frame)

        work(pictures[0])  # makes the memory, which a capture cannot
        at.stream.synchronize()
        back[:] = 0
        graph = at.stream.capture(lambda: work(pictures[1]))
        at.stream.synchronize()
        faults = ["the capture ran its work"] if back.any() else []
        staged = resizer._memory(1)[1].array[: pictures[0].size].reshape(*size, 3)
        for i in range(REPLAYS):
            staged[:] = pictures[i % 7]
            graph.launch()
            at.stream.synchronize()
            wrong += not np.array_equal(back.reshape(shape), expected[i % 7])
        graph.free()
        resizer.free()
    if wrong:
        faults.append(f"{wrong} of {REPLAYS} replays gave another picture")
    return judged({"replays": REPLAYS, "wrong": wrong}, faults)


def broken_capture(binding: Binding) -> Figures:
    """A capture that waits in the middle fails, and the stream can be used and captured again."""
    faults = list[str]()
    with desk(binding) as at:
        sent, said = some_bytes(5000), ""
        host, there = at.host(len(sent)), at.device(len(sent))
        host[:] = sent

        def waits() -> None:
            at.stream.upload(there, host)
            at.stream.synchronize()

        for _ in range(3):
            try:
                at.stream.capture(waits).free()
                faults.append("a capture that waits in the middle did not fail")
            except CudaError as error:
                said = str(error)
        at.stream.upload(there, host)
        if not np.array_equal(at.fetch(there, len(sent)), sent):
            faults.append("after it a copy went wrong")
        host[:] = sent[::-1]
        graph = at.stream.capture(lambda: at.stream.upload(there, host))
        graph.launch()
        if not np.array_equal(at.fetch(there, len(sent)), sent[::-1]):
            faults.append("after it a graph went wrong")
        graph.free()
    return judged({"said": said}, faults)


def threads(binding: Binding, rounds: int = 30) -> Figures:
    """Eight threads capture and replay, and allocate and free, all at once."""

    def work(seed: int) -> int:
        wrong = 0
        for i in range(rounds):
            with desk(binding) as at:
                sent = some_bytes(10_000 + seed, seed * rounds + i)
                host, back, there = at.host(len(sent)), at.host(len(sent)), at.device(len(sent))

                def both(at: Desk = at, host: Bytes = host, back: Bytes = back,
                         there: int = there) -> None:  # fmt: skip
                    at.stream.upload(there, host)
                    at.stream.download(back, there)

                graph = at.stream.capture(both)
                for turn in range(3):
                    host[:] = np.roll(sent, turn)
                    at.device(1 + 1000 * turn)
                    graph.launch()
                    at.stream.synchronize()
                    wrong += not np.array_equal(back, np.roll(sent, turn))
                graph.free()
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        wrong = sum(pool.map(work, range(THREADS)))
    faults = [f"{wrong} results are another thread's, or came too early"] if wrong else []
    return judged({"threads": THREADS, "graphs": THREADS * rounds, "wrong": wrong}, faults)


def contexts(binding: Binding) -> Figures:
    """One GPU opened twice, in blocks within blocks; and nothing works outside of them."""
    with ThreadPoolExecutor(1) as pool:  # a fresh thread, where PyTorch has made nothing current
        return pool.submit(_contexts, binding).result()


def _contexts(binding: Binding) -> Figures:
    faults, sent = list[str](), some_bytes(1000)
    first, second = open_gpu(0, binding), open_gpu(0, binding)
    with first.current(), ExitStack() as stack:
        at = Desk(first, stack)
        with second.current(), first.current():
            there = at.send(sent)
        second.close()
        if not np.array_equal(at.fetch(there, len(sent)), sent):
            faults.append("memory is not shared by two uses of a GPU")
    first.close()
    try:
        first.device_memory(100)
        faults.append("a context is still current after its block")
    except CudaError as error:
        said = str(error)
    return judged({"outside": said if not faults else ""}, faults)


def memory(binding: Binding, rounds: int = 300) -> Figures:
    """The GPU's memory after memory, streams, graphs and events were made and freed many times."""
    cuda = open_gpu(0, binding)

    def once(_: int) -> None:
        with desk(binding) as at:
            there, host = at.send(some_bytes(1 << 20)), at.host(1 << 20)
            at.stream.capture(lambda: at.stream.upload(there, host)).free()
            at.stream.record()
            at.fetch(there, 1 << 20)

    with cuda.current():
        once(0)
        before = cuda.memory()[0]
        for i in range(rounds):
            once(i)
        grown = (before - cuda.memory()[0]) >> 20
    cuda.close()
    faults = [f"{grown} MB of the GPU's memory are gone, at most 8 may be"] if grown > 8 else []
    return judged({"rounds": rounds, "MB gone": grown}, faults)


def beside_pytorch(binding: Binding) -> Figures:
    """PyTorch in the same process: each reads what the other wrote, and captures graphs."""
    import torch

    if not torch.cuda.is_available():
        raise MissingDependency(
            "this PyTorch has no CUDA",
            fix="Install a build of PyTorch with CUDA, to see both at once",
        )
    sent, faults = some_bytes(1 << 20), list[str]()
    with desk(binding) as at:
        theirs = torch.zeros(len(sent), dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        host = at.host(len(sent))
        host[:] = sent
        graph = at.stream.capture(lambda: at.stream.upload(theirs.data_ptr(), host))
        graph.launch()
        at.stream.synchronize()
        if not np.array_equal(theirs.cpu().numpy(), sent):
            faults.append("PyTorch does not see what we copied to its memory")
        captured: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            more = theirs + 1
        captured.replay()
        torch.cuda.synchronize()
        if not np.array_equal(at.fetch(more.data_ptr(), len(sent)), sent + np.uint8(1)):
            faults.append("we do not see what PyTorch's graph wrote")
        graph.free()
    return judged({"torch": torch.__version__}, faults)


CHECKS: dict[str, Callable[[Binding], Figures]] = {
    "page-locked copies": round_trips,
    "resize kernel": resize,
    "NMS kernel": nms,
    "1,000 replays of a graph": replays,
    "a broken capture": broken_capture,
    "8 threads": threads,
    "contexts": contexts,
    "memory": memory,
    "beside PyTorch": beside_pytorch,
}
