"""The CPU kernels under sanitizers: built apart, run over the kernel tests.

AddressSanitizer and UndefinedBehaviourSanitizer look at torch's own threads, ThreadSanitizer at plain ones
(`threads.cpp`), as OpenMP's locks are hidden from it.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import importlib.util, sys
import torch
spec = importlib.util.spec_from_file_location("dissect._C", sys.argv[1])
sys.modules["dissect._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["dissect._C"])
"""
SUITE = (
    LOAD
    + """
torch.set_num_threads(int(sys.argv[2]))
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/kernels/test_kernels.py", "-k", sys.argv[3]]))
"""
)
CARELESS = LOAD + "import ctypes; ctypes.CDLL(sys.argv[1]).count_carelessly()"

Build = Callable[[str, list[Path]], Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    torch_root = Path(torch.__file__).parent

    def library(sanitizers: str, more: list[Path]) -> Path:
        folder = tmp_path_factory.mktemp("sanitized")
        flags = [
            "-fPIC", "-std=c++20", "-g1", "-O1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=undefined",
            "-ffp-contract=off", "-fno-trapping-math", "-DTORCH_TARGET_VERSION=0x020b000000000000",
            f"-I{torch_root / 'include'}", f"-I{sysconfig.get_paths()['include']}",
        ]  # fmt: skip

        def compiled(arguments: list[str]) -> None:
            done = subprocess.run([compiler, *flags, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]

        sources = [ROOT / "csrc" / "ops.cpp", *sorted((ROOT / "csrc" / "cpu").glob("*.cpp")), *more]
        objects = [str(folder / f"{source.stem}.o") for source in sources]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(compiled, (["-c", str(source), "-o", name] for source, name in zip(sources, objects))))
        made = folder / "_C.so"
        compiled(
            ["-shared", "-Wl,-Bsymbolic", *objects, "-o", str(made), f"-L{torch_root / 'lib'}", "-ltorch_cpu", "-lc10"]
        )
        return made

    return library


def run(code: str, arguments: list[str], runtimes: list[str], options: dict[str, str], before: list[str]) -> str:
    """Output and errors of Python with the runtimes preloaded; the exit status leads."""
    # The C++ runtime comes before Python's first exception, so that a sanitizer can see them thrown.
    paths = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in (*runtimes, "libstdc++.so")
    ]
    done = subprocess.run(
        [*before, sys.executable, "-c", code, *arguments],
        cwd=ROOT, env={**os.environ, "LD_PRELOAD": " ".join(paths), **options}, capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    return f"exit status {done.returncode}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
def test_the_kernel_suite_is_clean_of_faults_of_memory_and_undefined_behaviour(build: Build) -> None:
    made = build("address,undefined", [])
    options = {
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "OMP_NUM_THREADS": "2",
    }
    told = run(SUITE, [str(made), "2", "not opcheck"], ["libasan.so"], options, [])
    assert told.startswith("exit status 0\n"), told[-3000:]
    assert "[100%]" in told
    assert "ERROR: AddressSanitizer" not in told


@pytest.mark.slow
def test_the_kernel_suite_is_clean_of_races_and_one_on_purpose_is_seen(build: Build) -> None:
    made = build("thread", [Path(__file__).with_name("threads.cpp")])
    # Addresses that are not shuffled: the runtime of this compiler's age cannot map its shadow otherwise.
    plain = ["setarch", platform.machine(), "-R"]
    if subprocess.run([*plain, "true"], capture_output=True, check=False).returncode:
        pytest.skip("setarch -R is not allowed here")
    options = {"TSAN_OPTIONS": "halt_on_error=0:exitcode=66:report_thread_leaks=0", "OMP_NUM_THREADS": "1"}
    told = run(CARELESS, [str(made)], ["libtsan.so"], options, plain)
    assert told.startswith("exit status 66\n"), told[-3000:]
    assert "WARNING: ThreadSanitizer: data race" in told
    told = run(SUITE, [str(made), "1", "not opcheck and not without_compiled"], ["libtsan.so"], options, plain)
    assert told.startswith("exit status 0\n"), told[-3000:]
    assert "[100%]" in told
    assert "WARNING: ThreadSanitizer" not in told
