// The loops over the steps of a cell: what they read and what they write.
//
// Arrays are contiguous. A sequence is [batch, time, size] or, if time_major,
// [time, batch, size], of at least one step. C is the number of columns of a product:
// the units of all its gates. A row is alive at the steps before its length; elsewhere
// nothing of it is read, so that NaN in padding changes no result.
#ifndef JAXRNN_LOOPS_H_
#define JAXRNN_LOOPS_H_

#include <cstdint>
#include <vector>

#include "executor.h"

namespace jaxrnn {

// The number of each is part of the interface with Python. A GRU resets the state
// before the candidate's product, or after it, as cuDNN does. The two LSTMs after these
// may have peepholes and clips; the second one has a projection. The last one has layer
// normalizations, and no bias.
enum class Cell : int32_t {
  kLstm = 0,
  kGru = 1,
  kRnn = 2,
  kCudnnGru = 3,
  kPeepholeLstm = 4,
  kProjectedLstm = 5,
  kNormedLstm = 6,
};
constexpr int kCells = 7;

constexpr bool HasC(Cell cell) {
  return cell == Cell::kLstm || cell == Cell::kPeepholeLstm ||
         cell == Cell::kProjectedLstm || cell == Cell::kNormedLstm;
}

constexpr int kMaxProducts = 3;

// A product of a step: the inputs, or what is made of the state, or both, times
// matrices; and a bias. Its columns are those of one gate after the other; for brevity
// what an activation makes the candidate is called a gate, too.
struct Product {
  int gates;
  bool inputs, state, bias;
};

// Those of a cell. An LSTM has gates i, j, f, o, and perhaps the projection, whose one
// gate is the output. A GRU has gates r, u; then the candidate, whose product is that
// of r * h. That of cuDNN has gates r, u; the candidate's product of the inputs; and
// that of h. A basic RNN has one gate.
constexpr int Products(Cell cell) {
  if (cell == Cell::kCudnnGru) return 3;
  return cell == Cell::kGru || cell == Cell::kProjectedLstm ? 2 : 1;
}
constexpr Product ProductOf(Cell cell, int k) {
  if (cell == Cell::kCudnnGru && k > 0) return {1, k == 1, k == 2, true};
  if (cell == Cell::kProjectedLstm && k == 1) return {1, false, true, false};
  if (HasC(cell)) return {4, true, true, cell != Cell::kNormedLstm};
  const bool of_gates = k == 0 && cell != Cell::kRnn;
  return {of_gates ? 2 : 1, true, true, true};
}

// Whether the second stage multiplies an operand of its own: r * h of a GRU, what is
// projected of an LSTM.
constexpr bool HasOperand(Cell cell) {
  return cell == Cell::kGru || cell == Cell::kProjectedLstm;
}

struct Sizes {
  // Units are those of the gates; h, the output, has as many unless it is projected.
  int64_t batch, time, depth, units, outputs, sequences;
  bool time_major;

  // The number of a step in a sequence that has one value a step.
  int64_t At(int64_t row, int64_t t) const {
    return time_major ? t * batch + row : row * time + t;
  }
  // Of the matrix of the state in product k.
  int64_t Rows(int k) const { return k == 0 ? outputs : units; }
  int64_t Columns(Cell cell, int k) const {
    const bool projects = cell == Cell::kProjectedLstm && k == 1;
    return projects ? outputs : ProductOf(cell, k).gates * units;
  }
};

// Of the candidate, or of j and c of an LSTM. The number of each is part of the
// interface with Python.
enum class Activation : int32_t { kTanh = 0, kRelu = 1, kSigmoid = 2 };
constexpr int kActivations = 3;

// What the elementwise work reads besides; but for the activation, that of an LSTM.
struct Settings {
  Activation activation;
  float forget_bias;
  float cell_clip, output_clip;  // Bounds on c and on a projected h, or infinity.
  // [ElementwiseVectors(cell), units], or null without: the peepholes of gates f, i, o;
  // or, of the norms of f, i, o, c, j, the shift and the gain of each.
  const float* elementwise;
};
constexpr int64_t ElementwiseVectors(Cell cell) {
  if (cell == Cell::kNormedLstm) return 10;
  return cell == Cell::kPeepholeLstm || cell == Cell::kProjectedLstm ? 3 : 0;
}

// An entry of a forward call: what it reads, then what it writes.
struct Forward {
  Cell cell;
  Sizes sizes;
  Settings settings;
  const int32_t* lengths;  // [batch]; any values, clipped to 0..time.
  const int32_t* starts;   // As a sequence of size 1: the number of the sequence
                           // that starts, or -1. Null without restarts.
  const float* x;          // A sequence of size depth.
  const float* w_inputs[kMaxProducts];  // [depth, C], of products that have them.
  const float* w_state[kMaxProducts];   // Of product 0 [outputs, C], else [units, C].
  const float* bias[kMaxProducts];      // [C].
  const float *h, *c;  // [batch, outputs] and, of an LSTM, [batch, units]; else null.
  const float *restart_h, *restart_c;  // [sequences, ...]; null without restarts.

