// Row blocks: the rows that are alive at each step, and their positions in memory.
#ifndef JAXRNN_ROWS_H_
#define JAXRNN_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "loops.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// One of `count` row blocks.
struct RowBlock {
  int64_t number = 0, count = 1;
};

// The rows of a row block in descending order of length, so that the rows that are
// alive at a step come first. All rows are sorted by length, and each row block
// contains every count-th row, so that all row blocks have about equal work.
class Rows {
 public:
  Rows(const Sizes& sizes, const int32_t* lengths, RowBlock row_block)
      : sizes_(sizes), lengths_(lengths), order_(sizes.batch), alive_(sizes.time + 1) {
    std::iota(order_.begin(), order_.end(), 0);
    const auto longer = [&](int64_t a, int64_t b) { return lengths_[a] > lengths_[b]; };
    in_order_ = std::is_sorted(order_.begin(), order_.end(), longer);
    if (!in_order_) std::stable_sort(order_.begin(), order_.end(), longer);
    int64_t count = 0;
    for (int64_t r = row_block.number; r < sizes.batch; r += row_block.count)
      order_[count++] = order_[r];
    order_.resize(count);
    for (int64_t b : order_)
      for (int64_t t = 0; t < lengths_[b]; t++) alive_[t]++;
    if (count) steps_ = std::max<int64_t>(1, lengths_[order_[0]]);
  }

  int64_t count() const { return order_.size(); }
  // The steps to run: up to the longest row's last step, but at least one.
  int64_t steps() const { return steps_; }
  // The number of rows that are alive at step t; 0 after the last step.
  int64_t alive(int64_t t) const { return alive_[t]; }
  // The index of the r-th longest row in the arrays.
  int64_t operator[](int64_t r) const { return order_[r]; }
  // Whether the rows of consecutive steps are contiguous in memory.
  bool contiguous() const {
    if (sizes_.batch == 1 || !sizes_.time_major) return count() == 1;
    return in_order_ && alive_[steps_ - 1] == sizes_.batch;
  }
  // Zeros a sequence of this size after the r-th row's last step. Does nothing if the
  // sequence is null.
  void ZeroDead(int64_t r, float* sequence, int64_t size) const {
    if (sequence == nullptr) return;
    const int64_t first = lengths_[order_[r]], row = order_[r];
    const size_t bytes = sizeof(float) * size;
    if (!sizes_.time_major) {
      std::memset(sequence + sizes_.At(row, first) * size, 0,
                  (sizes_.time - first) * bytes);
      return;
    }
    for (int64_t t = first; t < sizes_.time; t++)
      std::memset(sequence + sizes_.At(row, t) * size, 0, bytes);
  }
  // Copies the states of the rows without steps, which keep them. Copies only the units
  // in this range.
  void Keep(const VectorRange& range, int64_t units, const float* from,
            float* to) const {
    const int64_t begin = range.first * kLanes,
                  end = std::min(range.end * kLanes, units);
    for (int64_t r = alive_[0]; begin < end && r < count(); r++) {
      const int64_t at = order_[r] * units + begin;
      std::memcpy(to + at, from + at, sizeof(float) * (end - begin));
    }
  }
  // The position of the r-th row at step t in a sequence.
  int64_t At(int64_t r, int64_t t) const { return sizes_.At(order_[r], t); }

 private:
  Sizes sizes_;
  const int32_t* const lengths_;
  std::vector<int64_t> order_, alive_;
  int64_t steps_ = 1;
  bool in_order_;
};

// The values of a sequence of this size at the step before `position`. If `position` is
// the first step, the row's values in `first`.
inline const float* RowBefore(const Sizes& sizes, int64_t position, int64_t size,
                              const float* sequence, const float* first) {
  const int64_t row = sizes.time_major ? position % sizes.batch : position / sizes.time;
  const int64_t t = sizes.time_major ? position / sizes.batch : position % sizes.time;
  return t ? sequence + sizes.At(row, t - 1) * size : first + row * size;
}

// The positions in a sequence at which rows are alive, in memory order.
inline std::vector<int64_t> AlivePositions(const Sizes& sizes, const int32_t* lengths) {
  std::vector<int64_t> positions;
  positions.reserve(sizes.batch * sizes.time);
  const int64_t outer = sizes.time_major ? sizes.time : sizes.batch;
  const int64_t inner = sizes.time_major ? sizes.batch : sizes.time;
  for (int64_t i = 0; i < outer; i++) {
    for (int64_t j = 0; j < inner; j++) {
      const int64_t row = sizes.time_major ? j : i, t = sizes.time_major ? i : j;
      if (t < lengths[row]) positions.push_back(i * inner + j);
    }
  }
  return positions;
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_ROWS_H_
