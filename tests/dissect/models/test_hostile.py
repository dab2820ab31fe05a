"""Hostile checkpoints: whatever is no state dict is refused, quickly, and nothing in it ever runs.

All files go through the inspection of their bytes here; the campaign (`python -m tests.dissect.models.hostile`) also
puts every one of them through the child process alone.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from dissect.errors import SpecError, UnsafeError
from dissect.models import child, inspection, opcodes, weights
from tests.dissect.models import hostile

MUTANTS = 1_000
"""Of each kind; the campaign takes ten times as many."""


def test_every_hostile_file_is_refused_and_no_canary_fires(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    refused = {}
    for case in hostile.cases(str(canary)):
        assert case.name not in refused, "two cases have the same name"
        if case.loads:
            refused[case.name] = "left to the child process"
            continue
        verdict = hostile.present(case, tmp_path)
        assert isinstance(verdict.error, UnsafeError | SpecError), case.name
        assert not canary.exists(), case.name
        assert verdict.cpu < 5, case.name
        refused[case.name] = str(verdict.error)
    assert len(refused) >= 240
    assert sum(why == "left to the child process" for why in refused.values()) <= 32
    for case_name, why in {
        "call os.system": "it would call 'os.system'",
        "call torch.storage._load_from_bytes": "it would call 'torch.storage._load_from_bytes'",
        "instruction STACK_GLOBAL in protocol 2": "it uses the pickle instruction STACK_GLOBAL at byte 19",
        "legacy, code in pickle 4": "it would call 'os.mkdir'",
        "tar without magic": "a tar archive of the first torch versions",
        "torch.package": "are a torch.package archive, which is code",
        "exported program as .pth": "are an exported program, which is code",
        "zip with two directories": "its two directories disagree",
        "zip bomb": "is encrypted or compressed",
        "two million instructions": "more than 1,500,000 pickle instructions",
        "archive as safetensors": "under the name of safetensors",
        "tar gz": "are compressed with gzip: unpack them first",
    }.items():
        assert why in refused[case_name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["a key that takes years to hash", "storage larger than its record", "item of a storage", "many large views"],
)
def test_the_child_process_holds_what_the_inspection_lets_through(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    case = next(case for case in hostile.cases(str(canary)) if case.name == name)
    verdict = hostile.present(case, tmp_path)
    assert isinstance(verdict.error, UnsafeError), verdict
    assert verdict.cpu < 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.pth"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["call os.mkdir", "plain pickle 2"])
def test_the_child_process_alone_runs_no_code_either(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    case = next(case for case in hostile.cases(str(canary)) if case.name == name)
    assert isinstance(hostile.present(case, tmp_path, only_child=True).error, UnsafeError)
    assert not canary.exists()


def test_the_child_process_has_no_network_and_no_room() -> None:
    """What it does before it opens the file, in a process that then tries."""
    code = (
        "import runpy, socket, sys\n"
        "child = runpy.run_path(sys.argv[1])\n"
        "before = socket.if_nameindex()\n"
        "child['leave_network']()\n"
        "print(len(before), len(socket.if_nameindex()))\n"
        "child['limit'](1000)\n"
        "for attempt in (lambda: bytearray(1 << 30), lambda: open('f', 'wb').write(bytes(10 << 20))):\n"
        "    try:\n"
        "        attempt()\n"
        "    except (MemoryError, OSError) as error:\n"
        "        print(type(error).__name__)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-c", code, child.__file__]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    networks, *refused = done.stdout.splitlines()
    assert refused == ["MemoryError", "OSError"]
    before, after = map(int, networks.split())
    if after == before > 1:
        pytest.skip("network namespaces are not allowed here")
    assert after <= 1


@pytest.mark.slow
def test_sound_files_of_the_same_builders_load(tmp_path: Path) -> None:
    for case in hostile.controls():
        path = tmp_path / f"weights{case.suffix}"
        path.write_bytes(case.data)
        assert torch.equal(weights.read_weights(path).tensors["w"], torch.ones(4)), case.name


def test_what_torch_saves_passes_the_inspection(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    state = {f"{kind}": torch.ones(3).to(kind) for kind in kinds}
    state["parameter"] = torch.nn.Parameter(torch.ones(2, 3).t())
    state["scalar"] = torch.tensor(3)
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    whole = {"state_dict": state, "epoch": 3, "best": 0.5, "name": "é", "none": None, "lists": [1, (2,), {3}],
             "optimizer": optimiser.state_dict(), "size": torch.Size([1]), "big": 1 << 80,
             "device": torch.device("cpu")}  # fmt: skip
    for old in (False, True):
        path = tmp_path / f"{old}.pth"
        torch.save(whole, path, _use_new_zipfile_serialization=not old)
        inspection.judge(path)


def test_globals_are_a_part_of_what_torch_allows() -> None:
    from torch._weights_only_unpickler import _get_allowed_globals

    theirs = set(_get_allowed_globals())
    assert {name.replace("__builtin__", "builtins").replace(" ", ".") for name in opcodes.GLOBALS} <= theirs
    assert not any(
        opcodes.allowed(name) for name in ("torch load", "torch hub.FloatStorage", "os system", "torch float.x")
    )
    assert all(
        opcodes.allowed(f"torch {kind}Storage") for kind in ("Float", "Half", "BFloat16", "Long", "Untyped") if kind
    )


def test_truncated_archives_are_refused_wherever_they_are_cut(tmp_path: Path) -> None:
    path, data = tmp_path / "a.pth", hostile.archive(hostile.program(hostile.WEIGHTS))
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises((UnsafeError, SpecError)):
            inspection.judge(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_mutated_pickles_never_crash_the_inspection(tmp_path: Path) -> None:
    """What passes names only what a state dict may name: a second reader of the pickle agrees."""
    assert 0.3 * MUTANTS < hostile.mutate_pickles(tmp_path, MUTANTS) < MUTANTS


def test_mutated_safetensors_never_crash(tmp_path: Path) -> None:
    assert 0.3 * MUTANTS < hostile.mutate_safetensors(tmp_path, MUTANTS) < MUTANTS


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"w": entry("F99")}, "has dtype 'F99'"),
        ({"w": entry(["F32"])}, "dtype"),
        ({"w": entry(shape=[-1])}, "malformed shape or offsets"),
        ({"w": entry(shape=[True])}, "malformed shape or offsets"),
        ({"w": entry(shape=[1.0])}, "malformed shape or offsets"),
        ({"w": entry(shape=[1] * 17)}, "malformed shape or offsets"),
        ({"w": entry(shape=[1 << 62, 4])}, "malformed shape or offsets"),
        ({"w": entry(shape=[1 << 40, 1 << 40])}, "does not fill its 4 bytes"),
        ({"w": entry(offsets=[0, 4, 8])}, "malformed shape or offsets"),
        ({"w": entry(offsets=[4, 0])}, "does not fill its -4 bytes"),
        ({"w": entry(shape=[2])}, "does not fill its 4 bytes"),
        ({"w": entry(offsets=[4, 8])}, "overlap or leave a hole at byte 4"),
        ({"v": entry(), "w": entry()}, "overlap or leave a hole at byte 0"),
        ({"w": entry(extra=1)}, "is malformed"),
        ({"w": 3}, "is malformed"),
        ({"w\n": entry()}, "has the name"),
        ({"w" * 1001: entry()}, "has the name"),
        ({"\ud800": entry()}, "has the name"),
        ({"__metadata__": {"a": 1}, "w": entry()}, "__metadata__"),
        ({"__metadata__": [], "w": entry()}, "__metadata__"),
        ({f"w{i}": entry(shape=[0], offsets=[0, 0]) for i in range(20_001)}, "lists 20,001 tensors"),
        ('{"w": 1, "w": 2}', "a name occurs twice"),
        ("[" * 100_000, "no JSON object"),
        ('{"w": ' + "9" * 9000 + "}", "no JSON object"),
    ],
)  # fmt: skip
def test_unsound_headers_are_refused_by_name(tmp_path: Path, header: object, message: str) -> None:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    with pytest.raises(SpecError, match=message.replace("\\", "")):
        weights.read_weights(path)
