"""The child process that opens a pickled state dict: `python -I child.py IN OUT MAX_BYTES`.

It may load weights only, gets limits before it touches the file, and writes safetensors; the parent checks that
file again. Exit codes: 0 written, 3 refused (reason on stdout), anything else died.
"""

import os
import resource
import sys

SECONDS = 60


def limit(memory: int, output: int) -> None:
    """Cap CPU seconds, address space and file size; close inherited descriptors."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.closerange(3, 256)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def refuse(reason: str) -> None:
    sys.stdout.write(reason)
    sys.stdout.flush()
    os._exit(3)


def main() -> None:
    source, target, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    import torch
    from safetensors.torch import save_file

    # Importing torch maps several GB of address space, which the limit must leave room for.
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit(mapped + 4 * size + (512 << 20), 2 * size + (1 << 20))
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except BaseException as error:
        refuse(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:400])
    tensors: dict[str, torch.Tensor] = {}
    notes: list[str] = []
    state = loaded
    for _ in range(3):
        if isinstance(state, dict) and any(isinstance(v, torch.Tensor) for v in state.values()):
            break
        inner = next(
            (
                k
                for k in ("state_dict", "model_state_dict", "model", "net", "network")
                if isinstance(state, dict) and isinstance(state.get(k), dict)
            ),
            None,
        )
        if inner is None:
            refuse("it holds no state dict (a mapping from names to tensors)")
        notes.append(str(inner))
        state = state[inner]
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_quantized:
                refuse(f"tensor {str(name)[:80]!r} is sparse or quantized")
            if value.numel() * value.element_size() > 4 * size + (1 << 20):
                refuse(f"tensor {str(name)[:80]!r} of shape {list(value.shape)} is larger than the file allows")
            tensors[str(name)] = value.detach().clone().contiguous()
    save_file(tensors, target, metadata={"wrappers": ",".join(notes)})


if __name__ == "__main__":
    main()
