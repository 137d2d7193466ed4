// The large products after the backward loop: cotangents of matrices and of inputs,
// from those of a stage's products, over the steps at which rows are alive.
#ifndef JAXRNN_GRADIENTS_H_
#define JAXRNN_GRADIENTS_H_

#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// The steps of rows that are multiplied at once: few enough that what they read stays
// in the cache, enough that what they add to is read seldom.
constexpr int64_t kBlockSteps = 384;

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

// Adds the products of blocks of steps to the cotangents of the matrices and of the
// bias. Each slot has some of the columns.
class WeightsLoop {
 public:
  WeightsLoop(const Weights& call, int64_t slots)
      : call_(call), positions_(AlivePositions(call.sizes, call.lengths)) {
    for (int64_t s = 0; s < slots; s++) {
      slots_.push_back({Share(call.columns, s, slots),
                        Allocate((call.sizes.depth + call.sizes.units) * kStride),
                        Allocate(kBlockSteps * kWidth), Allocate(kMaxTail * kWidth)});
    }
  }

  int64_t phases() const { return 1; }

  void Run(int64_t slot_number, int64_t) {
    Slot& slot = slots_[slot_number];
    const int64_t depth = call_.sizes.depth, units = call_.sizes.units;
    const std::vector<Panel> panels = slot.share.Panels(kMaxVectors);
    for (const Panel& panel : panels) {
      Clear(panel, depth, call_.c_w_inputs);
      Clear(panel, units, call_.c_w_state);
      Clear(panel, 1, call_.c_bias);
    }
    const int64_t count = positions_.size();
    for (int64_t first = 0; first < count; first += kBlockSteps) {
      const int64_t steps = std::min(kBlockSteps, count - first);
      float* state = &slot.operands[depth * kStride];
      Transpose(call_.x, depth, first, steps, slot.operands.get());
      Transpose(call_.operand, units, first, steps, state);
      for (const Panel& panel : panels) {
        Pack(panel, first, steps, slot.panel.get());
        Add(slot, panel, steps, slot.operands.get(), depth, call_.c_w_inputs);
        Add(slot, panel, steps, state, units, call_.c_w_state);
      }
    }
  }

 private:
  static constexpr int64_t kStride = kBlockSteps + 16, kWidth = kMaxVectors * kLanes;
  static constexpr int64_t kMaxTail = 64;
  struct Slot {
    Share share;
    Buffer operands, panel, tail;
  };

  // The columns that a panel has.
  int64_t Columns(const Panel& panel) const {
    return std::min(panel.count * int64_t{kLanes},
                    call_.columns - panel.first * kLanes);
  }

  void Clear(const Panel& panel, int64_t rows, float* c_matrix) {
    for (int64_t k = 0; k < rows; k++) {
      std::memset(c_matrix + k * call_.columns + panel.first * kLanes, 0,
                  sizeof(float) * Columns(panel));
    }
  }

  // Steps of a sequence [.., size] as columns of a matrix [size, kStride].
  void Transpose(const float* sequence, int64_t size, int64_t first, int64_t steps,
                 float* to) {
    for (int64_t n = 0; n < steps; n += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, steps - n);
      const float* rows[kLanes];
      for (int64_t i = 0; i < count; i++)
        rows[i] = sequence + positions_[first + n + i] * size;
      for (int64_t k = 0; k < size; k++) {
        for (int64_t i = 0; i < count; i++) to[k * kStride + n + i] = rows[i][k];
      }
    }
  }

  // A panel of the steps' cotangents, which are added to the bias's on the way.
  void Pack(const Panel& panel, int64_t first, int64_t steps, float* to) {
    for (int v = 0; v < panel.count; v++) {
      const int64_t column = (panel.first + v) * kLanes;
      const int valid = Valid(call_.columns, panel.first + v);
      Vec total = {};
      for (int64_t n = 0; n < steps; n++) {
        const Vec c_z =
            Load(call_.c_zs + positions_[first + n] * call_.columns + column, valid);
        Store(to + (n * panel.count + v) * kLanes, c_z);
        total += c_z;
      }
      Store(call_.c_bias + column, Load(call_.c_bias + column, valid) + total, valid);
    }
  }

  // Adds operands [rows, steps] times the panel to the panel's columns of the matrix.
  void Add(Slot& slot, const Panel& panel, int64_t steps, const float* operands,
           int64_t rows, float* c_matrix) {
    const int64_t columns = Columns(panel), width = panel.count * kLanes;
    float* c = c_matrix + panel.first * kLanes;
    if (columns == width) {
      Multiply(rows, panel.count, {operands, kStride}, slot.panel.get(), steps,
               {c, call_.columns}, {c, call_.columns});
      return;
    }
    // The last vector is not full: what is beyond it belongs to the next row.
    float* tail = slot.tail.get();
    for (int64_t k = 0; k < rows; k += kMaxTail) {
      const int64_t count = std::min(kMaxTail, rows - k);
      Multiply(count, panel.count, {operands + k * kStride, kStride}, slot.panel.get(),
               steps, {kZeros, 0}, {tail, width});
      for (int64_t m = 0; m < count; m++) {
        for (int64_t i = 0; i < columns; i++)
          c[(k + m) * call_.columns + i] += tail[m * width + i];
      }
    }
  }

  const Weights& call_;
  const std::vector<int64_t> positions_;
  std::vector<Slot> slots_;
};

