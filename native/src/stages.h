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
    return C::kStage[stage].gates - C::kStage[stage].state;
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
    const Gate gate = C::kStage[stage].gate[g];
    return (position * gate.blocks + gate.block) * units(stage);
  }
  // A gate's columns of a row of its product's kernel or bias, null if there is none.
  // The rows are those of the inputs or, if `of_state`, of the operand.
  const float* ColumnsOf(const float* const* matrices, int stage, int g, bool of_state,
                         int64_t row) const {
    const float* matrix = matrices[C::kStage[stage].gate[g].product];
    if (of_state && g < C::kStage[stage].inputs) row += sizes_.depth;
    return matrix ? matrix + GateAt(stage, g, row) : nullptr;
  }
  // The length of a row.
  int64_t Columns(int stage, int g) const {
    return C::kStage[stage].gate[g].blocks * units(stage);
  }

  // The number of floats in the matrices of all stages.
  int64_t MatrixFloats() const {
    int64_t floats = 0;
    for (int stage = 0; stage < C::kStages; stage++) {
      floats += units(stage) * (C::kStage[stage].inputs * sizes_.depth +
                                C::kStage[stage].state * rows(stage));
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

// The settings that a cell's functions use in this stage, for vector v. Only the gates
// of the first stage have peepholes.
template <typename C>
SettingsVec Besides(const Settings& settings, const Sizes& sizes, int stage,
                    int64_t v) {
  SettingsVec values = {settings, false, {}};
  if (!C::kHasPeepholes || stage > 0 || settings.elementwise == nullptr) return values;
  values.has_peepholes = true;
  for (int k = 0; k < 3; k++)
    values.peepholes[k] = Load(settings.elementwise + k * sizes.units + v * kLanes,
                               Valid(sizes.units, v));
  return values;
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_STAGES_H_
