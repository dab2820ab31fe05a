"""Pickled state dicts read as text: which opcodes and which globals, before any unpickler sees them.

Nothing is executed here. The rule is narrower than torch's own for `weights_only`: plain tensors, parameters and
containers, and no opcode that a state dict written by `torch.save` does not use.
"""

import pickletools
import re
from typing import IO

MAX_OPCODES = 1_500_000
"""About fifty thousand tensors with their names."""
OPCODES = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT",
    "EMPTY_SET", "BINPERSID", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", "BINUNICODE", "SHORT_BINSTRING",
    "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT",
})  # fmt: skip
GLOBALS = frozenset({
    "collections OrderedDict",
    "collections Counter",
    "torch Size",
    "torch Tensor",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch.serialization _get_layout",
    "torch._tensor _rebuild_from_type_v2",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch.storage TypedStorage",
    "torch.storage UntypedStorage",
    "_codecs encode",
    "__builtin__ set",
    "builtins set",
})  # fmt: skip
_STORAGE = re.compile(r"torch(\.cuda)? [A-Z][A-Za-z0-9]{1,20}Storage")
_DTYPE = re.compile(r"torch (b?float|bcomplex|complex|u?int|bool)[a-z0-9_]{0,16}")
LEGACY_PICKLES = 5
"""A file from before the zip format: magic number, protocol, system, object, storage keys; then raw storages."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def objection(file: IO[bytes], count: int = 1) -> str | None:
    """Why `count` pickles, one after the other from the file's position, are no state dict; None where they may be.

    Raises ValueError where they are damaged.
    """
    seen = 0
    for index in range(count):
        last: object = None
        for opcode, argument, position in pickletools.genops(file):
            seen += 1
            if seen > MAX_OPCODES:
                return f"it has more than {MAX_OPCODES:,} pickle instructions"
            if opcode.name == "GLOBAL" and not allowed(str(argument)):
                return f"it would call {str(argument).replace(' ', '.')[:100]!r}"
            if opcode.name not in OPCODES:
                return f"it uses the pickle instruction {opcode.name} at byte {position}"
            if opcode.name == "PROTO" and argument != 2:
                return f"it is a pickle of protocol {argument}, and torch.save writes 2"
            last = argument if opcode.name == "LONG1" else last
        if count == LEGACY_PICKLES and index == 0 and last != LEGACY_MAGIC:
            return "it is a plain pickle, not a file of torch.save"
    return None


def allowed(name: str) -> bool:
    """Whether a state dict may name this global, written `module name`."""
    return name in GLOBALS or _STORAGE.fullmatch(name) is not None or _DTYPE.fullmatch(name) is not None
