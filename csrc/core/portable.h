// What lets one header serve the host compiler and nvcc: no torch and no CUDA headers in core/.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define DISSECT_HD __host__ __device__ __forceinline__
#else
#define DISSECT_HD inline
#endif
