"""Builds the compiled parts and says what it decided: C++ always, CUDA where a toolkit is found.

DISSECT_CUDA=1 makes a missing toolkit an error, =0 skips the CUDA half. No GPU is needed to build, so the
architectures are set here (TORCH_CUDA_ARCH_LIST overrides them). DISSECT_WERROR=1 makes warnings errors, as CI does: a
compiler of tomorrow must not keep anybody from installing.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from setuptools import setup


def toolkit() -> str | None:
    """Root of a CUDA toolkit that can compile and link, or None. A nvcc on PATH may be a wrapper, so it is asked."""
    roots = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", "")]
    nvcc = shutil.which("nvcc")
    if nvcc:
        told = subprocess.run([nvcc, "--dryrun", "none.cu"], capture_output=True, text=True, check=False).stderr
        roots += [line.split("TOP=", 1)[1].strip() for line in told.splitlines() if "TOP=" in line]
    for root in [*roots, "/usr/local/cuda"]:
        if root and Path(root, "bin", "nvcc").exists() and list(Path(root).glob("lib*/libcudart.so*")):
            return str(Path(root).resolve())
    return None


CUDA_ROOT = toolkit()
if CUDA_ROOT:  # torch reads it when it is imported
    os.environ["CUDA_HOME"] = CUDA_ROOT

from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension, include_paths  # noqa: E402

STRICT = os.environ.get("DISSECT_WERROR") == "1"
# torch's headers are not ours to warn about, and what they provoke changes with its releases.
FOREIGN = [part for path in include_paths() for part in ("-isystem", path)]
STABLE = ["-DTORCH_TARGET_VERSION=0x020b000000000000"]  # runs on torch 2.11 and later
WARNINGS = ["-Wall", "-Wextra", *(["-Werror"] if STRICT else [])]
EXACT = ["-ffp-contract=off", "-fno-trapping-math"]  # the second lets loops with comparisons vectorise, to equal bits
CXX = [*STABLE, *FOREIGN, *WARNINGS, "-O3", *EXACT, "-fvisibility=hidden", "-Wno-unknown-pragmas", "-Wno-psabi"]
NVCC = [*STABLE, *FOREIGN, "-DUSE_CUDA", "-O3", "-fmad=false", "--extended-lambda"]
NVCC += ["-Werror", "all-warnings"] if STRICT else []
CPU_SOURCES = ["csrc/ops.cpp", *sorted(str(path) for path in Path("csrc/cpu").glob("*.cpp"))]
CUDA_SOURCES = sorted(str(path) for path in Path("csrc/cuda").glob("*.cu"))


def cuda_decision() -> tuple[bool, str]:
    wish = os.environ.get("DISSECT_CUDA", "")
    if wish == "0":
        return False, "DISSECT_CUDA=0"
    if torch.version.cuda is None:
        found, why = False, "this torch is a CPU build"
    elif CUDA_ROOT is None:
        found, why = False, "no toolkit with nvcc and libcudart in CUDA_HOME, on PATH or in the usual place"
    else:
        found, why = True, f"torch CUDA {torch.version.cuda}, toolkit {Path(CUDA_ROOT).name}"
    if wish == "1" and not found:
        sys.exit(f"DISSECT_CUDA=1 asks for the CUDA kernels, but {why}")
    return found, why


with_cuda, reason = cuda_decision()
extensions = [
    CppExtension("dissect._C", CPU_SOURCES, extra_compile_args={"cxx": CXX}, py_limited_api=True),
]
if with_cuda:
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
    extensions.append(
        CUDAExtension(
            "dissect._C_cuda", CUDA_SOURCES, extra_compile_args={"cxx": CXX, "nvcc": NVCC}, py_limited_api=True
        )
    )
print(f"dissect: torch {torch.__version__}", file=sys.stderr)
print(f"dissect: C++ kernels      yes  ({len(CPU_SOURCES)} files)", file=sys.stderr)
print(f"dissect: CUDA kernels     {'yes' if with_cuda else 'no '}  ({reason})", file=sys.stderr)

setup(
    ext_modules=extensions, cmdclass={"build_ext": BuildExtension}, options={"bdist_wheel": {"py_limited_api": "cp311"}}
)
