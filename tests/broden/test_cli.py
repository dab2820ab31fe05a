"""`python -m broden`: exit codes, output on the right stream, machine output that parses."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import broden
from broden.cli import COMMANDS, main
from broden.finding import find_images, lookup, mask_of
from broden.sheet import contact_sheet, draw_mask

from . import layouts, makers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return broden.synth(tmp_path_factory.mktemp("cli") / "set", images=60, size=64).root


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_needs_nothing_heavy(command: str) -> None:
    text = "import sys; from broden.cli import main\ntry: main({!r})\nexcept SystemExit as e: print(e.code)\n"
    text += "print(sorted({{'numpy', 'PIL', 'torch'}} & set(sys.modules)))"
    arguments = [command, "--help"] if command else ["--help"]
    done = subprocess.run([sys.executable, "-c", text.format(arguments)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]


def test_importing_broden_is_cheap_and_without_torch() -> None:
    text = (
        "import sys, broden; print('numpy' in sys.modules); broden.open; broden.stream; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_public_name_is_there() -> None:
    for name in broden.__all__:
        assert callable(getattr(broden, name))
    with pytest.raises(AttributeError):
        _ = broden.nothing  # type: ignore[attr-defined]


def test_info(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "info", folder)
    assert code == 0
    assert "60 of 64 x 64" in out
    code, out, err = run(capsys, "info", folder, "--json", "--split", "train")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["images"] == len(broden.open(folder, "train"))
    assert sum(found["sources"].values()) == found["images"]
    assert found["fingerprint"] == broden.open(folder).fingerprint
    assert set(found["decoders"]) >= {"pillow", "jpg"}


def test_verify_good_and_bad(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    code, out, err = run(capsys, "verify", folder)
    assert (code, out) == (0, "")
    assert "all good" in err
    root = makers.small(tmp_path / "set")
    (root / "images/s/i3.jpg").write_bytes(b"x")
    (root / "images/s/i1_part_2.png").unlink()
    code, out, _ = run(capsys, "verify", root)
    assert code == 3
    assert "images/s/i3.jpg, row 5: not a picture" in out
    code, out, _ = run(capsys, "verify", root, "--json")
    found = json.loads(out)
    assert (code, found["excluded_images"]) == (3, 2)
    assert [(f["file"], f["row"]) for f in found["faults"]] == [("images/s/i1_part_2.png", 3), ("images/s/i3.jpg", 5)]


def test_verify_reports_every_bad_row_of_the_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [*makers.ROWS]
    rows[1] = rows[1].replace("s/i1.jpg", "../i1.jpg")
    rows[3] = rows[3].replace("16,16", "16,17")
    rows[4] = rows[4].replace(",5\n", ",77\n")
    labels = makers.TABLES["label.csv"].replace("2,blue-c", "1,blue-c")
    root = makers.small(tmp_path / "set", {"index.csv": makers.HEADER + "".join(rows), "label.csv": labels})
    code, out, _ = run(capsys, "verify", root, "--json")
    assert code == 3
    places = {(f["file"], f["row"]) for f in json.loads(out)["faults"]}
    assert {("index.csv", 3), ("index.csv", 5), ("index.csv", 6), ("label.csv", 3)} <= places


def test_verify_notes_what_is_odd_but_harmless(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = makers.small(tmp_path / "set")
    (root / "images/s/stray.png").write_bytes(b"x")
    (root / "images/s/i3_color.png").write_bytes(makers.plane(np.full((8, 8), 3)))
    code, out, err = run(capsys, "verify", root)
    assert (code, out) == (0, "")
    assert "named by no row" in err
    assert "label 3 (car) is not of category color" in err


def test_verify_without_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "verify", tmp_path)[0] == 2
    assert run(capsys, "verify", tmp_path / "nothing")[0] == 2


def test_stats(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = run(capsys, "stats", folder, "--recount")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert all(row["images"] == row["frequency"] for row in rows)
    code, out, _ = run(capsys, "stats", folder, "--format", "json")
    assert len(json.loads(out)) == len(rows)


def test_images_are_those_that_hold_the_concept(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    data = broden.open(folder)
    (label,) = lookup(data, ["wheel"])
    wanted = {}
    for position, row in enumerate(data.rows):
        share = float(mask_of(row, data.read_labels(position), label.number, None).mean())
        if share >= 0.01:
            wanted[position] = share
    code, out, err = run(capsys, "images", folder, "--concept", "wheel", "--min-coverage", 0.01, "--format", "json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert {item["position"]: item["coverage"] for item in found} == wanted
    assert [item["coverage"] for item in found] == sorted(wanted.values(), reverse=True)
    both, _ = find_images(data, lookup(data, ["wheel", "window"]))
    assert {match.position for match in both} <= {m.position for m in find_images(data, lookup(data, ["window"]))[0]}
    only, _ = find_images(data, lookup(data, ["window"]), category="object")
    every, _ = find_images(data, lookup(data, ["window"]))
    assert len(only) < len(every)


def test_images_say_what_is_wrong(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, _, err = run(capsys, "images", folder, "--concept", "whel")
    assert code == 2
    assert "did you mean wheel" in err
    code, _, err = run(capsys, "images", folder, "--concept", "wheel", "--category", "thing")
    assert code == 2
    assert "no category 'thing'" in err


def test_a_contact_sheet(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.html"
    code, out, _ = run(capsys, "images", folder, "--concept", "wheel", "--html", sheet, "--top", 3)
    text = sheet.read_text(encoding="utf-8")
    assert (code, out) == (0, "")
    assert text.count("<img ") == 3
    assert "http" not in text.replace("http-equiv", "")


def test_hostile_names_are_text_in_the_sheet(tmp_path: Path) -> None:
    nasty = '<script>alert(1)</script>"onload="'
    labels = makers.TABLES["label.csv"].replace("car", '"' + nasty.replace('"', '""') + '"')
    codes = makers.TABLES["c_object.csv"].replace("car", "x")
    data = broden.open(makers.small(tmp_path / "set", {"label.csv": labels, "c_object.csv": codes}))
    found = lookup(data, [nasty])
    matches, _ = find_images(data, found)
    text = contact_sheet(data, found, matches, len(matches))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_mask_is_drawn_where_it_is() -> None:
    rgb = np.full((20, 20, 3), 200, np.uint8)
    mask = np.zeros((10, 10), bool)
    mask[2:8, 3:7] = True
    drawn = draw_mask(rgb, mask)
    assert (drawn[0, 0] == 50).all()
    assert (drawn[10, 10] == 200).all()
    assert drawn[4, 8].tolist() == [255, 200, 0]


def test_synth_pack_unpack_and_build(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "synth", "--out", tmp_path / "s", "--images", 20, "--size", 32, "--json")
    assert (code, json.loads(out)["images"]) == (0, 20)
    assert run(capsys, "synth", "--out", tmp_path / "s", "--images", 20)[0] == 2
    assert run(capsys, "synth", "--out", tmp_path / "t", "--images", 0)[0] == 2
    code, out, _ = run(capsys, "pack", tmp_path / "s", "--out", tmp_path / "p", "--json")
    assert (code, json.loads(out)["shards"]) == (0, 1)
    assert run(capsys, "unpack", tmp_path / "p", "--out", tmp_path / "u")[0] == 0
    assert run(capsys, "pack", tmp_path / "p", "--out", tmp_path / "q")[0] == 2
    layouts.plain(tmp_path / "mine")
    spec = "min_images = 1\nmin_coverage = 0\nsize = 32\n[[source]]\nkind='folder'\nname='m'\npath='mine'\n"
    (tmp_path / "spec.toml").write_text(spec)
    (tmp_path / "mine/images/b.jpg").write_bytes(b"broken")
    code, out, _ = run(capsys, "build", tmp_path / "spec.toml", "--out", tmp_path / "b", "--json")
    found = json.loads(out)
    assert (code, found["images"], found["faults"]) == (3, 1, 1)


def test_a_full_disk_is_exit_code_5(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import errno

    with pytest.MonkeyPatch.context() as patch:

        def full(self: Path, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(Path, "write_bytes", full)
        code, _, err = run(capsys, "synth", "--out", tmp_path / "s", "--images", 3, "--size", 32)
    assert code == 5
    assert "no space left" in err
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_quiet(folder: Path) -> None:
    command = f"{sys.executable} -m broden stats {folder} | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("number,name")
