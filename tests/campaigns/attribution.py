"""10,000 attributions leave nothing behind: `python -m tests.campaigns.attribution [CALLS]`.

All methods in turn, calls that are refused among them, on networks with every spelling of a ReLU. Compared are memory
that Python traces and resident memory after a fifth of the calls and at the end; the module must have the hooks, flags
and bits of before. Ends with 1 where one of them moved.
"""

import argparse
import gc
import json
import resource
import sys
import time
import tracemalloc

import torch
from torch import nn

from dissect.attribution import class_target, contributions, unit_target
from dissect.attribution.catalogue import MAPS, Slots, find
from dissect.errors import SpecError
from tests.dissect.attribution import nets

TRACED = 64 << 10  # bytes that may come and go between two looks
RESIDENT = 4 << 20  # the same for resident memory, which the allocator gives back in pages
SLOTS = Slots(steps=2, draws=2, masks=4, patch=4, stride=4, batch=8)


def hooks(module: nn.Module) -> int:
    """Hooks on all parts of a module."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", nargs="?", type=int, default=10_000)
    calls = parser.parse_args().calls
    torch.set_num_threads(1)
    spelt = [nets.wrap(nets.seeded(nets.Spelt(way))) for way in ("module", "F.relu")]
    x = nets.image(side=12)
    before = [({k: v.clone() for k, v in n.module.state_dict().items()}, hooks(n.module)) for n in spelt]
    flags = [[part.training for part in n.module.modules()] for n in spelt]
    done = refused = 0

    def some(count: int) -> tuple[int, int]:
        """Do so many calls; (traced, resident) bytes after them."""
        nonlocal done, refused
        for _ in range(count):
            network, name = spelt[done % 2], MAPS[done // 2 % len(MAPS)]
            try:
                if done % 17 == 0:
                    contributions(network, x, class_target(1), "one", "gradient")
                elif done % 19 == 0:
                    find(name, SLOTS)(network, x, unit_target("nowhere", 0))
                else:
                    find(name, SLOTS)(network, x, class_target(done % 3))
            except SpecError:
                refused += 1
            done += 1
        gc.collect()
        return tracemalloc.get_traced_memory()[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    tracemalloc.start()
    begin = time.perf_counter()
    early = some(calls // 5)
    late = some(calls - calls // 5)
    growth = {"traced_bytes": late[0] - early[0], "resident_bytes": late[1] - early[1]}
    same = all(
        all(torch.equal(value, network.module.state_dict()[key]) for key, value in state.items())
        and hooks(network.module) == count
        and [part.training for part in network.module.modules()] == flag
        for network, (state, count), flag in zip(spelt, before, flags)
    )
    told = {"calls": calls, "refused": refused, "seconds": round(time.perf_counter() - begin, 1), **growth}
    print(json.dumps(told | {"module_as_before": same}))
    return 0 if same and growth["traced_bytes"] < TRACED and growth["resident_bytes"] < RESIDENT else 1


if __name__ == "__main__":
    sys.exit(main())
