"""Hostile checkpoints: whatever is no state dict is refused, quickly, and nothing in it ever runs.

All files go through the inspection of their bytes here; the campaign (`python -m tests.dissect.models.hostile`) also
puts every one of them through the child process alone.
"""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dissect.errors import SpecError, UnsafeError
from dissect.models import inspection, opcodes, safetensors_file, weights
from tests.dissect.models import hostile

MUTANTS = 1_000
"""Of each kind; the campaign of a release takes ten times as many."""


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


def test_mutated_pickles_never_crash_the_inspection(tmp_path: Path) -> None:
    """What passes names only what a state dict may name: a second reader of the pickle agrees."""
    assert 0.3 * MUTANTS < mutate_pickles(tmp_path, MUTANTS) < MUTANTS


def test_mutated_safetensors_never_crash(tmp_path: Path) -> None:
    assert 0.3 * MUTANTS < mutate_safetensors(tmp_path, MUTANTS) < MUTANTS


def mutants(data: bytes, count: int, header: int) -> list[bytes]:
    """Copies with up to three other bytes, mostly among the first `header`, some cut short or longer."""
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(header if rng.random() < 0.8 else len(copy)))
            copy[at] = int(rng.integers(256)) if rng.random() < 0.5 else copy[at] ^ (1 << int(rng.integers(8)))
        if rng.random() < 0.2:
            del copy[int(rng.integers(len(copy))) :]
        elif rng.random() < 0.1:
            copy += bytes(int(rng.integers(1, 9)))
        made.append(bytes(copy))
    return made


def mutate_pickles(folder: Path, count: int) -> int:
    path, refused = folder / "a.pth", 0
    whole = hostile.program(hostile.WEIGHTS)
    for body in mutants(whole, count, len(whole)):
        path.write_bytes(hostile.archive(body))
        try:
            inspection.judge(path)
        except (UnsafeError, SpecError):
            refused += 1
            continue
        named: set[str] = set()
        Names(body, named)
        assert all(opcodes.allowed(name) for name in named), body
    return refused


class Names(pickle._Unpickler):  # type: ignore[misc, name-defined]
    """Python's own unpickler, collecting the globals that it is asked for instead of giving them out."""

    def __init__(self, body: bytes, named: set[str]) -> None:
        import io

        super().__init__(io.BytesIO(body))
        self.named = named
        try:
            self.load()
        except Exception:  # damaged pickles end in every way; only what they named before that matters
            pass

    def find_class(self, module: str, name: str) -> object:
        self.named.add(f"{module} {name}")
        return lambda *arguments: None

    def persistent_load(self, key: object) -> object:
        return None


def mutate_safetensors(folder: Path, count: int) -> int:
    path, refused = folder / "a.safetensors", 0
    save_file(
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.int64)},
        path,
        metadata={"wrappers": "net"},
    )
    whole = path.read_bytes()
    for data in mutants(whole, count, len(whole) - 56):
        path.write_bytes(data)
        try:
            tensors = safetensors_file.read(path)
        except SpecError:
            refused += 1
        else:
            assert sum(t.numel() * t.element_size() for t in tensors.values()) == 56
            safetensors_file.metadata(path)
    return refused


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
