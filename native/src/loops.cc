// The loops of every cell, for the instruction set that the file is compiled for.
#include "loops.h"

#include <cstdint>
#include <vector>

#include "backward.h"
#include "cells.h"
#include "division.h"
#include "forward.h"
#include "gang.h"
#include "inputs.h"
#include "weights.h"

namespace jaxrnn::JAXRNN_TARGET {
namespace {

template <typename Loop, typename Call>
void RunLoops(const std::vector<Call>& calls, const Work& work, Executor& executor) {
  const int64_t slots = Slots(work, calls.size(), executor.threads());
  RunJobs(executor, executor.threads() / slots, calls.size(), [&](int64_t k) {
    Loop loop(calls[k], slots);
    RunPhases(executor, slots, loop.phases(),
              [&](int64_t slot, int64_t phase) { loop.Run(slot, phase); });
  });
}

int64_t Vectors(int64_t size) { return Padded(size) / kLanes; }

template <typename C>
Work WorkOf(const Sizes& sizes) {
  double gates = 0;
  for (int g : C::kGates) gates += g;
  return {gates * sizes.time * sizes.batch * sizes.units * sizes.units,
          Vectors(sizes.units), sizes.time * C::kStages};
}

template <typename C>
void RunCell(const std::vector<Forward>& calls, Executor& executor) {
  RunLoops<ForwardLoop<C>>(calls, WorkOf<C>(calls[0].sizes), executor);
}

template <typename C>
void RunCell(const std::vector<Backward>& calls, Executor& executor) {
  RunLoops<BackwardLoop<C>>(calls, WorkOf<C>(calls[0].sizes), executor);
}

template <typename Call>
void RunAnyCell(const std::vector<Call>& calls, Executor& executor) {
  if (calls.empty()) return;
  switch (calls[0].cell) {
    case Cell::kLstm:
      return RunCell<Lstm>(calls, executor);
    case Cell::kGru:
      return RunCell<Gru>(calls, executor);
    case Cell::kRnn:
      return RunCell<Rnn>(calls, executor);
  }
}

}  // namespace

void RunForward(const std::vector<Forward>& calls, Executor& executor) {
  RunAnyCell(calls, executor);
}

void RunBackward(const std::vector<Backward>& calls, Executor& executor) {
  RunAnyCell(calls, executor);
}

void RunWeights(const std::vector<Weights>& calls, Executor& executor) {
  if (calls.empty()) return;
  const Sizes& sizes = calls[0].sizes;
  const double steps = sizes.batch * sizes.time, columns = calls[0].columns;
  const double multiplications = steps * (sizes.depth + sizes.units) * columns;
  RunLoops<WeightsLoop>(calls, {multiplications, Vectors(columns), 1}, executor);
}

void RunInputs(const std::vector<Inputs>& calls, Executor& executor) {
  if (calls.empty()) return;
  const Sizes& sizes = calls[0].sizes;
  const int64_t steps = sizes.batch * sizes.time;
  double columns = 0;
  for (int s = 0; s < calls[0].stages; s++) columns += calls[0].columns[s];
  RunLoops<InputsLoop>(calls, {columns * steps * sizes.depth, steps, 2}, executor);
}

}  // namespace jaxrnn::JAXRNN_TARGET
