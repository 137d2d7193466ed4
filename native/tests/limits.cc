// Measures what limits the loops on this machine: the operations per second of all
// threads, and how fast the threads read matrices that they have read before.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "buffers.h"
#include "product.h"

namespace jaxrnn::JAXRNN_TARGET {
namespace {

constexpr int kTries = 200;

// The shortest time of a run on the slowest thread.
double Seconds(int64_t threads, const std::function<std::function<void()>()>& make) {
  std::vector<double> least(threads, 1e9);
  const auto work = [&](int64_t k) {
    const std::function<void()> run = make();
    for (int i = 0; i < kTries; i++) {
      const auto start = std::chrono::steady_clock::now();
      run();
      const std::chrono::duration<double> time =
          std::chrono::steady_clock::now() - start;
      least[k] = std::min(least[k], time.count());
    }
  };
  std::vector<std::thread> others;
  for (int64_t k = 1; k < threads; k++) others.emplace_back(work, k);
  work(0);
  for (std::thread& other : others) other.join();
  return *std::max_element(least.begin(), least.end());
}

// A product of rows with a matrix [size, columns], in panels of kMaxVectors vectors.
std::function<void()> ProductOf(int64_t rows, int64_t size, int64_t columns) {
  constexpr int64_t kWidth = kMaxVectors * kLanes;
  const auto filled = [](int64_t count) {
    std::shared_ptr<float[]> memory(Allocate(count));
    std::fill_n(memory.get(), count, 1e-3f);
    return memory;
  };
  const auto a = filled(rows * Stride(size)), panels = filled(size * columns),
             c = filled(rows * kWidth);
  return [=] {
    for (int64_t k = 0; k < columns; k += kWidth) {
      Multiply(rows, kMaxVectors, {a.get(), Stride(size)}, panels.get() + k * size,
               size, {c.get(), kWidth}, {c.get(), kWidth});
    }
  };
}

void Print(int64_t threads) {
  const int64_t rows = 20 * MaxRows(kMaxVectors), size = 128,
                columns = kMaxVectors * kLanes;
  const double full = Seconds(threads, [&] { return ProductOf(rows, size, columns); });
  std::printf("%ld threads, many rows times a small matrix: %.0f GFLOP/s\n",
              long(threads), 2e-9 * threads * rows * size * columns / full);
  for (const int64_t kib : {256, 512, 1024, 2048, 4096}) {
    const int64_t depth = 256, width = kib * 1024 / (4 * depth);
    const double read = Seconds(threads, [&] { return ProductOf(1, depth, width); });
    std::printf("a row times %ld KiB for each thread: %.0f GB/s\n", long(kib),
                1e-9 * threads * kib * 1024 / read);
  }
}

}  // namespace
}  // namespace jaxrnn::JAXRNN_TARGET

int main(int count, char** arguments) {
  const int64_t all = std::thread::hardware_concurrency();
  jaxrnn::JAXRNN_TARGET::Print(count > 1 ? std::atoi(arguments[1]) : all);
}
