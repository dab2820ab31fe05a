"""Files that pretend to be weights, made on the fly: code, programs, archives that readers disagree about, and bombs.

    python -m tests.dissect.models.hostile          # the whole campaign: every file through both layers

Every payload would make a directory, the canary, if it ran.
"""

import argparse
import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from dissect.errors import DissectError, SpecError, UnsafeError
from dissect.models import inspection, opcodes, safetensors_file, weights

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
Member = tuple[str, bytes]


@dataclass(frozen=True)
class Case:
    """A file; `loads` where its bytes look like a state dict, so that only the child process can refuse it."""

    name: str
    suffix: str
    data: bytes
    loads: bool = False


# Pickle, instruction by instruction.

STOP, MARK, REDUCE, PROTO2 = b".", b"(", b"R", b"\x80\x02"


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def values(*items: bytes) -> bytes:
    return MARK + b"".join(items) + b"t"


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    return name(module, attribute) + values(*arguments) + REDUCE


def entries(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}" + MARK + b"".join(key + value for key, value in pairs) + b"u"


def storage(key: bytes, count: int, kind: str = "FloatStorage", place: str = "cpu") -> bytes:
    return values(text("storage"), name("torch", kind), key, text(place), number(count)) + b"Q"


def tensor(place: bytes, size: bytes, stride: bytes, offset: int = 0) -> bytes:
    hooks = name("collections", "OrderedDict") + b")" + REDUCE
    return call("torch._utils", "_rebuild_tensor_v2", place, number(offset), size, stride, b"\x89", hooks)


ONES = tensor(storage(text("0"), 4), values(number(4)), values(number(1)))
WEIGHTS = entries((text("w"), ONES))


def program(body: bytes) -> bytes:
    return PROTO2 + body + STOP


# Containers.


def archive(body: bytes, extra: tuple[Member, ...] = (), root: str = "archive", **options: int) -> bytes:
    """What torch.save writes, with another data.pkl."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as made:
        warnings.simplefilter("ignore")  # names that occur twice
        for member, data in (
            (f"{root}/data.pkl", body),
            (f"{root}/byteorder", b"little"),
            (f"{root}/data/0", np.ones(4, "<f4").tobytes()),
            (f"{root}/version", b"3\n"),
            *extra,
        ):
            made.writestr(zipfile.ZipInfo(member), data, **options)  # type: ignore[arg-type]
    return out.getvalue()


def legacy(*parts: bytes) -> bytes:
    """A file from before the zip format; parts replace the five pickles from the first on, None keeps one."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    usual = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, system)]
    place = values(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(4), b"N") + b"Q"
    usual += [program(entries((text("w"), tensor(place, values(number(4)), values(number(1))))))]
    usual += [pickle.dumps(["0"], 2)]
    chosen = [part or same for part, same in zip(parts + (b"",) * 5, usual)]
    return b"".join(chosen) + struct.pack("<q", 4) + np.ones(4, "<f4").tobytes()


