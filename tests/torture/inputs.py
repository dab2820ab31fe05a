"""Files and texts from strangers: refused or set aside, never run, never followed outside."""

import random
import string
from pathlib import Path

import numpy as np

import broden
from dissect.cli.main import main
from dissect.errors import SpecError
from dissect.service.spec import read_spec
from dissect.store import Store
from tests.broden import campaign_paths, campaign_verify, foreign
from tests.dissect.models import hostile
from tests.dissect.serve import fuzz
from tests.dissect.serve.workspace import made
from tests.torture.place import Tally

SECONDS = 10


def checkpoints(folder: Path, count: int) -> Tally:
    """Each is refused within ten seconds of CPU time (a busy machine says nothing about them), and no canary fires."""
    tally, canary, cpu, wall = Tally(), folder / "canary", 0.0, 0.0
    for case in list(hostile.cases(str(canary)))[:count]:
        verdict = hostile.present(case, folder)
        cpu, wall = max(cpu, verdict.cpu), max(wall, verdict.wall)
        tally.count(verdict.error is not None and verdict.cpu < SECONDS and not canary.exists())
    tally.seen = f"slowest {cpu:.1f} s of CPU time, {wall:.1f} s on the clock"
    return tally


def safetensors(folder: Path, count: int) -> Tally:
    """Mutated files, in this process: read to the last byte, or refused."""
    refused = hostile.mutate_safetensors(folder, count)
    return Tally(count, count, f"{refused:,} refused")


def pickles(folder: Path, count: int) -> Tally:
    """Mutated state dicts: refused, or they name only what a state dict may name."""
    refused = hostile.mutate_pickles(folder, count)
    return Tally(count, count, f"{refused:,} refused")


def pictures(folder: Path, count: int) -> Tally:
    """Damaged pictures and label planes, beside as many odd but sound ones: exactly the damaged are set aside."""
    data = broden.synth(folder / "set", images=count + count // 10 + 10, size=64)
    figures = campaign_verify.judge(data.root, count, workers=1)
    wrong = sum(len(figures[key]) for key in campaign_verify.BAD)  # type: ignore[arg-type]
    files, odd = int(str(figures["files"])), int(str(figures["odd"]))
    return Tally(files + odd, files + odd - wrong, f"{files:,} damaged, {odd:,} odd but sound")


def formats(folder: Path, count: int) -> Tally:
    """Kinds of files that are not on the list, and files of two kinds at once: no decoder beyond the four is asked."""
    tally = Tally()
    with foreign.watched() as asked:
        for name, data in list(foreign.files().items())[:count]:
            tally.count(foreign.refused(data) and not asked)
            if asked:
                tally.seen += f" {name} reached {asked.pop()};"
                asked.clear()
    return tally


def paths(folder: Path, count: int) -> Tally:
    """Names that try to leave the set, as an image, a plane, a link, a pack: nothing outside is opened."""
    figures = campaign_paths.run(folder.resolve(), step=max(1, round(320 / count)))
    trials = int(figures["trials"])
    return Tally(trials, trials - len(figures["outside"]), f"{figures['payloads']} names")


_WORDS = ["priority", "shards", "run", "model", "layers", "data", "name", "quantile", "null", "limit", "mean", "report"]
_VALUES = ["true", "1", "-1", "1e999", "nan", '"x"', "[]", "[1, [2]]", "{a = 1}", "1979-05-27", "''", "0x7f", '"""']
_SPEC = (
    'priority = 1\nshards = 2\n[[run]]\nmodel = ["demo", "resnet18"]\nlayers = ["a"]\ndata = "d"\nname = "{model}"\n'
)


def specs(folder: Path, count: int) -> Tally:
    """Mutated specs: read, or refused by name; what can be read but names nothing is refused with 2, and nothing is
    queued."""
    tally, chance, read = Tally(), random.Random(5), 0
    path = folder / "spec.toml"
    for number in range(count):
        text = _mutated(chance)
        path.write_bytes(text.encode("utf-8", "surrogatepass") if number % 50 else bytes(chance.randbytes(200)))
        try:
            spec = read_spec(path)
        except SpecError as error:
            tally.count(str(path) in str(error))
            continue
        read += 1
        sound = bool(spec.requests) and all(request.layers is not None for request in spec.requests)
        if number % 10 == 0:
            sound &= main(["submit", str(path), "--workspace", str(folder / "w")]) == 2
            sound &= not (folder / "w" / "dissect.sqlite").exists()
        tally.count(sound)
    tally.seen = f"{read:,} could be read"
    return tally


def _mutated(chance: random.Random) -> str:
    lines = _SPEC.splitlines()
    for _ in range(chance.randint(1, 3)):
        at, kind = chance.randrange(len(lines)), chance.randrange(6)
        if kind == 0:
            lines[at] = f"{chance.choice(_WORDS)} = {chance.choice(_VALUES)}"
        elif kind == 1:
            lines.insert(at, f"{chance.choice(_WORDS)}{chance.choice('_- x')} = {chance.choice(_VALUES)}")
        elif kind == 2:
            del lines[at]
        elif kind == 3:
            lines[at] = lines[at].partition("=")[0] + "= " + chance.choice(_VALUES)
        elif kind == 4:
            lines[at] = lines[at][: chance.randrange(1 + len(lines[at]))]
        else:
            place = chance.randrange(1 + len(lines[at]))
            lines[at] = lines[at][:place] + chance.choice(string.printable + "\ud800\u202eé\0") + lines[at][place:]
        lines = lines or [""]
    return "\n".join(lines)


def requests(folder: Path, count: int) -> Tally:
    """Hostile requests to a running server: none gets a 5xx or no answer, and the disk is untouched."""
    seen, bad, changed = fuzz.attack(made(folder), count, 0)
    return Tally(count, 0 if changed else count - len(bad), f"{seen[200]:,} were answered with 200")


def names(folder: Path, count: int) -> Tally:
    """Hostile names of runs: refused, or taken as they stand and found again; no folder beside the reports."""
    tally, chance = Tally(), np.random.default_rng(6)
    from tests.broden.payloads import text_payloads
    from tests.dissect.store import makers

    fixed = [*text_payloads("/tmp"), "'; DROP TABLE runs; --", "<script>alert(1)</script>", "a\u202eb", "x" * 121]
    fixed += ["".join(map(chr, chance.integers(1, 0x300, 12).tolist())) for _ in range(count)]
    with makers.open_store(folder / "w") as store:
        for number, name in enumerate(fixed[:count]):
            run_id = f"{number:064d}"
            try:
                store.begin_run(makers.run_record(run_id, name))
            except SpecError:
                tally.count(True)
                continue
            place = store.workspace.report_folder(name)
            inside = place.parent == store.workspace.root / "reports" and not place.name.startswith(".")
            tally.count(inside and store.get_run(run_id).name == name)
    with Store.open(folder / "w", readonly=True) as store:
        tally.seen = f"{len(store.runs())} taken"
    return tally
