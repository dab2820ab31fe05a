"""Builds the compiled parts and says what it decided: C++ always, CUDA where a toolkit is found.

DISSECT_CUDA=1 makes a missing toolkit an error, =0 skips the CUDA half. No GPU is needed to build, so the
architectures are set here (TORCH_CUDA_ARCH_LIST overrides them).
"""

import os
import shutil
import sys
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

STABLE = ["-DTORCH_TARGET_VERSION=0x020b000000000000"]  # runs on torch 2.11 and later
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
CXX = [*STABLE, *WARNINGS, "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wno-unknown-pragmas"]
NVCC = [*STABLE, "-DUSE_CUDA", "-O3", "-fmad=false", "-Werror", "all-warnings", "--extended-lambda"]
CPU_SOURCES = ["csrc/ops.cpp", *sorted(str(path) for path in Path("csrc/cpu").glob("*.cpp"))]
CUDA_SOURCES = sorted(str(path) for path in Path("csrc/cuda").glob("*.cu"))


def toolkit() -> str | None:
    """The nvcc of a toolkit whose major version is torch's, or None."""
    nvcc = shutil.which("nvcc") or (
        os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc") if "CUDA_HOME" in os.environ else None
    )
    return nvcc if nvcc and os.path.exists(nvcc) else None


def cuda_decision() -> tuple[bool, str]:
    wish = os.environ.get("DISSECT_CUDA", "")
    if wish == "0":
        return False, "DISSECT_CUDA=0"
    if torch.version.cuda is None:
        found, why = False, "this torch is a CPU build"
    elif toolkit() is None:
        found, why = False, "no nvcc on PATH or in CUDA_HOME"
    else:
        found, why = True, f"torch CUDA {torch.version.cuda}, {toolkit()}"
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
