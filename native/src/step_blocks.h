// Blocks of steps whose inputs are multiplied at once.
#ifndef JAXRNN_STEP_BLOCKS_H_
#define JAXRNN_STEP_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "rows.h"

namespace jaxrnn::JAXRNN_TARGET {

class StepBlocks {
 public:
  // `most` is the approximate number of rows in all steps of a block. It is large enough
  // for full speed, and small enough for their products to stay in a core's caches.
  StepBlocks(const Rows& rows, int64_t most)
      : offsets_(rows.steps()), ends_(rows.steps()) {
    const int64_t time = rows.steps();
    for (int64_t t = 0; t < time;) {
      int64_t end = t, count = 0;
      while (end < time && (end == t || count + rows.alive(end) <= most)) {
        offsets_[end] = count;
        count += rows.alive(end++);
      }
      most_rows_ = std::max(most_rows_, count);
      ends_[t] = end;
      t = end;
    }
  }

  // The offset of step t's rows among the rows of its block.
  int64_t offset(int64_t t) const { return offsets_[t]; }
  // If step t is the first of its block, the step after the block; otherwise 0.
  int64_t end(int64_t t) const { return ends_[t]; }
  int64_t most_rows() const { return most_rows_; }

 private:
  std::vector<int64_t> offsets_, ends_;
  int64_t most_rows_ = 0;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_STEP_BLOCKS_H_
