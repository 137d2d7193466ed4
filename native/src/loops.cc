// The loops of every cell, for the instruction set that the file is compiled for.
#include "loops.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backward.h"
#include "cells.h"
#include "division.h"
#include "forward.h"
#include "gang.h"
#include "inputs.h"
#include "normed.h"
#include "stages.h"
#include "weights.h"

namespace jaxrnn::JAXRNN_TARGET {
namespace {

int64_t Vectors(int64_t size) { return Padded(size) / kLanes; }

// Runs a loop whose arguments are these and the number of slots.
template <typename Loop, typename... Arguments>
void RunLoop(Executor& executor, int64_t slots, const Arguments&... arguments) {
  Loop loop(arguments..., slots);
  RunPhases(executor, slots, loop.phases(),
            [&](int64_t slot, int64_t phase) { loop.Run(slot, phase); });
}

template <typename Loop, typename Call>
void RunProducts(const std::vector<Call>& calls, double multiplications,
                 int64_t vectors, int64_t phases, Executor& executor) {
  const Work work = {1, multiplications, 0, vectors, phases};  // Of one row: no groups.
  const int64_t slots = Divide(work, calls.size(), executor.threads()).slots;
  RunJobs(executor, executor.threads() / slots, calls.size(),
          [&](int64_t k) { RunLoop<Loop>(executor, slots, calls[k]); });
}

// Of a loop over the steps. Measured: the elementwise work of a gate takes as long as
// so many multiplications; packing an element of a matrix, as `packing`; and reading a
// matrix, for each group and step, as a row's product with it.
template <typename C>
Work WorkOf(const Sizes& sizes, int64_t depth, double packing) {
  constexpr double kElementwise = 64, kMostPacked = 1 << 28;  // A GB of floats.
  const Stages<C> cell(sizes);
  double gates = 0, inputs = 0, state = 0;  // The last two: elements of matrices.
  for (int stage = 0; stage < C::kStages; stage++) {
    const double units = cell.units(stage);
    gates += C::kGates[stage] * units;
    inputs += C::kInputGates[stage] * units * depth;
    state += C::kStateGates[stage] * units * cell.rows(stage);
  }
  return {sizes.batch,
          sizes.time * (inputs + state + gates * kElementwise),
          sizes.time * state + packing * (inputs + state),
          C::kByRow ? 1 : Vectors(sizes.units),
          sizes.time * C::kStages,
          std::max<int64_t>(1, kMostPacked / std::max(1.0, inputs + state))};
}

template <typename Loop, typename Call>
void RunSteps(const std::vector<Call>& calls, const Work& work, Executor& executor) {
  const Division division = Divide(work, calls.size(), executor.threads());
  const int64_t groups = division.groups, slots = division.slots;
  RunJobs(executor, executor.threads() / slots, calls.size() * groups, [&](int64_t k) {
    RunLoop<Loop>(executor, slots, calls[k / groups], Group{k % groups, groups});
  });
}

template <typename C>
void RunCell(const std::vector<Forward>& calls, Executor& executor) {
  const Sizes& sizes = calls[0].sizes;
  RunSteps<ForwardLoop<C>>(calls, WorkOf<C>(sizes, sizes.depth, 8), executor);
}

// Whether a sequence starts in several rows, whose cotangents are one sum.
bool StartsInRows(const Backward& call) {
  if (!call.starts) return false;
  std::vector<int64_t> rows(call.sizes.sequences, -1);
  for (int64_t row = 0; row < call.sizes.batch; row++) {
    for (int64_t t = 0; t < call.sizes.time; t++) {
      const int32_t sequence = call.starts[call.sizes.At(row, t)];
      if (sequence < 0) continue;
      if (rows[sequence] >= 0 && rows[sequence] != row) return true;
      rows[sequence] = row;
    }
  }
  return false;
}

template <typename C>
void RunCell(const std::vector<Backward>& calls, Executor& executor) {
  // It packs a matrix transposed, which takes longer.
  Work work = WorkOf<C>(calls[0].sizes, 0, 40);
  if (std::any_of(calls.begin(), calls.end(), StartsInRows)) {
    work.row *= work.rows;
    work.rows = 1;
  }
  RunSteps<BackwardLoop<C>>(calls, work, executor);
}

template <Cell cell, typename C, typename Call>
void RunKnown(const std::vector<Call>& calls, Executor& executor) {
  static_assert(Describes<C>(cell));
  RunCell<C>(calls, executor);
}

template <typename Call>
void RunAnyCell(const std::vector<Call>& calls, Executor& executor) {
  if (calls.empty()) return;
  switch (calls[0].cell) {
    case Cell::kLstm:
      return RunKnown<Cell::kLstm, PlainLstm>(calls, executor);
    case Cell::kGru:
      return RunKnown<Cell::kGru, Gru>(calls, executor);
    case Cell::kRnn:
      return RunKnown<Cell::kRnn, Rnn>(calls, executor);
    case Cell::kCudnnGru:
      return RunKnown<Cell::kCudnnGru, CudnnGru>(calls, executor);
    case Cell::kPeepholeLstm:
      return RunKnown<Cell::kPeepholeLstm, PeepholeLstm>(calls, executor);
    case Cell::kProjectedLstm:
      return RunKnown<Cell::kProjectedLstm, ProjectedLstm>(calls, executor);
    case Cell::kNormedLstm:
      return RunKnown<Cell::kNormedLstm, NormedLstm>(calls, executor);
  }
}

// Before groups of rows, which are not ordered, add to them.
void ZeroRestarts(const Backward& call) {
  const Sizes& sizes = call.sizes;
  if (call.ct_restart_h)
    std::fill_n(call.ct_restart_h, sizes.sequences * sizes.outputs, 0.0f);
  if (call.ct_restart_c)
    std::fill_n(call.ct_restart_c, sizes.sequences * sizes.units, 0.0f);
}

}  // namespace

void RunForward(const std::vector<Forward>& calls, Executor& executor) {
  RunAnyCell(calls, executor);
}

void RunBackward(const std::vector<Backward>& calls, Executor& executor) {
  for (const Backward& call : calls) ZeroRestarts(call);
  RunAnyCell(calls, executor);
}

void RunWeights(const std::vector<Weights>& calls, Executor& executor) {
  if (calls.empty()) return;
  const Sizes& sizes = calls[0].sizes;
  const int64_t columns = calls[0].columns;
  const double steps = sizes.batch * sizes.time;
  const double multiplications = steps * (sizes.depth + sizes.units) * columns;
  RunProducts<WeightsLoop>(calls, multiplications, Vectors(columns), 1, executor);
}

void RunInputs(const std::vector<Inputs>& calls, Executor& executor) {
  if (calls.empty()) return;
  const Sizes& sizes = calls[0].sizes;
  const int64_t steps = sizes.batch * sizes.time;
  double columns = 0;
  for (int s = 0; s < calls[0].products; s++) columns += calls[0].columns[s];
  RunProducts<InputsLoop>(calls, columns * steps * sizes.depth, steps, 2, executor);
}

}  // namespace jaxrnn::JAXRNN_TARGET
