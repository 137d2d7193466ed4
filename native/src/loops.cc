// The loops of every cell, for the instruction set that the file is compiled for.
#include "loops.h"

#include <algorithm>
#include <cstdint>

#include "backward.h"
#include "cells.h"
#include "forward.h"
#include "gang.h"
#include "inputs.h"
#include "stages.h"
#include "weights.h"

namespace jaxrnn::JAXRNN_TARGET {
namespace {

// The multiplications of a step for which another thread pays: they take as long as the
// threads take to meet after the step, about half a microsecond.
constexpr int64_t kLeastMultiplications = 18'000;

// The number of slots for so many multiplications a phase, if `size` floats are divided
// among the slots by vectors.
int64_t Slots(int64_t multiplications, int64_t size, const Executor& executor) {
  int64_t vectors = Padded(size) / kLanes;
  return std::max<int64_t>(1, std::min({executor.threads(), vectors,
                                        multiplications / kLeastMultiplications}));
}

template <typename Loop, typename Call>
void RunLoop(const Call& call, int64_t slots, Executor& executor) {
  Loop loop(call, slots);
  RunPhases(executor, slots, loop.phases(),
            [&](int64_t slot, int64_t phase) { loop.Run(slot, phase); });
}

template <typename C>
int64_t CellSlots(const Sizes& sizes, const Executor& executor) {
  const Stages<C> cell(sizes);
  int64_t multiplications = 0;
  for (int stage = 0; stage < C::kStages; stage++)
    multiplications += cell.rows(stage) * cell.units(stage) * C::kStateGates[stage];
  return Slots(sizes.batch * multiplications, sizes.units, executor);
}

template <typename C>
void RunCell(const Forward& call, Executor& executor) {
  RunLoop<ForwardLoop<C>>(call, CellSlots<C>(call.sizes, executor), executor);
}

template <typename C>
void RunCell(const Backward& call, Executor& executor) {
  RunLoop<BackwardLoop<C>>(call, CellSlots<C>(call.sizes, executor), executor);
}

template <typename Call>
void RunAnyCell(const Call& call, Executor& executor) {
  switch (call.cell) {
    case Cell::kLstm:
      return RunCell<PlainLstm>(call, executor);
    case Cell::kGru:
      return RunCell<Gru>(call, executor);
    case Cell::kRnn:
      return RunCell<Rnn>(call, executor);
    case Cell::kCudnnGru:
      return RunCell<CudnnGru>(call, executor);
    case Cell::kPeepholeLstm:
      return RunCell<PeepholeLstm>(call, executor);
    case Cell::kProjectedLstm:
      return RunCell<ProjectedLstm>(call, executor);
  }
}

}  // namespace

void RunForward(const Forward& call, Executor& executor) { RunAnyCell(call, executor); }
void RunBackward(const Backward& call, Executor& executor) {
  RunAnyCell(call, executor);
}

void RunWeights(const Weights& call, Executor& executor) {
  const Sizes& sizes = call.sizes;
  int64_t multiplications =
      sizes.batch * sizes.time * (sizes.depth + sizes.units) * call.columns;
  RunLoop<WeightsLoop>(call, Slots(multiplications, call.columns, executor), executor);
}

void RunInputs(const Inputs& call, Executor& executor) {
  int64_t steps = call.sizes.batch * call.sizes.time, columns = 0;
  for (int s = 0; s < call.products; s++) columns += call.columns[s];
  int64_t multiplications = steps * call.sizes.depth * columns;
  RunLoop<InputsLoop>(call, Slots(multiplications, steps * kLanes, executor), executor);
}

}  // namespace jaxrnn::JAXRNN_TARGET
