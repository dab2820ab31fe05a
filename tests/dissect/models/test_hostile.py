"""Hostile checkpoints: whatever is no state dict is refused, quickly, and nothing in it ever runs.

All files go through the inspection of their bytes here; the campaign (`python -m tests.dissect.models.hostile`) also
puts every one of them through the child process alone.
"""

import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
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


ALONE = """
import os, sys, warnings
import runpy
import torch, safetensors.torch

warnings.simplefilter("ignore")
child = runpy.run_path(sys.argv[1])
out, wide, narrow = sys.argv[2:]

def full(*arguments, **options):
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

whole = torch.ones(3)
for state in (
    {"epoch": 3, "w": whole, "notes": ["x"]}, [whole], {"epoch": 3}, {1: whole}, {"w": torch.eye(3).to_sparse()},
    {"w": torch.ones(3, device="meta")}, {"v": whole, "w": torch.ones(1 << 20)}, full,
):
    pid = os.fork()
    if not pid:
        safetensors.torch.save_file = full if state is full else safetensors.torch.save_file
        torch.save({"w": whole} if state is full else state, out + ".pth")
        sys.argv[1:] = [out + ".pth", out, narrow if isinstance(state, dict) and "v" in state else wide]
        child["main"]()
        print("written", sorted(safetensors.torch.load_file(out)), end="", flush=True)
        os._exit(0)
    print(" ->", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_what_the_child_process_says_of_each_thing_that_is_no_state_dict(tmp_path: Path) -> None:
    """Its own code in one process that forks for each file, as it imports torch only once then."""
    command = [sys.executable, "-c", ALONE, child.__file__, str(tmp_path / "out"), "10000", "9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == [
        "written ['w'] -> 0",
        "it holds no state dict (a mapping from names to tensors) -> 3",
        "it holds no state dict (a mapping from names to tensors) -> 3",
        "tensor '1' has no name of its own -> 3",
        "tensor 'w' is sparse, quantized or without values -> 3",
        "tensor 'w' is sparse, quantized or without values -> 3",
        "its tensors up to 'w' are 4,194,316 bytes, more than a file of 9 bytes holds -> 3",
        " -> 5",
    ], done.stderr


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("Weights only load failed. x\n\t(1) Change it\nWeightsUnpickler error: Unsupported class os.system",
         "Unsupported class os.system"),
        ("WeightsUnpickler error: Unsupported operand 7 Please use `torch.load`", "Unsupported operand 7"),
        ("Weights only load failed.\n(2) Alternatively\nPlease file an issue\nCheck the documentation", ""),
        ("", ""),
        ("\n \nan \x1b[31mend\x07 of line", "an [31mend of line"),
    ],
)  # fmt: skip
def test_the_reason_is_told_without_advice_to_load_it_all_the_same(message: str, why: str) -> None:
    assert child.reason(message) == why


@pytest.mark.parametrize("allowed", [True, False])
def test_a_network_of_its_own_is_asked_for_as_root_and_then_as_anybody(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class System:
        @staticmethod
        def unshare(flags: int) -> int:
            asked.append(flags)
            return 0 if allowed else -1

    monkeypatch.setattr(child.ctypes, "CDLL", lambda name: System)
    child.leave_network()
    assert asked == [0x40000000] + [0x50000000] * (not allowed)


@pytest.mark.parametrize("library", [None, object()])
def test_where_there_is_no_unshare_the_child_process_stays(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: None) -> object:
        asked.append(name)
        if library is None:
            raise OSError("no such library")
        return library

    asked: list[None] = []
    monkeypatch.setattr(child.ctypes, "CDLL", opened)
    child.leave_network()
    assert asked == [None]


def test_archives_beyond_the_limits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, body = tmp_path / "a.pth", hostile.program(hostile.WEIGHTS)
    path.write_bytes(hostile.archive(body))
    inspection.judge(path)
    for limit, value, why in (
        ("MAX_MEMBERS", 3, "it has 4 members, more than 3"),
        ("MAX_PICKLE", len(body) - 1, f"its data.pkl has {len(body)} bytes, more than {len(body) - 1}"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(inspection, limit, value)
            with pytest.raises(UnsafeError, match=f"there is no other way: {why}$"):
                inspection.judge(path)
            patch.setattr(inspection, limit, value + 1)
            inspection.judge(path)


def test_an_archive_without_its_pickle_or_behind_another_header_is_refused(tmp_path: Path) -> None:
    path, made = tmp_path / "a.pth", io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/version", b"3\n")
    path.write_bytes(made.getvalue())
    with pytest.raises(UnsafeError, match=r"it has no data\.pkl$"):
        inspection.judge(path)
    made = io.BytesIO()
    made.write(b"PK\x03\x04" + bytes(60))  # offsets of the members count from the file's first byte
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", hostile.program(hostile.WEIGHTS))
    path.write_bytes(made.getvalue())
    with pytest.raises(UnsafeError, match="its members do not begin at byte 0 or go past its end"):
        inspection.judge(path)


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
        ("[]", "its header is no JSON object"),
        ("null", "its header is no JSON object"),
        ('{"__metadata__": {"a": "\\ud800"}, "w": ' + json.dumps(entry()) + "}", "cannot be read as safetensors: "),
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
