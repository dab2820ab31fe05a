"""Networks from the user's own code: nothing runs before the hash is right, and then it runs as it would by itself."""

import hashlib
import shlex
import sys
from pathlib import Path

import pytest

from dissect import models
from dissect.errors import SpaceError, SpecError, UnsafeError

NET = """
from pathlib import Path
(Path(__file__).parent / "ran").touch()
from torch import nn
def build(num_classes=3):
    return nn.Sequential(nn.Conv2d(3, num_classes, 1))
def fixed():
    return nn.Conv2d(3, 5, 1)
model = build
number = 3
def wrong():
    return 3
def broken():
    raise KeyError("weights")
"""


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


@pytest.mark.parametrize("trust", [None, "0" * 64, ""])
def test_without_the_hash_nothing_runs(net: Path, trust: str | None) -> None:
    with pytest.raises(UnsafeError, match=r"net\.py:build' is refused.*\n  --trust-code " + sha(net)):
        models.load(f"{net}:build", trust=trust)
    assert not (net.parent / "ran").exists()


def test_the_refusal_on_the_command_line_is_the_whole_command(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["run", f"{net}:build", "--layer", "?", "--name", "my net"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dissect", *given])
    with pytest.raises(UnsafeError) as refused:
        models.load(f"{net}:build")
    command = str(refused.value).splitlines()[1].strip()
    assert shlex.split(command) == ["dissect", *given, "--trust-code", sha(net)]


def test_with_the_hash_it_is_a_model_like_any_other(net: Path) -> None:
    model = models.load(f"{net}:build", trust=sha(net))
    assert (net.parent / "ran").exists()
    assert model.source == f"net.py:build@{sha(net)[:16]}"
    assert [info.shape for info in models.layers(model, (4, 4))] == [(3, 4, 4)]
    assert models.load(str(net), trust=f"sha256:{sha(net).upper()}").source.startswith("net.py:model@")


def test_changed_code_is_refused_again(net: Path) -> None:
    trust = sha(net)
    net.write_text(NET + "\n")
    with pytest.raises(UnsafeError, match="but the file's hash is another"):
        models.load(f"{net}:build", trust=trust)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("none", "has no function 'none'"),
        ("number", "has no function 'number'"),
        ("wrong", "returns a int, expected a torch.nn.Module"),
        ("broken", "failed: KeyError: 'weights'"),
    ],
)
def test_factories_that_are_none(net: Path, factory: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        models.load(f"{net}:{factory}", trust=sha(net))


def test_code_that_fails_is_named(net: Path) -> None:
    net.write_text("import torch\n1 / 0")
    with pytest.raises(SpecError, match=r"net\.py failed: ZeroDivisionError"):
        models.load(f"{net}:build", trust=sha(net))


def test_a_refusal_of_the_code_itself_is_told_in_its_words(net: Path) -> None:
    net.write_text("from dissect.errors import SpaceError\nraise SpaceError('no room for the network')")
    with pytest.raises(SpaceError, match=r"^no room for the network$"):
        models.load(f"{net}:build", trust=sha(net))


def test_weights_for_code(net: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"0.weight": torch.ones(7, 3, 1, 1), "0.bias": torch.zeros(7)}, tmp_path / "a.safetensors")
    model = models.load(f"{net}:build", tmp_path / "a.safetensors", trust=sha(net))
    assert model.notes == ("7 classes, read from the last layer of the weights",)
    save_file({"weight": torch.ones(7, 3, 1, 1), "bias": torch.zeros(7)}, tmp_path / "a.safetensors")
    with pytest.raises(SpecError, match=r"have 7 classes \(weight\), net\.py:fixed@.* has 5 and takes no num_classes"):
        models.load(f"{net}:fixed", tmp_path / "a.safetensors", trust=sha(net))


def test_modules_are_found_without_running_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "zoo"
    (package / "small").mkdir(parents=True)
    (package / "__init__.py").write_text("from pathlib import Path; (Path(__file__).parent / 'ran').touch()")
    (package / "small" / "__init__.py").write_text("")
    (package / "small" / "parts.py").write_text("from torch import nn\ndef conv(): return nn.Conv2d(3, 4, 1)")
    code = package / "small" / "net.py"
    code.write_text("from .parts import conv\nfrom zoo.small import parts\ndef build(): return conv()")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with pytest.raises(UnsafeError, match=sha(code)):
        models.load("zoo.small.net:build")
    assert not (package / "ran").exists()
    assert "zoo" not in sys.modules
    model = models.load("zoo.small.net:build", trust=sha(code))
    assert type(model.module).__name__ == "Conv2d"
    assert sys.path == before
    for name in [name for name in sys.modules if name.partition(".")[0] == "zoo"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("source", ["none.py:build", "zoo.none:build", "os.path.x:build", "a b:build", "..:build"])
def test_code_that_is_not_there(source: str) -> None:
    with pytest.raises(SpecError, match=r"expected FILE\.py:factory or pkg\.module:factory"):
        models.load(source, trust="0" * 64)


def test_a_checkpoint_is_no_model(tmp_path: Path) -> None:
    for name in ("net.pt", "net.pth", "net.pt2", "net.pkl"):
        (tmp_path / name).write_bytes(b"\x80\x02.")
        with pytest.raises(UnsafeError, match="only its own code could turn into a network: refused; name the network"):
            models.load(str(tmp_path / name))
    with pytest.raises(SpecError, match=r"is a weights file: name the network and add --weights"):
        models.load("net.safetensors")