  float* outputs;            // A sequence of size outputs; zeros where not alive.
  float *last_h, *last_c;    // As h, c; for a row of length 0 the bits of the initial
                             // state.
  float* new_c;              // A sequence of size units: c after each step; null if
                             // not wanted, or if there is none.
  float* zs[kMaxProducts];   // A sequence of size C, the products; finite where not
                             // alive. Null if nothing is saved.
  float *saved_h, *saved_c;  // A sequence, the state before each step, after a restart;
                             // zeros where not alive. Null if nothing is saved, and
                             // h without restarts: it is the output before.
};

// An entry of a backward call. Names with ct_ are cotangents.
struct Backward {
  Cell cell;
  Sizes sizes;  // The depth is not read.
  Settings settings;
  const int32_t *lengths, *starts;
  const float* w_state[kMaxProducts];
  const float* zs[kMaxProducts];
  const float *saved_h, *saved_c;
  const float *outputs, *h;  // Of the forward call, where saved_h is null.
  const float *ct_outputs, *ct_new_c;
  const float *ct_last_h, *ct_last_c;

  float* ct_zs[kMaxProducts];  // Not written where not alive. May be the arrays zs:
                               // what is read of a step is read before it is written.
  float* operand;  // A sequence of size units, zeros where not alive; null of
                   // a cell without one.
  float *ct_h, *ct_c;
  float *ct_restart_h, *ct_restart_c;  // Zeros for a sequence that never starts.
  float* ct_elementwise;  // [batch, ElementwiseVectors(cell), units], or null.
};

// The cotangents of a product's matrices and bias.
struct Weights {
  Sizes sizes;  // Depth and units, here the size of the operand, are 0 for a product
                // without the matrix.
  int64_t columns;           // C.
  const int32_t* lengths;    // [batch].
  const float *x, *operand;  // Sequences of size depth, and units: what was multiplied.
  const float* first;  // [batch, units]; if not null, the operand of a step is what the
                       // sequence has at the step before, and this at the first step.
  const float* ct_zs;        // A sequence of size C.

  float *ct_w_inputs, *ct_w_state, *ct_bias;  // [depth, C], [units, C], [C].
};

// The cotangent of the inputs.
struct Inputs {
  Sizes sizes;  // The units are not read.
  int products;
  int64_t columns[kMaxProducts];
  const int32_t* lengths;               // [batch].
  const float* w_inputs[kMaxProducts];  // [depth, C].
  const float* ct_zs[kMaxProducts];     // A sequence of size C.

  float* ct_x;  // A sequence of size depth; zeros where not alive.
};

}  // namespace jaxrnn

#ifdef JAXRNN_TARGET
// The loops are compiled once for each instruction set, in a namespace of its name.
namespace jaxrnn::JAXRNN_TARGET {

// Each runs the entries of a call, which differ in their arrays alone.
void RunForward(const std::vector<Forward>& entries, Executor& executor);
void RunBackward(const std::vector<Backward>& entries, Executor& executor);
void RunWeights(const std::vector<Weights>& entries, Executor& executor);
void RunInputs(const std::vector<Inputs>& entries, Executor& executor);

}  // namespace jaxrnn::JAXRNN_TARGET
#endif

#endif  // JAXRNN_LOOPS_H_