def tarball(members: tuple[Member, ...], form: int = tarfile.USTAR_FORMAT, mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as made:  # type: ignore[call-overload]
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Canary:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


# The files.


def calls(canary: str) -> Iterator[Case]:
    """Globals that run code, each called from the data.pkl of an archive."""
    path, shell, python = text(canary), text(f"mkdir {canary}"), text(f"__import__('os').mkdir({canary!r})")
    inner = b"C" + bytes([0])  # an empty short bytes object, for loaders of loaders
    spawn = b"]" + MARK + text("mkdir") + path + b"e"
    table: list[tuple[str, str, tuple[bytes, ...]]] = [
        ("os", "mkdir", (path,)), ("posix", "mkdir", (path,)), ("nt", "mkdir", (path,)), ("os", "system", (shell,)),
        ("posix", "system", (shell,)), ("os", "popen", (shell,)), ("os", "makedirs", (path,)),
        ("builtins", "eval", (python,)), ("builtins", "exec", (python,)), ("__builtin__", "eval", (python,)),
        ("__builtin__", "execfile", (path,)), ("builtins", "__import__", (text("os"),)),
        ("builtins", "getattr", (name("os", "path"), text("join"))), ("builtins", "open", (path, text("w"))),
        ("builtins", "compile", (python, text("x"), text("exec"))), ("builtins", "bytearray", (number(1 << 40),)),
        ("subprocess", "Popen", (spawn,)), ("subprocess", "check_output", (spawn,)), ("subprocess", "run", (spawn,)),
        ("commands", "getoutput", (shell,)), ("runpy", "_run_code", (python, b"}")), ("runpy", "run_path", (path,)),
        ("importlib", "import_module", (text("antigravity"),)), ("operator", "methodcaller", (text("mkdir"),)),
        ("operator", "attrgetter", (text("mkdir"),)), ("functools", "partial", (name("os", "mkdir"), path)),
        ("functools", "reduce", (name("os", "mkdir"), b"]")), ("types", "FunctionType", (inner,)),
        ("types", "CodeType", (inner,)), ("shutil", "copytree", (text("/usr/share/doc"), path)),
        ("pty", "spawn", (spawn,)), ("webbrowser", "open", (path,)), ("timeit", "timeit", (python,)),
        ("cProfile", "run", (python,)), ("profile", "Profile.run", (python,)), ("pdb", "run", (python,)),
        ("bdb", "Bdb.run", (python,)), ("code", "InteractiveInterpreter.runcode", (python,)),
        ("ctypes", "CDLL", (path,)),
        ("pickle", "loads", (inner,)), ("_pickle", "loads", (inner,)), ("marshal", "loads", (inner,)),
        ("cPickle", "loads", (inner,)), ("socket", "create_connection", (path,)), ("pathlib", "Path.mkdir", (path,)),
        ("multiprocessing.util", "spawnv_passfds", (path, spawn, b"]")), ("asyncio.base_events", "BaseEventLoop", ()),
        ("numpy.testing._private.utils", "runstring", (python, b"}")), ("numpy", "load", (path,)),
        ("numpy.core.multiarray", "scalar", (path,)), ("numpy.core.multiarray", "_reconstruct", (path,)),
        ("torch", "load", (path,)), ("torch.serialization", "load", (path,)), ("torch.hub", "load", (path, path)),
        ("torch.storage", "_load_from_bytes", (inner,)), ("torch.utils.collect_env", "run", (shell,)),
        ("torch.jit.unsupported_tensor_ops", "execWrapper", (python, b"}", b"}")), ("torch.jit", "load", (path,)),
        ("torch._C", "_jit_get_operation", (path,)), ("torch.fx.graph_module", "_forward_from_src", (python, b"}")),
        ("torch.fx.graph_module", "reduce_graph_module", (b"}", path)), ("torch.utils.cpp_extension", "load", (path,)),
        ("torch._utils", "_import_dotted_name", (text("os.mkdir"),)), ("torch.nn.modules.linear", "Linear", ()),
        ("torch._utils", "_rebuild_wrapper_subclass", (path,)), ("torch._utils", "_rebuild_sparse_tensor", (path,)),
        ("torch.package", "PackageImporter", (path,)), ("torch._dynamo.guards", "GuardBuilder.get", (python,)),
        ("torch.distributed.rpc.internal", "_run_function", (inner,)), ("torchvision.models", "resnet18", ()),
        ("dissect.models.trusted", "_run", (path,)), ("ｏｓ", "mkdir", (path,)), ("os.path", "os.mkdir", (path,)),
    ]  # fmt: skip
    for module, attribute, arguments in table:
        body = entries((text("w"), ONES), (text("x"), call(module, attribute, *arguments)))
        yield Case(f"call {module}.{attribute}", ".pth", archive(program(body)))


def instructions(canary: str) -> Iterator[Case]:
    """Other ways to say the same: instructions that torch.save never writes."""
    path = text(canary)
    mkdir = name("os", "mkdir")
    bodies = {
        "INST": PROTO2 + MARK + path + b"ios\nmkdir\n" + STOP,
        "OBJ": PROTO2 + MARK + mkdir + path + b"o" + STOP,
        "NEWOBJ": PROTO2 + mkdir + values(path) + b"\x81" + STOP,
        "NEWOBJ_EX": b"\x80\x04" + mkdir + values(path) + b"}\x92" + STOP,
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("mkdir") + b"\x93" + values(path) + REDUCE + STOP,
        "STACK_GLOBAL in protocol 2": PROTO2 + text("os") + text("mkdir") + b"\x93" + values(path) + REDUCE + STOP,
        "protocol 5": pickle.dumps({"w": Canary(canary)}, 5),
        "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}" + STOP,
        "EXT1": PROTO2 + b"\x82\x01" + values(path) + REDUCE + STOP,
        "EXT2": PROTO2 + b"\x83\x01\x00" + values(path) + REDUCE + STOP,
        "EXT4": PROTO2 + b"\x84\x01\x00\x00\x00" + values(path) + REDUCE + STOP,
        "BUILD": PROTO2 + name("os", "_Environ") + b")\x81" + entries((path, path)) + b"b" + STOP,
        "PERSID": PROTO2 + b"Pos.mkdir\n" + STOP,
        "function from the memo": PROTO2 + mkdir + b"q\x010h\x01" + values(path) + REDUCE + STOP,
        "text instructions": b"cos\nmkdir\n(V" + canary.encode() + b"\ntR.",
        "STRING": PROTO2 + b"S'" + canary.encode() + b"'\n" + STOP,
        "BINBYTES8": PROTO2 + b"\x8e" + struct.pack("<Q", 1 << 62) + STOP,
        "BINUNICODE8": PROTO2 + b"\x8d" + struct.pack("<Q", 1 << 62) + STOP,
        "LONG4": PROTO2 + b"\x8b" + struct.pack("<i", (1 << 31) - 1) + STOP,
        "DUP": PROTO2 + b"}" + b"2" * 50 + STOP,
        "name with a line break": PROTO2 + b"ctorch\nSize\r\n" + values() + REDUCE + STOP,
        "name beyond ASCII": PROTO2 + "ctorch\nＦloatStorage\n".encode() + STOP,
        "no end": PROTO2 + WEIGHTS,
        "nothing": b"",
        "stack underflow": PROTO2 + b"0000" + STOP,
    }
    for label, body in bodies.items():
        yield Case(f"instruction {label}", ".pt", archive(body))


def pickles(canary: str) -> Iterator[Case]:
    """Plain pickles under the suffixes of weights, and files from before the zip format."""
    for protocol, suffix in zip(range(6), (".pth", ".pt", ".bin", ".ckpt", ".tar", ".pth")):
        yield Case(f"plain pickle {protocol}", suffix, pickle.dumps(Canary(canary), protocol))
    evil = program(call("os", "mkdir", text(canary)))
    for index in range(5):
        yield Case(f"legacy, code in pickle {index + 1}", ".pth", legacy(*[b""] * index, evil))
    yield Case("legacy, code between the pickles", ".pth", legacy(b"", b"", pickle.dumps({}, 2) + evil))
    yield Case("legacy, source of a container", ".pth", legacy(b"", b"", b"", program(
        values(text("module"), name("torch.nn.modules.linear", "Linear"), text(canary), text("import os")) + b"Q"
    )))  # fmt: skip
    yield Case("legacy, another magic number", ".pth", legacy(pickle.dumps(7, 2)))
    old = io.BytesIO()
    torch.save(nn.Linear(2, 2), old, _use_new_zipfile_serialization=False)
    yield Case("legacy, whole module", ".pth", old.getvalue())
    new = io.BytesIO()
    torch.save({"model": nn.Sequential(nn.Linear(2, 2))}, new)
    yield Case("whole module", ".pth", new.getvalue())


def tars(canary: str) -> Iterator[Case]:
    """The loader that CVE-2025-32434 went through."""
    evil = program(call("os", "mkdir", text(canary)))
    members: tuple[Member, ...] = tuple((part, evil) for part in ("sys_info", "pickle", "storages", "tensors"))
    forms = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    for label, form in forms.items():
        yield Case(f"tar {label}", ".tar", tarball(members, form))
    yield Case("tar as .pth", ".pth", tarball(members))
    old = bytearray(tarball(members))
    for start in range(0, len(members) * 1024, 1024):
        old[start + 257 : start + 265] = bytes(8)  # no magic, as in the seventies
        header = bytes(old[start : start + 148]) + b" " * 8 + bytes(old[start + 156 : start + 512])
        old[start + 148 : start + 156] = f"{sum(header):06o}\0 ".encode()
    yield Case("tar without magic", ".pth", bytes(old))
    yield Case("tar with state dicts only", ".tar", tarball((("pickle", program(WEIGHTS)),)))
    for mode in ("gz", "bz2", "xz"):
        yield Case(f"tar {mode}", ".tar", tarball(members, mode=f"w:{mode}"))
    climbing = (("../../climbed", b"x"), ("/climbed", b"x"))
    yield Case("tar that climbs", ".tar", tarball(climbing))


def programs(canary: str) -> Iterator[Case]:
    """What torch itself calls programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script, traced = io.BytesIO(), io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), script)
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), traced)
        lite = torch.jit.script(nn.Linear(2, 2))._save_to_buffer_for_lite_interpreter()
    for suffix in (".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors"):
        yield Case(f"TorchScript as {suffix}", suffix, script.getvalue())
    yield Case("TorchScript, traced", ".pt", traced.getvalue())
    yield Case("TorchScript, mobile", ".pt", lite)
    package = io.BytesIO()
    with torch.package.PackageExporter(package) as exporter:
        exporter.save_source_string("net", "import os")
        exporter.save_pickle("model", "model.pkl", {"w": 1})
    yield Case("torch.package", ".pt", package.getvalue())
    yield Case("torch.package as .pth", ".pth", package.getvalue())
    json_program = (("archive/models/model.json", b"{}"), ("archive/archive_format", b"pt2"))
    yield Case("exported program", ".pt2", archive(program(WEIGHTS), json_program))
    yield Case("exported program as .pth", ".pth", archive(program(WEIGHTS), json_program))
    older = (("archive/serialized_exported_program.json", b"{}"),)
    yield Case("exported program, older", ".pth", archive(program(WEIGHTS), older))
    inputs = archive(program(call("os", "mkdir", text(canary))))
    nested = archive(program(WEIGHTS), (("archive/data/sample_inputs/model.pt", inputs),))
    yield Case("exported program with sample inputs", ".pt", nested)
    yield Case(
        "state dict with code beside it", ".pth", archive(program(WEIGHTS), (("archive/code/x.py", b"import os"),))
    )
    yield Case(
        "state dict with constants", ".pth", archive(program(WEIGHTS), (("archive/constants.pkl", b"\x80\x02)."),))
    )


def patched(data: bytes, signature: bytes, offset: int, value: bytes, every: bool = False) -> bytes:
    """Bytes written over at `offset` after each (or the first) signature."""
    out, at = bytearray(data), data.find(signature)
    while at >= 0:
        out[at + offset : at + offset + len(value)] = value
        at = data.find(signature, at + 4) if every else -1
    return bytes(out)


def archives(canary: str) -> Iterator[Case]:
    """Archives that readers disagree about."""
    evil, good = program(call("os", "mkdir", text(canary))), program(WEIGHTS)
    whole = archive(good)
    directory, last = b"PK\x01\x02", b"PK\x05\x06"
    for label, bits in (("encrypted", 1), ("patch", 0x20), ("strong", 0x41), ("masked", 0x2000), ("reserved", 0x10)):
        yield Case(f"zip flag {label}", ".pth", patched(whole, directory, 8, struct.pack("<H", bits), every=True))
    yield Case("zip method unknown", ".pth", patched(whole, directory, 10, struct.pack("<H", 99)))
    yield Case("zip deflated", ".pth", archive(good, compress_type=zipfile.ZIP_DEFLATED))
    yield Case("zip bzip2", ".pth", archive(good, compress_type=zipfile.ZIP_BZIP2))
    yield Case("zip bomb", ".pth", archive(bytes(200 << 20), compress_type=zipfile.ZIP_DEFLATED))
    yield Case("zip with two data.pkl", ".pth", archive(good, (("archive/data.pkl", evil),)))
    yield Case("zip with two roots", ".pth", archive(good, (("other/data.pkl", evil),)))
    yield Case("zip in zip", ".pth", archive(good, (("archive/inner.zip", archive(evil)),)))
    yield Case("zip in zip as data.pkl", ".pth", archive(archive(evil)))
    yield Case("zip without root", ".pth", archive(good, root=""))
    for member in ("archive/../../climbed", "/climbed", "archive/data/../x", "archive/DATA.PKL", "archive/data/0/x",
                   "archive/.data/x.pkl", "archive\\data.pkl", "archive/data/0.py", "archive/data/é"):  # fmt: skip
        yield Case(f"zip member {member}", ".pth", archive(good, ((member, evil),)))
    yield Case("zip without data.pkl", ".pth", patched(whole, b"data.pkl", 0, b"data.pkx", every=True))
    yield Case("zip of another local name", ".pth", patched(whole, b"data.pkl", 0, b"data.pkx"))
    yield Case("zip with a comment", ".pth", whole[:-2] + struct.pack("<H", 4) + b"evil")
    yield Case("zip with bytes before", ".pth", b"MZ\x90\x00" + whole)
    yield Case("zip before a zip", ".pth", archive(evil) + whole)
    yield Case("pickle before a zip", ".pth", pickle.dumps(Canary(canary), 2) + whole)
    yield Case("legacy file before a zip", ".pth", legacy(b"", b"", b"", evil) + whole)
    yield Case("zip with bytes behind", ".pth", whole + b"evil")
    end = whole.rfind(last)
    size, start = struct.unpack("<II", whole[end + 12 : end + 20])
    forged = whole[:end] + archive(evil)[: 1 << 12]
    yield Case("zip with a zip behind its directory", ".pth", forged)
    yield Case("zip directory moved", ".pth", whole[:end] + b"x" * 9 + whole[end:])
    big = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 4, 4, size, start + 7)
    big += struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    yield Case("zip with two directories", ".pth", whole[:end] + big + whole[end:])
    yield Case("zip members overlap", ".pth", overlapping(whole))
    yield Case("zip claims members", ".pth", patched(whole, last, 8, struct.pack("<HH", 60000, 60000)))
    yield Case("zip claims sizes", ".pth", patched(whole, directory, 24, struct.pack("<I", 1 << 31)))
    yield Case("zip of two sizes", ".pth", patched(whole, directory, 20, struct.pack("<I", 1)))
    yield Case("zip pickle goes on", ".pth", archive(good + evil))
    for part in (0.1, 0.5, 0.9, 0.99):
        yield Case(f"zip cut at {part}", ".pth", whole[: int(len(whole) * part)])
    yield Case("zip of nothing", ".pth", b"PK\x05\x06" + bytes(18))
    yield Case("zip magic only", ".pth", b"PK\x03\x04")


def overlapping(data: bytes) -> bytes:
    """An archive whose storage begins in its data.pkl."""
    out = bytearray(data)
    entry = data.find(b"archive/data/0", data.find(b"PK\x01\x02")) - 46
    out[entry + 42 : entry + 46] = struct.pack("<I", 10)
    return bytes(out)


def names(canary: str) -> Iterator[Case]:
    """Content and suffix that do not belong together."""
    evil = program(call("os", "mkdir", text(canary)))
    yield Case("archive as safetensors", ".safetensors", archive(evil))
    yield Case("pickle as safetensors", ".safetensors", pickle.dumps(Canary(canary), 2))
    yield Case("pickle protocol 0 as safetensors", ".safetensors", pickle.dumps(Canary(canary), 0))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    yield Case("safetensors as .pth", ".pth", struct.pack("<Q", len(header)) + header + bytes(4))
    yield Case("Python as .pth", ".pth", f"import os; os.mkdir({canary!r})\n".encode())
    yield Case("ELF as .pth", ".pth", b"\x7fELF" + bytes(600))
    yield Case("HTML as .pth", ".pth", b"<html>404</html>")
    yield Case("pointer file as .bin", ".bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    yield Case("gzip as .pth", ".pth", gzip.compress(evil))
    array = io.BytesIO()
    np.save(array, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    yield Case("object array as .pt", ".pt", array.getvalue())
    yield Case("HDF5 as .ckpt", ".ckpt", b"\x89HDF\r\n\x1a\n" + bytes(600))
    for suffix in (
        ".pkl",
        ".pickle",
        ".joblib",
        ".mar",
        ".torchscript",
        ".pt2",
        ".npy",
        ".npz",
        ".onnx",
        ".h5",
        ".py",
        "",
    ):
        yield Case(f"pickle as {suffix or 'no suffix'}", suffix, pickle.dumps(Canary(canary), 2))
    yield Case("empty", ".pth", b"")
    yield Case("one byte", ".pth", b"\x80")
    yield Case("zeros", ".pth", bytes(4096))


def bombs(canary: str) -> Iterator[Case]:
    """Small files that ask for much, and the shapes of CVE-2026-24747."""

    def weights_of(body: bytes) -> bytes:
        return archive(program(entries((text("w"), body))))

    one, four = values(number(1)), values(number(4))
    yield Case("two million instructions", ".pth", archive(program(b"N" * 2_000_000)))
    yield Case("two million instructions, legacy", ".pth", legacy(b"", b"", b"", program(b"N" * 2_000_000)))
    yield Case("text of 4 GB", ".pth", archive(PROTO2 + b"X\xff\xff\xff\xff" + b"a" * 9))
    yield Case("memo of 4 billion", ".pth", archive(program(b"}r\xff\xff\xff\xff")), True)
    nested = b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    yield Case("a key that takes years to hash", ".pth", archive(program(b"}" + nested + b"Ns")), True)
    deep = b"]" * 200_000 + b"a" * 199_999
    yield Case("lists in lists", ".pth", archive(program(deep)), True)
    encoded = text("A" * 100_000)
    for _ in range(8):
        encoded = call("_codecs", "encode", encoded, text("utf-32"))
    yield Case("codec of a codec", ".pth", weights_of(encoded), True)
    yield Case(
        "codec that imports", ".pth", weights_of(call("_codecs", "encode", text("x"), text("antigravity"))), True
    )
    yield Case(
        "tensor of 2^50",
        ".pth",
        weights_of(tensor(storage(text("0"), 4), values(number(1 << 50)), values(number(0)))),
        True,
    )
    yield Case(
        "tensor beyond its storage", ".pth", weights_of(tensor(storage(text("0"), 4), values(number(400)), one)), True
    )
    yield Case("tensor with an offset", ".pth", weights_of(tensor(storage(text("0"), 4), four, one, 1 << 40)), True)
    yield Case(
        "tensor of negative size", ".pth", weights_of(tensor(storage(text("0"), 4), values(number(-4)), one)), True
    )
    yield Case(
        "tensor of negative stride", ".pth", weights_of(tensor(storage(text("0"), 4), four, values(number(-9)))), True
    )
    yield Case(
        "storage larger than its record", ".pth", weights_of(tensor(storage(text("0"), 1 << 40), four, one)), True
    )
    yield Case(
        "storage a little larger", ".pth", weights_of(tensor(storage(text("0"), 4096), values(number(4096)), one)), True
    )
    yield Case("storage that is not there", ".pth", weights_of(tensor(storage(text("7"), 4), four, one)), True)
    yield Case("storage that climbs", ".pth", weights_of(tensor(storage(text("../version"), 4), four, one)), True)
    yield Case(
        "storage of another type", ".pth", weights_of(tensor(storage(text("0"), 4, "QInt8Storage"), four, one)), True
    )
    yield Case("storage that is none", ".pth", weights_of(values(text("module"), text(canary)) + b"Q"), True)
    yield Case("storage named by a list", ".pth", weights_of(b"]Q"), True)
    yield Case("item of a tensor", ".pth", archive(program(ONES + number(1 << 40) + number(7) + b"s")), True)
    yield Case("items of a tensor", ".pth", archive(program(ONES + MARK + number(0) + ONES + b"u")), True)
    yield Case(
        "item of a storage", ".pth", archive(program(storage(text("0"), 4) + number(1 << 40) + number(7) + b"s")), True
    )
    yield Case(
        "item of a class",
        ".pth",
        archive(program(name("collections", "OrderedDict") + text("a") + text("b") + b"s")),
        True,
    )
    yield Case("state of a class", ".pth", archive(program(
        name("collections", "OrderedDict") + b")" + REDUCE + entries((text("__class__"), name("torch", "Size"))) + b"b"
    )), True)  # fmt: skip
    yield Case("state of a tensor", ".pth", archive(program(
        name("torch", "Tensor") + b")\x81" + values(storage(text("0"), 4), number(1 << 40), four, one) + b"b"
    )), True)  # fmt: skip
    hooked = call(
        "torch._utils", "_rebuild_parameter_with_state", ONES, b"\x89", b"}", entries((text("data"), text("x")))
    )
    yield Case("attributes of a parameter", ".pth", weights_of(hooked), True)
    yield Case("names that are numbers", ".pth", archive(program(entries((number(1), ONES)))), True)
    yield Case("no tensors", ".pth", archive(program(entries((text("epoch"), number(3))))), True)
    yield Case("a list of tensors", ".pth", archive(program(b"]" + ONES + b"a")), True)
    views = b"".join(
        text(f"w{i}") + tensor(storage(text("0"), 4), values(number(1 << 20)), values(number(0))) for i in range(64)
    )
    yield Case("many large views", ".pth", archive(program(b"}" + MARK + views + b"u")), True)


def cases(canary: str) -> Iterator[Case]:
    for group in (calls, instructions, pickles, tars, programs, archives, names, bombs):
        yield from group(canary)


def controls() -> Iterator[Case]:
    """Sound files from the same builders: were they refused, the others would prove nothing."""
    yield Case("archive", ".pth", archive(program(WEIGHTS)), True)
    yield Case("legacy file", ".pth", legacy(), True)
    far = tensor(storage(text("0"), 4, place="cuda:7"), values(number(4)), values(number(1)))
    yield Case("saved on a GPU", ".pth", archive(program(entries((text("w"), far)))), True)


# Sound files with a few other bytes.


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
    whole = program(WEIGHTS)
    for body in mutants(whole, count, len(whole)):
        path.write_bytes(archive(body))
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


# The campaign.


@dataclass(frozen=True)
class Verdict:
    """What became of a file: the error it was refused with (None: accepted), CPU and wall seconds."""

    error: DissectError | None
    cpu: float
    wall: float


def _cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def present(case: Case, folder: Path, only_child: bool = False) -> Verdict:
    """Write the file and read it as weights; `only_child` leaves out the inspection of the bytes."""
    path = folder / f"weights{case.suffix}"
    path.write_bytes(case.data)
    cpu, wall = _cpu(), time.perf_counter()
    error: DissectError | None = None
    try:
        if only_child:
            weights.through_child(path, len(case.data), None)
        else:
            weights.read_weights(path)
    except DissectError as refused:
        error = refused
    return Verdict(error, _cpu() - cpu, time.perf_counter() - wall)


def main() -> int:
    """Every file through the whole of `read_weights`, then every pickled one through the child process alone."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.dissect.models.hostile")
    parser.add_argument("--mutants", type=int, default=10_000, help="mutated files of each kind, default %(default)s")
    count = parser.parse_args().mutants
    bad, shown = 0, []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for mutate in (mutate_pickles, mutate_safetensors):
            shown.append(f"{mutate.__name__}: {count:,} files, {mutate(folder, count):,} refused, 0 crashes")
            print(shown[-1])
        canary = folder / "canary"
        for only_child in (False, True):
            verdicts = []
            for case in cases(str(canary)):
                if only_child and case.suffix not in weights.PICKLED:
                    continue
                verdict = present(case, folder, only_child)
                # Alone, the child must only hold: some odd files are weights to torch, and then only weights come out.
                fault = canary.exists() or verdict.cpu > 10 or (verdict.error is None and not only_child)
                bad += fault
                verdicts.append(verdict)
                why = f"{type(verdict.error).__name__}: {verdict.error}" if verdict.error else "accepted"
                print(f"{'FAULT' if fault else 'ok':<6}{verdict.cpu:6.2f} s  {case.name:<44} {why[-150:]!r}")
            refused = sum(verdict.error is not None for verdict in verdicts)
            layer = "child process alone" if only_child else "read_weights"
            fired = "FIRED" if canary.exists() else "silent"
            shown.append(
                f"{layer}: {len(verdicts)} files, {refused} refused, canary {fired}, "
                f"at most {max(v.cpu for v in verdicts):.2f} CPU s and {max(v.wall for v in verdicts):.2f} s each"
            )
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print("\n".join([*shown, f"largest child {memory:,} MiB", f"{bad} faults"]))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
