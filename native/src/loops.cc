// Runs the calls for every cell, with the instruction set of this compilation.
#include "loops.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backward.h"
#include "cells.h"
#include "division.h"
#include "forward.h"
#include "inputs.h"
#include "normed.h"
#include "stages.h"
#include "team.h"
#include "weights.h"

namespace jaxrnn::JAXRNN_TARGET {
namespace {

int64_t Vectors(int64_t size) { return Padded(size) / kLanes; }

// Constructs a loop from these arguments and the number of workers, and runs it.
template <typename Loop, typename... Arguments>
void RunLoop(Executor& executor, int64_t workers, const Arguments&... arguments) {
  Loop loop(arguments..., workers);
  RunPhases(executor, workers, loop.phases(),
            [&](int64_t worker, int64_t phase) { loop.Run(worker, phase); });
}

template <typename Loop, typename Entry>
void RunProducts(const std::vector<Entry>& entries, double multiplications,
                 int64_t vectors, int64_t phases, Executor& executor) {
  const Work work = {1, multiplications, 0, vectors,
                     phases};  // One row, so no row blocks.
  const int64_t workers = Divide(work, entries.size(), executor.threads()).workers;
  RunJobs(executor, executor.threads() / workers, entries.size(),
          [&](int64_t k) { RunLoop<Loop>(executor, workers, entries[k]); });
}

// The work of a loop over the steps, with measured constants. The element-wise work of
// a gate takes as long as kElementwise multiplications. Packing a matrix element takes
// as long as `packing` multiplications. For each row block and step, reading a matrix
// takes as long as multiplying one row by it. If it is far, the multiplications of a step
// take at least as long as those of kFarRows rows.
template <typename C>
Work WorkOf(Sizes sizes, double packing) {
  constexpr double kElementwise = 64, kFarRows = 28;
  constexpr double kMostPacked = 1 << 28;  // 1 GiB of floats.
  double gates = 0;
  for (int stage = 0; stage < C::kStages; stage++)
    gates += C::kStage[stage].gates * Stages<C>(sizes).units(stage);
  const double matrices = Stages<C>(sizes).MatrixFloats();
  sizes.depth = 0;  // Without inputs.
  const double state = Stages<C>(sizes).MatrixFloats();
  return {sizes.batch,
          sizes.time * (matrices + gates * kElementwise),
          sizes.time * state + packing * matrices,
          C::kByRow ? 1 : Vectors(sizes.units),
          sizes.time * C::kStages,
          matrices,
          sizes.time * state * kFarRows,
          std::max<int64_t>(1, kMostPacked / std::max(1.0, matrices))};
}

// The sizes of a call whose steps end with the longest row of all entries.
template <typename Entry>
Sizes UpToLongest(const std::vector<Entry>& entries) {
  Sizes sizes = entries[0].sizes;
  int64_t longest = 1;
  for (const Entry& entry : entries)
    for (int64_t row = 0; row < sizes.batch; row++)
      longest = std::max<int64_t>(longest, entry.lengths[row]);
  sizes.time = longest;
  return sizes;
}

template <typename Loop, typename Entry>
void RunSteps(const std::vector<Entry>& entries, const Work& work, Executor& executor) {
  const Division division = Divide(work, entries.size(), executor.threads());
  const int64_t row_blocks = division.row_blocks, workers = division.workers;
  RunJobs(executor, executor.threads() / workers, entries.size() * row_blocks,
          [&](int64_t k) {
            RunLoop<Loop>(executor, workers, entries[k / row_blocks],
                          RowBlock{k % row_blocks, row_blocks});
          });
}

template <typename C>
void RunCell(const std::vector<Forward>& entries, Executor& executor) {
  const Sizes sizes = UpToLongest(entries);
  const double floats = double(Stages<C>(sizes).MatrixFloats()) / executor.threads();
  const bool packs = Packs<C>(sizes, sizes.batch, sizes.time, AreFar(floats));
  RunSteps<ForwardLoop<C>>(entries, WorkOf<C>(sizes, packs ? 8 : 0), executor);
}

template <typename C>
void RunCell(const std::vector<Backward>& entries, Executor& executor) {
  Sizes sizes = UpToLongest(entries);
  sizes.depth = 0;  // The loop multiplies no inputs.
  // Packing takes longer than in the forward loop, because it transposes the matrices.
  RunSteps<BackwardLoop<C>>(entries, WorkOf<C>(sizes, 40), executor);
}

// Runs the entries' cell. The cells are in the order of their numbers.
template <typename Entry>
void RunAnyCell(const std::vector<Entry>& entries, Executor& executor) {
  if (entries.empty()) return;
  using Run = void (*)(const std::vector<Entry>&, Executor&);
  constexpr Run kRuns[kCells] = {
      RunCell<CellOf<Cell::kLstm, PlainLstm>>,
      RunCell<CellOf<Cell::kGru, Gru>>,
      RunCell<CellOf<Cell::kRnn, Rnn>>,
      RunCell<CellOf<Cell::kCudnnGru, CudnnGru>>,
      RunCell<CellOf<Cell::kPeepholeLstm, PeepholeLstm>>,
      RunCell<CellOf<Cell::kProjectedLstm, ProjectedLstm>>,
      RunCell<CellOf<Cell::kNormedLstm, NormedLstm>>,
  };
  kRuns[int(entries[0].cell)](entries, executor);
}

}  // namespace
}  // namespace jaxrnn::JAXRNN_TARGET

namespace jaxrnn {

using namespace JAXRNN_TARGET;

void JAXRNN_NAME(Forward, JAXRNN_TARGET)(const std::vector<Forward>& entries,
                                         Executor& executor) {
  RunAnyCell(entries, executor);
}

void JAXRNN_NAME(Backward, JAXRNN_TARGET)(const std::vector<Backward>& entries,
                                         Executor& executor) {
  for (const Backward& entry : entries) {  // The loops add to these cotangents.
    const Sizes& sizes = entry.sizes;
    if (entry.ct_reset_h)
      std::fill_n(entry.ct_reset_h, sizes.batch * sizes.outputs, 0.0f);
    if (entry.ct_reset_c)
      std::fill_n(entry.ct_reset_c, sizes.batch * sizes.units, 0.0f);
  }
  RunAnyCell(entries, executor);
}

void JAXRNN_NAME(Weights, JAXRNN_TARGET)(const std::vector<Weights>& entries,
                                         Executor& executor) {
  if (entries.empty()) return;
  const Sizes& sizes = entries[0].sizes;
  const int64_t columns = entries[0].columns;
  const double steps = sizes.batch * sizes.time;
  const double multiplications = steps * (sizes.depth + sizes.units) * columns;
  RunProducts<WeightsLoop>(entries, multiplications, Vectors(columns), 1, executor);
}

void JAXRNN_NAME(Inputs, JAXRNN_TARGET)(const std::vector<Inputs>& entries,
                                         Executor& executor) {
  if (entries.empty()) return;
  const Sizes& sizes = entries[0].sizes;
  const int64_t steps = sizes.batch * sizes.time;
  double columns = 0;
  for (int s = 0; s < entries[0].products; s++) columns += entries[0].columns[s];
  RunProducts<InputsLoop>(entries, columns * steps * sizes.depth, steps, 2, executor);
}

}  // namespace jaxrnn
