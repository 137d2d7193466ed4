// Which rows are alive at a step, and where they are in memory.
#ifndef JAXRNN_ROWS_H_
#define JAXRNN_ROWS_H_

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "loops.h"

namespace jaxrnn::JAXRNN_TARGET {

// Rows by falling length, so that those that are alive at a step are the first ones.
class Rows {
 public:
  Rows(const Sizes& sizes, const int32_t* lengths)
      : sizes_(sizes), order_(sizes.batch), alive_(sizes.time + 1) {
    std::vector<int64_t> clipped(sizes.batch);
    for (int64_t b = 0; b < sizes.batch; b++) {
      clipped[b] = std::clamp<int64_t>(lengths[b], 0, sizes.time);
      for (int64_t t = 0; t < clipped[b]; t++) alive_[t]++;
    }
    std::iota(order_.begin(), order_.end(), 0);
    const auto longer = [&](int64_t a, int64_t b) { return clipped[a] > clipped[b]; };
    in_order_ = std::is_sorted(order_.begin(), order_.end(), longer);
    if (!in_order_) std::stable_sort(order_.begin(), order_.end(), longer);
  }

  // The number of rows that are alive at step t; 0 after the last one.
  int64_t alive(int64_t t) const { return alive_[t]; }
  // The row of the arrays that is the r-th by length.
  int64_t operator[](int64_t r) const { return order_[r]; }
  // Whether steps t and following ones have their rows one after the other in memory.
  bool contiguous() const {
    return sizes_.batch == 1 ||
           (sizes_.time_major && in_order_ && alive_[sizes_.time - 1] == sizes_.batch);
  }
  // The position of the r-th row at step t in a sequence.
  int64_t At(int64_t r, int64_t t) const {
    return sizes_.time_major ? t * sizes_.batch + order_[r]
                             : order_[r] * sizes_.time + t;
  }

 private:
  Sizes sizes_;
  std::vector<int64_t> order_, alive_;
  bool in_order_;
};

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;

// Uninitialized floats, aligned to a cache line.
inline Buffer Allocate(int64_t count) {
  const size_t bytes = (sizeof(float) * std::max<int64_t>(count, 1) + 63) / 64 * 64;
  void* memory = std::aligned_alloc(64, bytes);
  if (!memory) throw std::bad_alloc();
  return Buffer(static_cast<float*>(memory));
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_ROWS_H_
