// Computes the cotangents of a product's matrices and bias from the product's
// cotangents. Skips the steps of finished rows.
#ifndef JAXRNN_WEIGHTS_H_
#define JAXRNN_WEIGHTS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "division.h"
#include "rows.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Adds the products of one block of steps after another to the cotangents of the
// matrices and the bias. A single phase divides the columns among the workers.
class WeightsLoop {
 public:
  WeightsLoop(const Weights& entry, int64_t workers)
      : entry_(entry),
        positions_(AlivePositions(entry.sizes, entry.lengths)),
        blocks_(std::max<int64_t>(1, CeilDiv(positions_.size(), kMostSteps))) {
    const int64_t rows = Groups(entry.sizes.depth) + Groups(entry.sizes.units);
    const int64_t steps = CeilDiv(positions_.size(), blocks_);
    for (int64_t s = 0; s < workers; s++) {
      workers_.push_back({VectorRange(entry.columns, s, workers).Panels(kMaxVectors),
                          Allocate(steps * rows * kGroup), Allocate(steps * kWidth),
                          Allocate(kGroup * kWidth)});
    }
  }

  int64_t phases() const { return 1; }

  void Run(int64_t number, int64_t) {
    Worker& worker = workers_[number];
    const int64_t depth = entry_.sizes.depth, units = entry_.sizes.units;
    const int64_t count = positions_.size();
    for (int64_t block = 0; block < blocks_; block++) {
      const int64_t first = count * block / blocks_;
      const int64_t steps = count * (block + 1) / blocks_ - first;
      float* state = worker.operands.get() + steps * Groups(depth) * kGroup;
      Gather(entry_.x, nullptr, depth, first, steps, worker.operands.get());
      Gather(entry_.operand, entry_.first, units, first, steps, state);
      for (const Panel& panel : worker.panels) {
        const bool adds = block > 0;
        Pack(panel, first, steps, adds, worker.panel.get());
        Add(worker, panel, steps, worker.operands.get(), depth, adds, entry_.ct_kernel);
        Add(worker, panel, steps, state, units, adds,
            entry_.ct_kernel + depth * entry_.columns);
      }
    }
  }

 private:
  // The most steps that are multiplied at once. They are few enough for a panel to stay
  // in the cache, and so many that the sums are rarely read.
  static constexpr int64_t kMostSteps = 512;
  static constexpr int64_t kWidth = kMaxVectors * kLanes;
  // The most rows of a tile with a full panel. The operands are stored in groups of so
  // many columns, so that a tile reads them in order.
  static constexpr int64_t kGroup = MaxRows(kMaxVectors);
  static constexpr int64_t kGathered = 16;  // The steps that `Gather` copies at once.
  struct Worker {
    std::vector<Panel> panels;
    // For a block of steps, `operands` holds x and the state operand, and `panel` holds
    // the cotangents of a panel's products. `tail` holds the products of a panel whose
    // last vector is not full.
    Buffer operands, panel, tail;
  };

  static int64_t Groups(int64_t columns) { return CeilDiv(columns, kGroup); }

  // Copies `count` columns of some rows, from column k, into a group.
  static void CopyColumns(const float* const* rows, int64_t size, int64_t k,
                          int64_t count, float* group) {
    for (int64_t n = 0; n < size; n++, group += kGroup) {
      if (count == kGroup) {  // A copy of a constant size takes a few instructions.
        std::memcpy(group, rows[n] + k, sizeof(float) * kGroup);
      } else {
        std::memcpy(group, rows[n] + k, sizeof(float) * count);
      }
    }
  }

  // Copies steps of a sequence [.., size] into groups [steps, kGroup]. If `before` is
  // not null, copies the step before each of these steps instead; the values before a
  // row's first step are in `before`.
  void Gather(const float* sequence, const float* before, int64_t size, int64_t first,
              int64_t steps, float* to) {
    if (size == 0) return;  // The product lacks this matrix, so `sequence` is null.
    // A few steps at a time, so that their cache lines are still in the nearest cache
    // when the next group reads the rest of them.
    for (int64_t begin = 0; begin < steps; begin += kGathered) {
      const int64_t end = std::min(begin + kGathered, steps);
      const float* from[kGathered];
      for (int64_t n = begin; n < end; n++) {
        const int64_t position = positions_[first + n];
        from[n - begin] =
            before ? RowBefore(entry_.sizes, position, size, sequence, before)
                   : sequence + position * size;
      }
      for (int64_t k = 0; k < size; k += kGroup) {
        CopyColumns(from, end - begin, k, std::min(kGroup, size - k),
                    to + k * steps + begin * kGroup);
      }
    }
  }

  // Packs a panel of the steps' cotangents. Adds the steps to the cotangent of the
  // bias, or writes their sum there.
  void Pack(const Panel& panel, int64_t first, int64_t steps, bool adds, float* to) {
    for (int v = 0; v < panel.count; v++) {
      const int64_t column = (panel.first + v) * kLanes;
      const int valid = Valid(entry_.columns, panel.first + v);
      Vec total = {};
      for (int64_t n = 0; n < steps; n++) {
        const Vec ct_z =
            Load(entry_.ct_zs + positions_[first + n] * entry_.columns + column, valid);
        Store(to + (n * panel.count + v) * kLanes, ct_z);
        total += ct_z;
      }
      if (!entry_.ct_bias) continue;
      if (adds) total += Load(entry_.ct_bias + column, valid);
      Store(entry_.ct_bias + column, total, valid);
    }
  }

  // Adds the transposed operands times the panel to the panel's columns of the matrix,
  // or writes them there.
  void Add(Worker& worker, const Panel& panel, int64_t steps, const float* operands,
           int64_t rows, bool adds, float* ct_matrix) {
    const int64_t width = panel.count * kLanes;
    const int64_t columns = std::min(width, entry_.columns - panel.first * kLanes);
    float* tail = worker.tail.get();
    for (int64_t k = 0; k < rows; k += kGroup) {
      const int64_t count = std::min(kGroup, rows - k);
      const In group = {operands + k * steps, 1, kGroup};
      float* c = ct_matrix + k * entry_.columns + panel.first * kLanes;
      // Prefetch the next group's part of the matrix.
      for (int64_t m = kGroup; adds && m < std::min(2 * kGroup, rows - k); m++) {
        for (int64_t i = 0; i < columns; i += kLine)
          __builtin_prefetch(c + m * entry_.columns + i, 1);
      }
      if (columns == width) {
        Multiply(count, panel.count, group, worker.panel.get(), steps,
                 adds ? In{c, entry_.columns} : In{kZeros, 0}, {c, entry_.columns});
        continue;
      }
      // The last vector is not full. To write all its lanes would overwrite the next
      // row.
      Multiply(count, panel.count, group, worker.panel.get(), steps, {kZeros, 0},
               {tail, width});
      for (int64_t m = 0; m < count; m++) {
        for (int64_t i = 0; i < columns; i++)
          c[m * entry_.columns + i] =
              tail[m * width + i] + (adds ? c[m * entry_.columns + i] : 0);
      }
    }
  }

  const Weights& entry_;
  const std::vector<int64_t> positions_;
  const int64_t blocks_;  // The steps are multiplied in so many blocks of equal size.
  std::vector<Worker> workers_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_WEIGHTS_H_
