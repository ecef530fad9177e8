"""Where the CPU time of a process goes: to Python, to the system for Python, or to the kernels in C.

Sampled by `perf record` (Debian: linux-perf) with call chains. A sample counts as

- native: in the C kernels, libsrtp, OpenSSL and copies of memory (the worker's own, which are the packets'), and in the
  system on behalf of sendmmsg and recvmmsg, which only the C kernels call;
- python_system: in the system on behalf of any other call;
- python: everything else, that is the interpreter and what it is extended with.

"estimator" is what of "native" the estimators of the viewers' paths take (estimate.c).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile

_RATE = 1999
_NATIVE = ("_kernel.abi3.so", "pylibsrtp/_binding")
_CALLS = ("__x64_sys_sendmmsg", "__x64_sys_recvmmsg", "__arm64_sys_sendmmsg", "__arm64_sys_recvmmsg")


async def shares(pid: int, seconds: float) -> dict[str, float] | None:
    """Shares (0 to 1) of the CPU time in the next `seconds`; None where perf is not there or not allowed."""
    perf = shutil.which("perf")
    if perf is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        record = ("record", "-q", "-F", str(_RATE), "-g", "-p", str(pid), "-o", data, "--", "sleep", str(seconds))
        if await _run(perf, *record) is None:
            return None
        text = await _run(perf, "script", "-i", data, "-F", "ip,sym,dso")
    return None if text is None else _count(text)


async def _run(*command: str) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    return out.decode(errors="replace") if process.returncode == 0 else None


def _count(text: str) -> dict[str, float] | None:
    counts = {"native": 0, "python_system": 0, "python": 0, "estimator": 0}
    chains = [chain for chain in text.split("\n\n") if chain.strip()]
    for chain in chains:
        counts[_kind(chain)] += 1
        counts["estimator"] += _is_estimator(chain)
    return {name: count / len(chains) for name, count in counts.items()} if chains else None


def _is_estimator(chain: str) -> bool:
    """Whether a sample is in a function of estimate.c, or in what it calls."""
    return any("_kernel.abi3.so" in line and (line.split()[1:2] or [""])[0].startswith("bc_path_")
               for line in chain.strip().splitlines()[:4])  # fmt: skip


def _kind(chain: str) -> str:
    leaf = chain.strip().splitlines()[0]
    if "[kernel" in leaf or "[guest.kernel" in leaf:
        return "native" if any(call in chain for call in _CALLS) else "python_system"
    if any(library in leaf for library in _NATIVE) or "memmove" in leaf or "memcpy" in leaf:
        return "native"
    return "python"
