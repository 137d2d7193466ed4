// Computes the cotangents of a product's matrices and bias from the product's
// cotangents. Skips the steps of finished rows.
#ifndef JAXRNN_WEIGHTS_H_
#define JAXRNN_WEIGHTS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "rows.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Adds the products of one block of steps after another to the cotangents of the
// matrices and the bias. A single phase divides the columns among the workers.
class WeightsLoop {
 public:
  WeightsLoop(const Weights& entry, int64_t workers)
      : entry_(entry), positions_(AlivePositions(entry.sizes, entry.lengths)) {
    for (int64_t s = 0; s < workers; s++) {
      workers_.push_back({VectorRange(entry.columns, s, workers).Panels(kMaxVectors),
                          Allocate(kBlockSteps * (Stride(entry.sizes.depth) +
                                                  Stride(entry.sizes.units))),
                          Allocate(kBlockSteps * kWidth),
                          Allocate(kMaxTailRows * kWidth)});
    }
  }

  int64_t phases() const { return 1; }

  void Run(int64_t number, int64_t) {
    Worker& worker = workers_[number];
    const int64_t depth = entry_.sizes.depth, units = entry_.sizes.units;
    for (const Panel& panel : worker.panels) {
      Clear(panel, depth, entry_.ct_w_inputs);
      Clear(panel, units, entry_.ct_w_state);
      if (entry_.ct_bias) Clear(panel, 1, entry_.ct_bias);
    }
    const int64_t count = positions_.size();
    for (int64_t first = 0; first < count; first += kBlockSteps) {
      const int64_t steps = std::min(kBlockSteps, count - first);
      float* state = &worker.operands[kBlockSteps * Stride(depth)];
      Gather(entry_.x, nullptr, depth, first, steps, worker.operands.get());
      Gather(entry_.operand, entry_.first, units, first, steps, state);
      for (const Panel& panel : worker.panels) {
        Pack(panel, first, steps, worker.panel.get());
        Add(worker, panel, steps, worker.operands.get(), depth, entry_.ct_w_inputs);
        Add(worker, panel, steps, state, units, entry_.ct_w_state);
      }
    }
  }

 private:
  // The number of steps multiplied at once. It is small enough for the operands to stay
  // in the cache, and large enough that the sums are rarely read.
  static constexpr int64_t kBlockSteps = 384;
  static constexpr int64_t kWidth = kMaxVectors * kLanes;
  static constexpr int64_t kMaxTailRows = 64;
  struct Worker {
    std::vector<Panel> panels;
    // For a block of steps, `operands` holds x and the state operand, and `panel` holds
    // the cotangents of a panel's products. `tail` holds the products of a panel whose
    // last vector is not full.
    Buffer operands, panel, tail;
  };

  // The number of columns in a panel, without unused lanes.
  int64_t Columns(const Panel& panel) const {
    return std::min(panel.count * int64_t{kLanes},
                    entry_.columns - panel.first * kLanes);
  }

  void Clear(const Panel& panel, int64_t rows, float* ct_matrix) {
    for (int64_t k = 0; k < rows; k++) {
      std::memset(ct_matrix + k * entry_.columns + panel.first * kLanes, 0,
                  sizeof(float) * Columns(panel));
    }
  }

  // Copies steps of a sequence [.., size] into a matrix [steps, Stride(size)]. If
  // `before` is not null, copies the step before each of these steps instead; the
  // values before a row's first step are in `before`.
  void Gather(const float* sequence, const float* before, int64_t size, int64_t first,
              int64_t steps, float* to) {
    if (size == 0) return;  // The product lacks this matrix, so `sequence` is null.
    for (int64_t n = 0; n < steps; n++) {
      const int64_t position = positions_[first + n];
      const float* from =
          before ? RowBefore(entry_.sizes, position, size, sequence, before)
                 : sequence + position * size;
      std::memcpy(to + n * Stride(size), from, sizeof(float) * size);
    }
  }

  // Packs a panel of the steps' cotangents, and adds the steps to the cotangent of the
  // bias.
  void Pack(const Panel& panel, int64_t first, int64_t steps, float* to) {
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
      Store(entry_.ct_bias + column, Load(entry_.ct_bias + column, valid) + total,
            valid);
    }
  }

  // Adds the transposed operands [steps, rows] times the panel to the panel's columns
  // of the matrix.
  void Add(Worker& worker, const Panel& panel, int64_t steps, const float* operands,
           int64_t rows, float* ct_matrix) {
    if (rows == 0) return;  // The product lacks this matrix.
    const int64_t columns = Columns(panel), width = panel.count * kLanes;
    const In transposed = {operands, 1, Stride(rows)};
    float* c = ct_matrix + panel.first * kLanes;
    if (columns == width) {
      Multiply(rows, panel.count, transposed, worker.panel.get(), steps,
               {c, entry_.columns}, {c, entry_.columns});
      return;
    }
    // The last vector is not full. Writing all its lanes would overwrite the next row.
    float* tail = worker.tail.get();
    for (int64_t k = 0; k < rows; k += kMaxTailRows) {
      const int64_t count = std::min(kMaxTailRows, rows - k);
      Multiply(count, panel.count, transposed + k, worker.panel.get(), steps,
               {kZeros, 0}, {tail, width});
      for (int64_t m = 0; m < count; m++) {
        for (int64_t i = 0; i < columns; i++)
          c[(k + m) * entry_.columns + i] += tail[m * width + i];
      }
    }
  }

  const Weights& entry_;
  const std::vector<int64_t> positions_;
  std::vector<Worker> workers_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_WEIGHTS_H_