// Multiplies the cotangents of each stage's products by its transposed matrix. The
// first phase packs the matrices; in the second each slot has some of the steps.
class InputsLoop {
 public:
  InputsLoop(const Inputs& call, int64_t slots)
      : call_(call),
        vectors_(Padded(call.sizes.depth) / kLanes),
        positions_(AlivePositions(call.sizes, call.lengths)) {
    int64_t columns = 0;
    for (int s = 0; s < call.stages; s++) columns += call.columns[s];
    matrices_ = Allocate(columns * vectors_ * kLanes);
    for (int64_t s = 0; s < slots; s++) {
      slots_.push_back(
          {Share(call.sizes.depth, s, slots),
           Allocate(kRows * Stride(*std::max_element(call.columns,
                                                     call.columns + call.stages))),
           Allocate(kRows * vectors_ * kLanes)});
    }
  }

  int64_t phases() const { return 2; }

  void Run(int64_t slot_number, int64_t phase) {
    Slot& slot = slots_[slot_number];
    if (phase == 0) return Pack(slot);
    const int64_t slots = slots_.size(), count = positions_.size();
    const int64_t all = call_.sizes.batch * call_.sizes.time, depth = call_.sizes.depth;
    const int64_t begin = count * slot_number / slots,
                  end = count * (slot_number + 1) / slots;
    // Each slot writes what lies before its first step and after the last slot's.
    int64_t written = slot_number ? (begin ? positions_[begin - 1] + 1 : 0) : 0;
    for (int64_t first = begin; first < end; first += kRows) {
      const int64_t rows = std::min(kRows, end - first);
      MultiplyRows(slot, first, rows);
      for (int64_t n = 0; n < rows; n++) {
        const int64_t position = positions_[first + n];
        Zero(written, position);
        std::memcpy(call_.c_x + position * depth, &slot.products[n * vectors_ * kLanes],
                    sizeof(float) * depth);
        written = position + 1;
      }
    }
    if (slot_number == slots - 1) Zero(written, all);
  }

 private:
  static constexpr int64_t kRows = 96;
  struct Slot {
    Share share;
    Buffer rows, products;
  };

  // Panels of the transposed matrices, one stage after the other: [columns, vectors].
  // The slots' panels follow each other.
  void Pack(Slot& slot) {
    float* stage = matrices_.get();
    for (int s = 0; s < call_.stages; s++) {
      const int64_t columns = call_.columns[s];
      for (const Panel& panel : slot.share.Panels(kMaxVectors)) {
        float* to = stage + panel.first * kLanes * columns;
        const int64_t width = panel.count * kLanes;
        for (int64_t i = 0; i < width; i++) {
          const int64_t d = panel.first * kLanes + i;
          for (int64_t c = 0; c < columns; c++) {
            to[c * width + i] =
                d < call_.sizes.depth ? call_.w_inputs[s][d * columns + c] : 0;
          }
        }
      }
      stage += vectors_ * kLanes * columns;
    }
  }

  void MultiplyRows(Slot& slot, int64_t first, int64_t rows) {
    const int64_t width = vectors_ * kLanes;
    const float* stage = matrices_.get();
    for (int s = 0; s < call_.stages; s++) {
      const int64_t columns = call_.columns[s], stride = Stride(columns);
      for (int64_t n = 0; n < rows; n++) {
        std::memcpy(&slot.rows[n * stride],
                    call_.c_zs[s] + positions_[first + n] * columns,
                    sizeof(float) * columns);
      }
      for (const Slot& owner : slots_) {
        for (const Panel& panel : owner.share.Panels(kMaxVectors)) {
          float* c = &slot.products[panel.first * kLanes];
          const In start = s ? In{c, width} : In{kZeros, 0};
          Multiply(rows, panel.count, {slot.rows.get(), stride},
                   stage + panel.first * kLanes * columns, columns, start, {c, width});
        }
      }
      stage += vectors_ * kLanes * columns;
    }
  }

  void Zero(int64_t begin, int64_t end) {
    if (begin < end) {
      std::memset(call_.c_x + begin * call_.sizes.depth, 0,
                  sizeof(float) * (end - begin) * call_.sizes.depth);
    }
  }

  const Inputs& call_;
  const int64_t vectors_;
  const std::vector<int64_t> positions_;
  Buffer matrices_;
  std::vector<Slot> slots_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_GRADIENTS_H_
