// The cotangent of the inputs, from those of all products, over the steps at
// which rows are alive.
#ifndef JAXRNN_INPUTS_H_
#define JAXRNN_INPUTS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffers.h"
#include "rows.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Multiplies the cotangents of each product by its transposed matrix. The
// first phase packs the matrices; in the second each slot has some of the steps.
class InputsLoop {
 public:
  InputsLoop(const Inputs& call, int64_t slots)
      : call_(call),
        vectors_(Padded(call.sizes.depth) / kLanes),
        positions_(AlivePositions(call.sizes, call.lengths)) {
    int64_t columns = 0;
    for (int s = 0; s < call.products; s++) columns += call.columns[s];
    matrices_ = Allocate(columns * vectors_ * kLanes);
    for (int64_t s = 0; s < slots; s++) {
      slots_.push_back(
          {Share(call.sizes.depth, s, slots).Panels(kMaxVectors),
           Allocate(kBlockSteps * Stride(*std::max_element(
                                      call.columns, call.columns + call.products))),
           Allocate(kBlockSteps * vectors_ * kLanes)});
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
    // Each slot writes from where the one before it ended; the last one to the end.
    int64_t written = begin ? positions_[begin - 1] + 1 : 0;
    for (int64_t first = begin; first < end; first += kBlockSteps) {
      const int64_t steps = std::min(kBlockSteps, end - first);
      MultiplyBlock(slot, first, steps);
      for (int64_t n = 0; n < steps; n++) {
        const int64_t position = positions_[first + n];
        Zero(written, position);
        std::memcpy(call_.ct_x + position * depth,
                    &slot.products[n * vectors_ * kLanes], sizeof(float) * depth);
        written = position + 1;
      }
    }
    if (slot_number == slots - 1) Zero(written, all);
  }

 private:
  static constexpr int64_t kBlockSteps = 96;  // Steps that are multiplied at once.
  struct Slot {
    std::vector<Panel> panels;  // Of the vectors of the inputs, which it packs.
    Buffer ct_zs, products;     // Of a block of steps.
  };

  // Panels of the transposed matrices, one product after the other: [columns, vectors].
  // The slots' panels follow each other.
  void Pack(Slot& slot) {
    float* matrix = matrices_.get();
    for (int s = 0; s < call_.products; s++) {
      const int64_t columns = call_.columns[s];
      for (const Panel& panel : slot.panels) {
        float* to = matrix + panel.first * kLanes * columns;
        const int64_t width = panel.count * kLanes;
        for (int64_t i = 0; i < width; i++) {
          const int64_t d = panel.first * kLanes + i;
          for (int64_t c = 0; c < columns; c++) {
            to[c * width + i] =
                d < call_.sizes.depth ? call_.w_inputs[s][d * columns + c] : 0;
          }
        }
      }
      matrix += vectors_ * kLanes * columns;
    }
  }

  void MultiplyBlock(Slot& slot, int64_t first, int64_t steps) {
    const int64_t width = vectors_ * kLanes;
    const float* matrix = matrices_.get();
    for (int s = 0; s < call_.products; s++) {
      const int64_t columns = call_.columns[s], stride = Stride(columns);
      for (int64_t n = 0; n < steps; n++) {
        std::memcpy(&slot.ct_zs[n * stride],
                    call_.ct_zs[s] + positions_[first + n] * columns,
                    sizeof(float) * columns);
      }
      for (const Slot& owner : slots_) {
        for (const Panel& panel : owner.panels) {
          float* c = &slot.products[panel.first * kLanes];
          const In start = s ? In{c, width} : In{kZeros, 0};
          Multiply(steps, panel.count, {slot.ct_zs.get(), stride},
                   matrix + panel.first * kLanes * columns, columns, start, {c, width});
        }
      }
      matrix += vectors_ * kLanes * columns;
    }
  }

  void Zero(int64_t begin, int64_t end) {
    if (begin < end) {
      std::memset(call_.ct_x + begin * call_.sizes.depth, 0,
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

#endif  // JAXRNN_INPUTS_H_
