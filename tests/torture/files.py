"""Disks and files: full ones, and bytes that are not those that were written."""

import random
import subprocess
from pathlib import Path

from dissect.shard_files import ShardFiles
from dissect.workspace import Workspace
from tests.torture.place import Place, Tally, result, run


def disk(folder: Path, count: int) -> Tally:
    """A file system of so many bytes, from nothing to nearly enough: the run ends with 5 and no half report; once there
    is room, the same command ends like a quiet run."""
    place, tally = Place(folder / "place"), Tally()
    expected, codes = place.quiet(), dict[int, int]()
    needed = sum(path.stat().st_size for path in (place.folder / "quiet").rglob("*")) + (512 << 10)
    mount = folder / "mount"
    mount.mkdir()
    for number in range(count):
        size = 4096 * (1 + needed * (number + 1) // (count * 4096))
        options = f"size={size}"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", mount], check=False).returncode:
            tally.seen = "no file systems may be mounted here"
            return tally
        try:
            workspace = mount / "w"
            code = run(place.command(workspace))
            codes[code] = codes.get(code, 0) + 1
            half = code != 0 and result(workspace) == expected
            subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True)
            again = run(place.command(workspace)) == 0 and result(workspace) == expected
            tally.count(code in (0, 5) and not half and again)
        finally:
            subprocess.run(["umount", "--lazy", mount], check=True)
    tally.seen = ", ".join(f"exit code {code}: {times}" for code, times in sorted(codes.items()))
    return tally


def partials(folder: Path, count: int) -> Tally:
    """A damaged partial is noticed by its name, which is its content's hash; it is measured again, never believed."""
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(2)
    workspace = folder / "w"
    assert run(place.command(workspace, "--shard", "0/2")) == 0
    path = next(workspace.glob("cache/*/shards/*.partial"))
    whole, name = path.read_bytes(), path.parent.parent.name
    for number in range(count):
        data = bytearray(whole)
        if number % 2:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(bytes(data))
        tally.count(0 not in ShardFiles(Workspace.at(workspace), name).partials(2))
    path.write_bytes(whole)
    assert 0 in ShardFiles(Workspace.at(workspace), name).partials(2)
    return tally


def database(folder: Path, count: int) -> Tally:
    """A bit flipped in the database of a finished run, or a part cut off: an answer, or an error with its exit code."""
    place, tally, chance = Place(folder / "place"), Tally(), random.Random(4)
    workspace = folder / "w"
    assert run(place.command(workspace, "--no-report")) == 0
    path = workspace / "dissect.sqlite"
    whole = path.read_bytes()
    for number in range(count):
        data = bytearray(whole)
        if number % 2:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(bytes(data))
        tally.count(run(["query", "units", "--workspace", str(workspace), "--format", "json"]) in (0, 1, 2))
    return tally
