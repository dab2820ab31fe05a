"""The CPU kernels under AddressSanitizer and UndefinedBehaviourSanitizer: built apart, run over the kernel tests."""

import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import importlib.util, sys
import torch
spec = importlib.util.spec_from_file_location("dissect._C", sys.argv[1])
sys.modules["dissect._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["dissect._C"])
torch.set_num_threads(2)
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/kernels/test_kernels.py", "-k", "not opcheck"]))
"""


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    folder = tmp_path_factory.mktemp("asan")
    torch_root = Path(torch.__file__).parent
    flags = [
        "-fPIC", "-std=c++20", "-g1", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
        "-ffp-contract=off", "-fno-trapping-math", "-DTORCH_TARGET_VERSION=0x020b000000000000",
        f"-I{torch_root / 'include'}", f"-I{sysconfig.get_paths()['include']}",
    ]  # fmt: skip

    def build(arguments: list[str]) -> None:
        done = subprocess.run([compiler, *flags, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    sources = [ROOT / "csrc" / "ops.cpp", *sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))]
    objects = [str(folder / f"{source.stem}.o") for source in sources]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, (["-c", str(source), "-o", name] for source, name in zip(sources, objects))))
    library = folder / "_C.so"
    build(["-shared", *objects, "-o", str(library), f"-L{torch_root / 'lib'}", "-ltorch_cpu", "-lc10"])
    return library


@pytest.mark.slow
def test_the_kernel_suite_is_clean(sanitized: Path) -> None:
    # The C++ runtime comes before Python's first exception, so that the sanitizer can see them thrown.
    runtimes = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "OMP_NUM_THREADS": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(sanitized)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "[100%]" in done.stdout
    assert "ERROR: AddressSanitizer" not in done.stderr
