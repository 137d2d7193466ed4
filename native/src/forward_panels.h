// The packed matrices of the forward loop.
#ifndef JAXRNN_FORWARD_PANELS_H_
#define JAXRNN_FORWARD_PANELS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "buffers.h"
#include "loops.h"
#include "stages.h"
#include "stored.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// A stage's matrices for one panel, and memory for the products of all the panel's
// gates. A matrix row stores one vector of units after another. For each vector, it
// stores the columns of all gates that have this matrix.
//
// If the matrices are not packed, they are null, and a stage has one panel. Its bias and
// products store one gate after another, as the matrices do.
struct ForwardPanel {
  Panel panel;
  int64_t of_gate, of_vector;  // The strides of the gates and vectors of `bias` and `zs`.
  float *w_inputs = nullptr, *w_state = nullptr, *bias = nullptr, *zs = nullptr;
};

// Whether a forward call packs its matrices, which may be far. If not, every vector of
// units must be full, so that a product can load it from the matrix. Products of one or
// two rows are as fast without packing while the matrices stay near. Otherwise, packing
// pays after some steps, sooner if the matrices are far.
template <typename C>
bool Packs(const Sizes& sizes, int64_t rows, int64_t steps, bool far) {
  if (C::kByRow || sizes.units % kLanes || sizes.outputs % kLanes) return true;
  return !AreFew(rows) || (rows * steps > (far ? 16 : 40) && (far || rows > 2));
}

// The panels of a worker.
template <typename C>
class ForwardPanels {
 public:
  // `rows` is the largest number of rows that are multiplied at once.
  ForwardPanels(const std::vector<VectorRange>& ranges, const Sizes& sizes,
                int64_t rows, bool packs)
      : sizes_(sizes), cell_(sizes), packs_(packs) {
    int64_t floats = 0;
    for (int stage = 0; stage < C::kStages; stage++) {
      const int64_t matrices = C::kInputGates[stage] * sizes.depth +
                               C::kStateGates[stage] * cell_.rows(stage);
      floats += ranges[stage].size() * kLanes *
                (packs * matrices + C::kGates[stage] * (1 + rows));
    }
    memory_ = Allocate(floats);
    float* next = memory_.get();
    for (int stage = 0; stage < C::kStages; stage++) {
      AddPanels(stage, ranges[stage]);
      if (packs) {
        // The panels of a matrix are contiguous, because products prefetch what follows.
        Place(stage, &ForwardPanel::w_state, cell_.rows(stage), C::kStateGates, next);
        Place(stage, &ForwardPanel::w_inputs, sizes.depth, C::kInputGates, next);
      }
      Place(stage, &ForwardPanel::bias, 1, C::kGates, next);
      Place(stage, &ForwardPanel::zs, rows, C::kGates, next);
    }
  }

  void Pack(const Forward& entry) {
    for (int stage = 0; stage < C::kStages; stage++) {
      const int gates = C::kGates[stage], inputs = C::kInputGates[stage];
      PackBias(stage, entry.bias);
      if (!packs_) continue;
      Pack(stage, 0, inputs, entry.w_inputs, sizes_.depth, &ForwardPanel::w_inputs);
      Pack(stage, cell_.FirstOfState(stage), gates, entry.w_state, cell_.rows(stage),
           &ForwardPanel::w_state);
    }
  }

  const std::vector<ForwardPanel>& operator[](int stage) const {
    return stages_[stage];
  }

 private:
  static constexpr int64_t kPackedRows = 32;

  void AddPanels(int stage, const VectorRange& range) {
    const int gates = C::kGates[stage];
    if (!packs_) {
      const Panel all = {range.first, int(range.size())};
      stages_[stage].push_back({all, range.size() * kLanes, kLanes});
      return;
    }
    for (const Panel& panel : range.Panels(kMaxVectors / gates))
      stages_[stage].push_back({panel, kLanes, gates * kLanes});
  }

  // Assigns memory for this many rows to each of the stage's panels. The memory starts
  // at `next`, which advances.
  void Place(int stage, float* ForwardPanel::* kind, int64_t rows, const int* gates,
             float*& next) {
    for (ForwardPanel& packed : stages_[stage]) {
      packed.*kind = next;
      next += rows * gates[stage] * packed.panel.count * kLanes;
    }
  }

  // Copies the bias of each gate. Writes zeros if a product lacks it.
  void PackBias(int stage, const float* const* bias) {
    const int64_t units = cell_.units(stage);
    for (const ForwardPanel& packed : stages_[stage]) {
      for (int g = 0; g < C::kGates[stage]; g++) {
        const float* from = bias[C::kGate[stage][g].product];
        for (int v = 0; v < packed.panel.count; v++) {
          const int64_t vector = packed.panel.first + v;
          const int64_t at = cell_.Column(stage, g) + vector * kLanes;
          Store(packed.bias + g * packed.of_gate + v * packed.of_vector,
                from ? Load(from + at, Valid(units, vector)) : Vec{});
        }
      }
    }
  }

  // Packs gates `first` to `end` - 1 of the products' matrices [rows, C] into the
  // panels.
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
              Store(to, Load(matrix + at + v * kLanes, Valid(units, v)));
            }
          }
        }
      }
    }
  }

  const Sizes sizes_;
  const Stages<C> cell_;
  const bool packs_;
  Buffer memory_;
  std::vector<ForwardPanel> stages_[C::kStages];
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_FORWARD_PANELS_H_
