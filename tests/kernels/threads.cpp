// parallel_for on plain threads, in place of torch's OpenMP pool, whose own locks ThreadSanitizer cannot see: it would call
// every hand-over between them a race.
#include <torch/csrc/stable/c/shim.h>

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

namespace {
constexpr int64_t kThreads = 4;
}

extern "C" AOTITorchError torch_get_num_threads(uint32_t* out) {
  *out = kThreads;
  return AOTI_TORCH_SUCCESS;
}

extern "C" AOTITorchError torch_parallel_for(
    int64_t begin, int64_t end, int64_t grain, ParallelFunc func, void* ctx) {
  const int64_t part = std::max<int64_t>(std::max<int64_t>(grain, 1), (end - begin + 2 * kThreads - 1) / (2 * kThreads));
  std::vector<std::exception_ptr> failed(kThreads);
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < kThreads; ++i) {
    // Parts in turn, agreed on before: to ask for the next would itself hand over between the threads, and hide a race.
    threads.emplace_back([&, i] {
      try {
        for (int64_t first = begin + i * part; first < end; first += kThreads * part) {
          func(first, std::min(first + part, end), ctx);
        }
      } catch (...) {
        failed[static_cast<size_t>(i)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const std::exception_ptr& one : failed) {
    if (one) {
      std::rethrow_exception(one);
    }
  }
  return AOTI_TORCH_SUCCESS;
}

// A race on purpose, by which the test knows that it would see one.
extern "C" int64_t count_carelessly() {
  int64_t count = 0;
  torch_parallel_for(
      0, 1000, 1, [](int64_t first, int64_t last, void* ctx) { *static_cast<int64_t*>(ctx) += last - first; }, &count);
  return count;
}
