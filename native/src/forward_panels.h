// The packed matrices of the forward loop.
#ifndef JAXRNN_FORWARD_PANELS_H_
#define JAXRNN_FORWARD_PANELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffers.h"
#include "loops.h"
#include "stages.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// A stage's matrices for one panel, and memory for the products of all the panel's
// gates. A matrix row stores one vector of units after another. For each vector, it
// stores the columns of all gates that have this matrix.
struct ForwardPanel {
  Panel panel;
  float *w_inputs = nullptr, *w_state = nullptr, *bias = nullptr, *zs = nullptr;
};

// The panels of a worker.
template <typename C>
class ForwardPanels {
 public:
  // `rows` is the largest number of rows that are multiplied at once.
  ForwardPanels(const std::vector<VectorRange>& ranges, const Sizes& sizes,
                int64_t rows)
      : sizes_(sizes), cell_(sizes) {
    int64_t floats = 0;
    for (int stage = 0; stage < C::kStages; stage++) {
      floats +=
          ranges[stage].size() * kLanes *
          (C::kInputGates[stage] * sizes.depth +
           C::kStateGates[stage] * cell_.rows(stage) + C::kGates[stage] * (1 + rows));
    }
    memory_ = Allocate(floats);
    float* next = memory_.get();
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const Panel& panel : ranges[stage].Panels(kMaxVectors / C::kGates[stage]))
        stages_[stage].push_back({panel});
      // The panels of a matrix are contiguous, because products prefetch what follows.
      Place(stage, &ForwardPanel::w_state, cell_.rows(stage), C::kStateGates, next);
      Place(stage, &ForwardPanel::w_inputs, sizes.depth, C::kInputGates, next);
      Place(stage, &ForwardPanel::bias, 1, C::kGates, next);
      Place(stage, &ForwardPanel::zs, rows, C::kGates, next);
    }
  }

  void Pack(const Forward& entry) {
    for (int stage = 0; stage < C::kStages; stage++) {
      const int gates = C::kGates[stage], inputs = C::kInputGates[stage];
      Pack(stage, 0, inputs, entry.w_inputs, sizes_.depth, &ForwardPanel::w_inputs);
      Pack(stage, cell_.FirstOfState(stage), gates, entry.w_state, cell_.rows(stage),
           &ForwardPanel::w_state);
      Pack(stage, 0, gates, entry.bias, 1, &ForwardPanel::bias);
    }
  }

  const std::vector<ForwardPanel>& operator[](int stage) const {
    return stages_[stage];
  }

 private:
  static constexpr int64_t kPackedRows = 32;

  // Assigns memory for this many rows to each of the stage's panels. The memory starts
  // at `next`, which advances.
  void Place(int stage, float* ForwardPanel::* kind, int64_t rows, const int* gates,
             float*& next) {
    for (ForwardPanel& packed : stages_[stage]) {
      packed.*kind = next;
      next += rows * gates[stage] * packed.panel.count * kLanes;
    }
  }

  // Packs gates `first` to `end` - 1 of the products' matrices [rows, C] into the
  // panels. Writes zeros if a product lacks the matrix.
  void Pack(int stage, int first, int end, const float* const* matrices, int64_t rows,
            float* ForwardPanel::* kind) {
    const int64_t units = cell_.units(stage), width = (end - first) * kLanes;
    // A block of rows, so that the cache lines that two panels share are read once.
    for (int64_t block = 0; block < rows; block += kPackedRows) {
      const int64_t last = std::min(block + kPackedRows, rows);
      for (const ForwardPanel& packed : stages_[stage]) {
        const Panel& panel = packed.panel;
        float* to = packed.*kind + block * width * panel.count;
        for (int64_t k = block; k < last; k++) {
          for (int64_t v = panel.first; v < panel.first + panel.count; v++) {
            for (int g = first; g < end; g++, to += kLanes) {
              const float* matrix = matrices[C::kGate[stage][g].product];
              const int64_t at = k * cell_.Columns(stage, g) + cell_.Column(stage, g);
              Store(to, matrix ? Load(matrix + at + v * kLanes, Valid(units, v)) : Vec{});
            }
          }
        }
      }
    }
  }

  const Sizes sizes_;
  const Stages<C> cell_;
  Buffer memory_;
  std::vector<ForwardPanel> stages_[C::kStages];
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_FORWARD_PANELS_H_
