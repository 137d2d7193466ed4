// The matrices of the forward loop, packed.
#ifndef JAXRNN_FORWARD_PANELS_H_
#define JAXRNN_FORWARD_PANELS_H_

#include <cstdint>
#include <vector>

#include "buffers.h"
#include "loops.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// The matrices of a panel of a stage. A row of each has all gates of a vector side by
// side, one vector after the other. And room for the panel's products.
struct ForwardPanel {
  Panel panel;
  float *w_inputs = nullptr, *w_state = nullptr, *bias = nullptr, *zs = nullptr;
};

// Those of a slot.
template <typename C>
class ForwardPanels {
 public:
  // There is room for products of so many rows.
  ForwardPanels(const Share& share, const Sizes& sizes, int64_t rows) : sizes_(sizes) {
    const int64_t height = sizes.depth + sizes.units + 1 + rows;
    int64_t gates = 0;
    for (int g : C::kGates) gates += g;
    memory_ = Allocate(share.size() * gates * kLanes * height);
    float* next = memory_.get();
    for (int stage = 0; stage < C::kStages; stage++) {
      for (const Panel& panel : share.Panels(kMaxVectors / C::kGates[stage]))
        stages_[stage].push_back({panel});
      // One kind after the other, as the loop reads them.
      Place(stage, &ForwardPanel::w_state, sizes.units, next);
      Place(stage, &ForwardPanel::w_inputs, sizes.depth, next);
      Place(stage, &ForwardPanel::bias, 1, next);
      Place(stage, &ForwardPanel::zs, rows, next);
    }
  }

  void Pack(const Forward& call) {
    for (int stage = 0; stage < C::kStages; stage++) {
      Pack(stage, call.w_inputs[stage], sizes_.depth, &ForwardPanel::w_inputs);
      Pack(stage, call.w_state[stage], sizes_.units, &ForwardPanel::w_state);
      Pack(stage, call.bias[stage], 1, &ForwardPanel::bias);
    }
  }

  const std::vector<ForwardPanel>& operator[](int stage) const {
    return stages_[stage];
  }

 private:
  static int64_t Width(int stage, const Panel& panel) {
    return C::kGates[stage] * panel.count * kLanes;
  }

  // Gives each panel of the stage its part, of so many rows, of the memory from `next`
  // on.
  void Place(int stage, float* ForwardPanel::* kind, int64_t rows, float*& next) {
    for (ForwardPanel& packed : stages_[stage]) {
      packed.*kind = next;
      next += rows * Width(stage, packed.panel);
    }
  }

  // Copies a matrix [rows, C], in the order in which it lies in memory.
  void Pack(int stage, const float* matrix, int64_t rows, float* ForwardPanel::* kind) {
    const int64_t columns = C::kGates[stage] * sizes_.units;
    for (int64_t k = 0; k < rows; k++) {
      for (const ForwardPanel& packed : stages_[stage]) {
        PackRow(stage, matrix + k * columns, packed.panel,
                packed.*kind + k * Width(stage, packed.panel));
      }
    }
  }

  void PackRow(int stage, const float* row, const Panel& panel, float* to) {
    for (int64_t v = panel.first; v < panel.first + panel.count; v++) {
      for (int g = 0; g < C::kGates[stage]; g++, to += kLanes) {
        Store(to, Load(row + g * sizes_.units + v * kLanes, Valid(sizes_.units, v)));
      }
    }
  }

  const Sizes sizes_;
  Buffer memory_;
  std::vector<ForwardPanel> stages_[C::kStages];
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_FORWARD_PANELS_H_
