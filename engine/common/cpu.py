"""This machine's CPU: its name, its instruction sets, and what INT8 gains from them."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

# The flags that decide how fast a convolution runs.
FLAGS = frozenset({
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve",
})  # fmt: skip
# Each of these sums products of 8-bit integers in 32 bits.
VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})


@functools.cache
def cpu_name() -> str:
    """The CPU's model name."""
    return _cpuinfo("model name") or platform.processor()


@functools.cache
def instruction_sets() -> frozenset[str]:
    """The FLAGS that this CPU has."""
    found = (_cpuinfo("flags") or _cpuinfo("Features")).split()  # Arm has Features
    return frozenset(found) & FLAGS


def int8_text(flags: frozenset[str], *, saturates: bool | None = None) -> str:
    """Describe what INT8 gains on a CPU with these instruction sets.

    Args:
        flags: see `instruction_sets`.
        saturates: whether OpenVINO's 8-bit products overflow here; None if this was not tried.
    """
    r50 = "R50 at 400 to 800 pixels in INT8 was {} times as fast as in FP32 on {}"
    if flags & VNNI:  # benchmarks/results/paper_grid.md
        speed = r50.format("2.3 to 2.8", "an AMD EPYC with AVX512-VNNI")
    elif "avx2" in flags:  # docs/runtimes.md, and paper_grid.md with VNNI turned off
        speed = r50.format("1.2 to 1.4", "an Intel Skylake and an AMD EPYC without VNNI")
    else:
        speed = "INT8 was not measured on a CPU like this one"
    likely = not flags & VNNI and "avx2" in flags if saturates is None else saturates
    return f"{speed}; retinart gives INT8 weights {7 if likely else 8} bits here"


def _cpuinfo(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith(key)), "")
