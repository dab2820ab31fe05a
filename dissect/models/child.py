"""The child process that opens a pickled state dict: `python -I child.py IN OUT MAX_BYTES`.

It may load weights only, gives up the network and takes limits before it touches the file, and writes safetensors; the
parent checks that file again. Exit codes: 0 written, 3 refused (reason on stdout), 5 disk full, anything else died.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Mapping
from typing import NoReturn

REFUSED, FULL = 3, 5
SECONDS = 60
"""Wall clock that the parent allows a small file on a busy machine."""
WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "state_dict_ema", "model_ema", "ema",
)  # fmt: skip
ADVICE = ("Weights only load failed", "(1)", "(2)", "Please file", "Check the documentation")
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000


def cpu_seconds(size: int) -> int:
    """CPU seconds that a file of that many bytes may take after torch is imported."""
    return 3 + size // (50 << 20)


def leave_network() -> None:
    """Go into a network namespace of our own, which has no interfaces; where that is not allowed, stay."""
    try:
        unshare = ctypes.CDLL(None).unshare
    except (OSError, AttributeError):
        return
    if unshare(CLONE_NEWNET) != 0:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)


def limit(size: int) -> None:
    """Cap CPU seconds, address space and file size, and close inherited descriptors."""
    # Importing torch maps several GB of address space, which the limit must leave room for.
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + cpu_seconds(size)
    os.closerange(3, 256)
    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, most_bytes(size) + (8 << 20)),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, mapped + most_bytes(size) + 2 * size + (512 << 20)),
    ):
        resource.setrlimit(kind, (most, most))


def most_bytes(size: int) -> int:
    """Tensors may share storage, so they can be larger than the file; not by much in a state dict."""
    return 4 * size + (1 << 20)


def refuse(reason: str) -> NoReturn:
    sys.stdout.write(reason.encode("ascii", "backslashreplace").decode()[:400])
    sys.stdout.flush()
    os._exit(REFUSED)


def reason(message: str) -> str:
    """The line of an error of torch that says what is wrong, without its advice to load the file all the same."""
    for line in message.splitlines():
        said = line.rpartition("WeightsUnpickler error:")[2].partition("Please use")[0].strip()
        if said and not said.startswith(ADVICE):
            return "".join(c for c in said if c.isprintable())
    return ""


def disk_full(error: BaseException) -> bool:
    """Whether writing failed for want of space; safetensors says so in text only."""
    return "No space left on device" in str(error) or "Disk quota exceeded" in str(error)


def unwrap(loaded: object) -> tuple[Mapping[object, object], list[str]]:
    """The state dict inside a checkpoint, and the keys under which it lay."""
    wrappers: list[str] = []
    while isinstance(loaded, Mapping) and len(wrappers) < 4:
        inner = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping) and loaded[key]), None)
        if inner is None:
            return loaded, wrappers
        wrappers.append(inner)
        loaded = loaded[inner]
    refuse("it holds no state dict (a mapping from names to tensors)")


def main() -> None:
    source, target, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    leave_network()
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    limit(size)
    try:
        state, wrappers = unwrap(torch.load(source, map_location="cpu", weights_only=True))
        tensors: dict[str, torch.Tensor] = {}
        total = 0
        for name, value in state.items():
            if not isinstance(value, torch.Tensor):
                continue
            if not isinstance(name, str) or name in tensors:
                refuse(f"tensor {str(name)[:80]!r} has no name of its own")
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
                refuse(f"tensor {name[:80]!r} is sparse, quantized or without values")
            total += value.numel() * value.element_size()
            if total > most_bytes(size):
                refuse(f"its tensors up to {name[:80]!r} are {total:,} bytes, more than a file of {size:,} bytes holds")
            tensors[name] = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
        if not tensors:
            refuse("it holds no state dict (a mapping from names to tensors)")
        save_file(tensors, target, metadata={"wrappers": ",".join(wrappers)})
    except BaseException as error:
        if disk_full(error):
            os._exit(FULL)
        refuse(f"{type(error).__name__}: {reason(str(error))}")


if __name__ == "__main__":
    main()
