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
      const int64_t matrices = C::kStage[stage].inputs * sizes.depth +
                               C::kStage[stage].state * cell_.rows(stage);
      floats += ranges[stage].size() * kLanes *
                (packs * matrices + C::kStage[stage].gates * (1 + rows));
    }
    memory_ = Allocate(floats);
    float* next = memory_.get();
    for (int stage = 0; stage < C::kStages; stage++) {
      const StageGates& has = C::kStage[stage];
      AddPanels(stage, ranges[stage]);
      if (packs) {
        // The panels of a matrix are contiguous, because products prefetch what follows.
        Place(stage, &ForwardPanel::w_state, cell_.rows(stage) * has.state, next);
        Place(stage, &ForwardPanel::w_inputs, sizes.depth * has.inputs, next);
      }
      Place(stage, &ForwardPanel::bias, has.gates, next);
      Place(stage, &ForwardPanel::zs, rows * has.gates, next);
    }
  }

  void Pack(const Forward& entry) {
    for (int stage = 0; stage < C::kStages; stage++) {
      const StageGates& has = C::kStage[stage];
      Pack(stage, 0, has.gates, entry.bias, false, 1, &ForwardPanel::bias);
      if (!packs_) continue;
      Pack(stage, 0, has.inputs, entry.kernel, false, sizes_.depth,
           &ForwardPanel::w_inputs);
      Pack(stage, cell_.FirstOfState(stage), has.gates, entry.kernel, true,
           cell_.rows(stage), &ForwardPanel::w_state);
    }
  }

  const std::vector<ForwardPanel>& operator[](int stage) const {
    return stages_[stage];
  }

 private:
  static constexpr int64_t kPackedRows = 32;

  void AddPanels(int stage, const VectorRange& range) {
    const int gates = C::kStage[stage].gates;
    if (!packs_) {
      const Panel all = {range.first, int(range.size())};
      stages_[stage].push_back({all, range.size() * kLanes, kLanes});
      return;
    }
    // If only some gates have a matrix, a panel holds one vector of each gate.
    static_assert(C::kStage[0].state == C::kStage[0].gates ||
                  2 * C::kStage[0].gates > kMaxVectors);
    for (const Panel& panel : range.Panels(kMaxVectors / gates))
      stages_[stage].push_back({panel, kLanes, gates * kLanes});
  }

  // Assigns memory to each of the stage's panels: so many vectors for each vector of
  // the panel. The memory starts at `next`, which advances.
  void Place(int stage, float* ForwardPanel::* kind, int64_t vectors, float*& next) {
    for (ForwardPanel& packed : stages_[stage]) {
      packed.*kind = next;
      next += vectors * packed.panel.count * kLanes;
    }
  }

  // Copies rows of the columns of gates `first` to `end` - 1 from the products' kernels
  // or biases into the panels. Writes zeros if a product has none.
  void Pack(int stage, int first, int end, const float* const* matrices, bool of_state,
            int64_t rows, float* ForwardPanel::* kind) {
    const int64_t units = cell_.units(stage), gates = end - first;
    // A block of rows, so that the cache lines that two panels share are read once.
    for (int64_t block = 0; block < rows; block += kPackedRows) {
      const int64_t last = std::min(block + kPackedRows, rows);
      for (const ForwardPanel& packed : stages_[stage]) {
        const Panel& panel = packed.panel;
        const int64_t of_vector = packs_ ? gates * kLanes : packed.of_vector;
        for (int64_t k = block; k < last; k++) {
          float* to = packed.*kind + k * gates * panel.count * kLanes;
          const float* from[4];
          for (int g = 0; g < gates; g++)
            from[g] = cell_.ColumnsOf(matrices, stage, first + g, of_state, k);
          for (int64_t v = panel.first; v < panel.first + panel.count; v++) {
            for (int g = 0; g < gates; g++)
              Store(to + g * packed.of_gate,
                    from[g] ? Load(from[g] + v * kLanes, Valid(units, v)) : Vec{});
            to += of_vector;
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
