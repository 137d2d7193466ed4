// The sizes of a cell's stages, and the positions of their gates.
#ifndef JAXRNN_STAGES_H_
#define JAXRNN_STAGES_H_

#include <cstdint>
#include <vector>

#include "cells.h"
#include "loops.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

template <typename C>
class Stages {
 public:
  static constexpr int kLast = C::kStages - 1;
  // The first gate that has a product with the state.
  static constexpr int FirstOfState(int stage) {
    return C::kGates[stage] - C::kStateGates[stage];
  }

  explicit Stages(const Sizes& sizes) : sizes_(sizes) {}

  // The number of units of each gate.
  int64_t units(int stage) const {
    return stage > 0 && C::kHasC ? sizes_.outputs : sizes_.units;
  }
  // The size of the operand. In a cell with two stages, a stage and its product have
  // the same number.
  int64_t rows(int stage) const { return sizes_.Rows(stage); }
  int64_t padded(int stage) const { return Padded(units(stage)); }

  // The offset of a gate at a position in its product's sequence.
  int64_t GateAt(int stage, int g, int64_t position) const {
    const Gate gate = C::kGate[stage][g];
    return (position * gate.blocks + gate.block) * units(stage);
  }
  // The offset of a gate in each row of the product's matrices, and the length of a
  // row.
  int64_t Column(int stage, int g) const {
    return C::kGate[stage][g].block * units(stage);
  }
  int64_t Columns(int stage, int g) const {
    return C::kGate[stage][g].blocks * units(stage);
  }

  // The number of floats in the matrices of all stages.
  int64_t MatrixFloats() const {
    int64_t floats = 0;
    for (int stage = 0; stage < C::kStages; stage++) {
      floats += units(stage) * (C::kInputGates[stage] * sizes_.depth +
                                C::kStateGates[stage] * rows(stage));
    }
    return floats;
  }

  // The worker's vectors in each stage.
  std::vector<VectorRange> Ranges(int64_t worker, int64_t workers) const {
    std::vector<VectorRange> ranges;
    for (int stage = 0; stage < C::kStages; stage++)
      ranges.emplace_back(units(stage), worker, workers);
    return ranges;
  }

 private:
  const Sizes sizes_;
};

// Whether the gates of C match the products of this cell.
template <typename C>
constexpr bool Describes(Cell cell) {
  const int64_t vectors = ElementwiseVectors(cell);
  if (C::kHasC != HasC(cell) || (C::kStages > 1) != HasOperand(cell) ||
      (vectors > 0 && C::kCarried != 1 + vectors))
    return false;
  for (int stage = 0; stage < C::kStages; stage++) {
    const int all = C::kGates[stage], of_x = C::kInputGates[stage];
    // If a matrix exists only for some gates, a panel must hold one vector of each
    // gate.
    if (((of_x && of_x != all) || C::kStateGates[stage] != all) &&
        2 * all <= kMaxVectors)
      return false;
    for (int g = 0; g < all; g++) {
      const Gate gate = C::kGate[stage][g];
      const Product product = ProductOf(cell, gate.product);
      const bool inputs = g < C::kInputGates[stage];
      const bool state = g >= Stages<C>::FirstOfState(stage);
      if (gate.product >= Products(cell) || gate.blocks != product.gates ||
          inputs != product.inputs || state != product.state)
        return false;
    }
  }
  return true;
}

// The settings that a cell's functions use in this stage, for vector v. Only the gates
// of the first stage have peepholes.
template <typename C>
SettingsVec Besides(const Settings& settings, const Sizes& sizes, int stage,
                    int64_t v) {
  SettingsVec values = {settings.activation,
                        settings.forget_bias,
                        settings.cell_clip,
                        settings.output_clip,
                        false,
                        {}};
  if (!C::kHasPeepholes || stage > 0 || settings.elementwise == nullptr) return values;
  values.has_peepholes = true;
  for (int k = 0; k < 3; k++)
    values.peepholes[k] = Load(settings.elementwise + k * sizes.units + v * kLanes,
                               Valid(sizes.units, v));
  return values;
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_STAGES_H_
