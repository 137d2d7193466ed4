// Which rows are alive at a step, and where they are in memory.
#ifndef JAXRNN_ROWS_H_
#define JAXRNN_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "loops.h"

namespace jaxrnn::JAXRNN_TARGET {

// One of `count` groups of rows.
struct Group {
  int64_t number = 0, count = 1;
};

// A group's rows by falling length, so that those that are alive at a step are the
// first ones. Of all rows, by falling length, each group has every count-th.
class Rows {
 public:
  Rows(const Sizes& sizes, const int32_t* lengths, Group group)
      : sizes_(sizes), order_(sizes.batch), alive_(sizes.time + 1) {
    std::vector<int64_t> clipped(sizes.batch);
    for (int64_t b = 0; b < sizes.batch; b++)
      clipped[b] = std::clamp<int64_t>(lengths[b], 0, sizes.time);
    std::iota(order_.begin(), order_.end(), 0);
    const auto longer = [&](int64_t a, int64_t b) { return clipped[a] > clipped[b]; };
    in_order_ = std::is_sorted(order_.begin(), order_.end(), longer);
    if (!in_order_) std::stable_sort(order_.begin(), order_.end(), longer);
    int64_t count = 0;
    for (int64_t r = group.number; r < sizes.batch; r += group.count)
      order_[count++] = order_[r];
    order_.resize(count);
    for (int64_t b : order_)
      for (int64_t t = 0; t < clipped[b]; t++) alive_[t]++;
  }

  int64_t count() const { return order_.size(); }
  // The number of rows that are alive at step t; 0 after the last one.
  int64_t alive(int64_t t) const { return alive_[t]; }
  // The row of the arrays that is the r-th by length.
  int64_t operator[](int64_t r) const { return order_[r]; }
  // Whether steps t and following ones have their rows one after the other in memory.
  bool contiguous() const {
    if (sizes_.batch == 1 || !sizes_.time_major) return count() == 1;
    return in_order_ && alive_[sizes_.time - 1] == sizes_.batch;
  }
  // The position of the r-th row at step t in a sequence.
  int64_t At(int64_t r, int64_t t) const { return sizes_.At(order_[r], t); }
  // Where one of the gates of that step begins in a sequence of products.
  int64_t GateAt(int64_t r, int64_t t, int gate, int gates) const {
    return (At(r, t) * gates + gate) * sizes_.units;
  }

 private:
  Sizes sizes_;
  std::vector<int64_t> order_, alive_;
  bool in_order_;
};

// The positions in a sequence at which rows are alive, in the order of memory.
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
