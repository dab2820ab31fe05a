"""The CPU kernels under AddressSanitizer and UndefinedBehaviourSanitizer: built apart, run over the kernel tests."""

import os
import shutil
import subprocess
import sys
import sysconfig
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
    target = tmp_path_factory.mktemp("asan") / "_C.so"
    include = Path(torch.__file__).parent / "include"
    command = [
        compiler, "-shared", "-fPIC", "-std=c++20", "-g", "-O1", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined", "-ffp-contract=off", "-DTORCH_TARGET_VERSION=0x020b000000000000",
        f"-I{include}", f"-I{sysconfig.get_paths()['include']}", "csrc/ops.cpp",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cpu").glob("*.cpp")), "-o", str(target),
        f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-2000:]
    return target


@pytest.mark.slow
def test_the_kernel_suite_is_clean(sanitized: Path) -> None:
    command = ["g++", "-print-file-name=libasan.so"]
    runtime = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime,
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
