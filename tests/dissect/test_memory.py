"""When memory runs out: batches are halved, to the same bits, and what cannot be halved is a clear error. And memory
that nobody holds goes back.

A child process gets a real limit on its address space; its network takes 64 MB an image.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import json, resource, sys
import numpy as np, torch
from dissect.errors import SpaceError
from dissect.forward import Forward

class Greedy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 1)
    def forward(self, x):
        room = torch.ones(len(x), 16 << 20)  # 64 MB an image, for the time of the pass
        return self.layer(x * room[:, :1, None, None])

torch.manual_seed(0)
torch.set_num_threads(1)
images = np.random.default_rng(0).integers(0, 255, (8, 6, 6, 3), np.uint8)
with Forward(Greedy(), ["layer"], (0.5,) * 3, (0.5,) * 3) as forward:
    forward(images[:1])
    megabytes = int(sys.argv[1])
    if megabytes:
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        maps = [forward(images)["layer"].tolist() for _ in range(2)]
        print(json.dumps({"step": forward.step, "maps": maps}))
    except SpaceError as error:
        print(json.dumps({"error": str(error), "code": error.exit_code}))
"""


def forward(megabytes: int) -> dict:
    done = subprocess.run([sys.executable, "-c", CHILD, str(megabytes)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to know its own size")
def test_batches_are_halved_until_they_fit() -> None:
    free, tight = forward(0), forward(200)
    assert free["step"] is None
    assert tight["step"] in (1, 2)
    assert tight["maps"] == free["maps"]
    nothing = forward(20)
    assert nothing["code"] == 5
    assert "a single image of 6 x 6" in nothing["error"]


HOLES = """
import ctypes, json, re
from dissect.heap import EVERY, Heap

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) >> 10

def tear(megabytes):
    kept = [(b"x" * 50_000, bytes(1000)) for _ in range(megabytes * 20)]  # small blocks that stay between large ones
    return [small for _, small in kept]

heap, calm, told = Heap(), Heap(quiet=1 << 40), []
pins = tear(200)
torn = resident()
for _ in range(2 * EVERY):
    calm.trim()
quiet = torn - resident()
for _ in range(2 * EVERY):
    heap.trim()
    told.append(resident())
few = tear(30)
before = resident()
for _ in range(2 * EVERY):
    heap.trim()
few = [before, resident()]
heap.give_back()
known = hasattr(ctypes.CDLL(None), "malloc_trim")
print(json.dumps({"told": told, "every": EVERY, "few": few, "quiet": quiet, "all": resident(), "known": known}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to know its own size")
def test_holes_in_the_heap_go_back_to_the_system_once_there_are_many() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if not found["known"]:
        pytest.skip("this C library gives nothing back")
    assert found["quiet"] < 20, found
    before, after = found["told"][found["every"] - 2], found["told"][-1]
    assert before - after > 100, found  # of 200 MB
    few, still = found["few"]
    assert abs(few - still) < 20, found
    assert still - found["all"] > 15, found  # of 30 MB


WIDE = """
import ctypes, json, re
import numpy as np
from dissect.heap import Heap, widen

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) >> 10

def huge():
    areas, at = [], None
    for line in open("/proc/self/smaps"):
        if (found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)):
            at = [int(end, 16) for end in found.groups()]
        elif line.startswith("VmFlags:") and "hg" in line.split():
            areas.append(at)
    return areas

def inside(array):  # all but what lies before the first whole huge page
    start = array.ctypes.data
    return any(first <= start + (2 << 20) and start + array.nbytes <= last for first, last in heap)

Heap().give_back()  # where nobody asked for it the heap stays as it is
told = {"plain": sum(last - first for first, last in huge()), "before": resident()}
widen()
heap = huge()
told |= {"after": resident(), "room": sum(last - first for first, last in heap)}
block = np.ones(80 << 20, np.uint8)
told |= {"block": inside(block), "held": resident()}
del block
told["freed"] = resident()
Heap().give_back()
told |= {"given_back": resident(), "again": sum(last - first for first, last in huge())}
told["known"] = hasattr(ctypes.CDLL(None), "mallopt")
print(json.dumps(told))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc to know its own areas")
def test_the_heap_grows_in_huge_pages_and_keeps_what_is_freed_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    if not found["known"] or not found["room"]:
        pytest.skip("this C library or this kernel has no huge pages to ask for")
    assert found["room"] - found["plain"] > 1000 << 20, found
    assert found["after"] - found["before"] < 8, found  # addresses, not memory
    assert found["block"], found
    assert found["held"] - found["freed"] < 4, found
    assert found["freed"] - found["given_back"] > 70, found
    assert found["again"] > 1000 << 20, found
