"""What a pickled weights file really is, told from its bytes before anything loads it.

Only two shapes go on to the child process: the zip archive that `torch.save` writes, member by member as it writes it,
and the older run of five pickles with raw storages behind them. Everything else is refused by name.
"""

import io
import re
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from dissect.errors import SpecError, UnsafeError
from dissect.models import opcodes

MAX_MEMBERS = 100_000
MAX_PICKLE = 64 << 20
# The flags that torch.save sets: sizes follow the data, names are UTF-8.
FLAGS = 0x0808
MEMBERS = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id|data/\d+"
)
# Part of a member's name -> what kind of archive it betrays.
PROGRAMS = (
    ("/code/", "a TorchScript program"),
    ("constants.pkl", "a TorchScript program"),
    ("bytecode.pkl", "a TorchScript program"),
    ("extern_modules", "a torch.package archive"),
    ("models/model.json", "an exported program"),
    ("serialized_exported_program.json", "an exported program"),
    ("archive_format", "an exported program"),
)
SAVE_INSTEAD = "save the state dict instead (torch.save(model.state_dict(), FILE) or safetensors)"
PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd", b"7z\xbc\xaf": "7z"}


def judge(path: Path) -> None:
    """Raise UnsafeError or SpecError unless the file may be handed to the child process."""
    with open(path, "rb") as file:
        head = file.read(512)
        if not head:
            raise SpecError(f"weights {path} are an empty file")
        if head.startswith(b"PK\x03\x04"):
            _judge_archive(path, file)
            return
        _judge_head(path, head)
        _judge_pickles(path, io.BytesIO(head + file.read(MAX_PICKLE)), opcodes.LEGACY_PICKLES)


def is_pickled(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an archive or a pickle."""
    return head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))


def _judge_head(path: Path, head: bytes) -> None:
    """Refuse what is neither an archive nor a run of pickles."""
    packed = next((kind for magic, kind in PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        raise SpecError(f"weights {path} are compressed with {packed}: unpack them first")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        raise SpecError(f"weights {path} are a safetensors file: give them that suffix")
    if _is_tar(head):
        raise UnsafeError(
            f"weights {path} are a tar archive of the first torch versions, whose loader runs code: refused; "
            f"load them where you trust them and {SAVE_INSTEAD}"
        )
    if zipfile.is_zipfile(path):
        raise UnsafeError(
            f"weights {path} are an archive behind other bytes, which readers take for two things: refused"
        )
    if not head.startswith(b"\x80\x02"):
        raise refusal(path, "its first bytes are not those of torch.save")


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _judge_archive(path: Path, file: io.BufferedReader) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _judge_members(path, file, members)
            text = archive.read(next(m for m in members if m.filename.endswith("/data.pkl")))
    # NotImplementedError is what zipfile says of a compression that it does not know.
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, struct.error) as error:
        raise UnsafeError(f"weights {path} are a damaged archive ({error}): refused") from None
    stream = io.BytesIO(text)
    _judge_pickles(path, stream, 1)
    if stream.tell() != len(text):
        raise refusal(path, "its data.pkl goes on after the end of the pickle")


def _judge_members(path: Path, file: io.BufferedReader, members: Sequence[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    for mark, kind in PROGRAMS:
        if any(mark in name for name in names):
            raise UnsafeError(f"weights {path} are {kind}, which is code: refused; {SAVE_INSTEAD}")
    if len(names) > MAX_MEMBERS:
        raise refusal(path, f"it has {len(names):,} members, more than {MAX_MEMBERS:,}")
    if len(set(names)) != len(names):
        raise refusal(path, "two of its members have the same name")
    root = names[0].partition("/")[0] if names else ""
    for member in members:
        folder, _, name = member.filename.partition("/")
        if folder != root or root in ("", ".", "..") or not MEMBERS.fullmatch(name):
            raise refusal(path, f"it holds {member.filename[:80]!r}, which no state dict has")
        if member.flag_bits & ~FLAGS or member.compress_type != zipfile.ZIP_STORED:
            raise refusal(path, f"its member {member.filename[:80]!r} is encrypted or compressed")
        if member.file_size != member.compress_size:
            raise refusal(path, f"its member {member.filename[:80]!r} claims two sizes")
    pickles = [member for member in members if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise refusal(path, "it has no data.pkl")
    if pickles[0].file_size > MAX_PICKLE:
        raise refusal(path, f"its data.pkl has {pickles[0].file_size:,} bytes, more than {MAX_PICKLE:,}")
    _judge_layout(path, file, members)


def _judge_layout(path: Path, file: io.BufferedReader, members: Sequence[zipfile.ZipInfo]) -> None:
    """Members must lie one after the other from byte 0, and the directory must end the file: readers of archives
    disagree about everything else."""
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 98))
    tail = file.read()
    signature, count, size, start, comment = struct.unpack("<4s6xHIIH", tail[-22:])
    behind = 22
    if tail[-42:-38] == b"PK\x06\x07":  # the directory of large archives, which torch.save always writes
        wide = struct.unpack("<QQQ", tail[-66:-42])
        (locator,) = struct.unpack("<8xQ4x", tail[-42:-22])
        behind = 98
        narrow = zip((count, size, start), wide, (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF))
        if locator != end - 98 or any(short not in (long, full) for short, long, full in narrow):
            raise refusal(path, "its two directories disagree")
        count, size, start = wide
    if count != len(members):
        raise refusal(path, f"it claims {count:,} members and has {len(members):,}")
    if signature != b"PK\x05\x06" or comment or start + size + behind != end:
        raise refusal(path, "its directory does not stand at the end of the file")
    position = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < position:
            raise refusal(path, f"its member {member.filename[:80]!r} overlaps another")
        position = member.header_offset + 30 + member.file_size
    if min(member.header_offset for member in members) != 0 or position > end:
        raise refusal(path, "its members do not begin at byte 0 or go past its end")


def _judge_pickles(path: Path, stream: io.BytesIO, count: int) -> None:
    try:
        why = opcodes.objection(stream, count)
    except (ValueError, IndexError, OverflowError) as error:
        raise refusal(path, f"its pickle is damaged ({str(error)[:200]})") from None
    if why is not None:
        raise refusal(path, why)


def refusal(path: Path, why: str) -> UnsafeError:
    return UnsafeError(f"weights {path} cannot be loaded as weights only, and there is no other way: {why}")
