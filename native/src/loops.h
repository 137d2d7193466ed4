// The loops over the steps of a cell: what they read and what they write.
//
// Arrays are contiguous. A sequence is [batch, time, size] or, if time_major,
// [time, batch, size]. C is the number of columns of a stage's product: the units of
// all its gates. A row is alive at the steps before its length; elsewhere nothing of
// it is read, so that NaN in padding changes no result.
#ifndef JAXRNN_LOOPS_H_
#define JAXRNN_LOOPS_H_

#include <cstdint>

#include "executor.h"

namespace jaxrnn {

// The number of each is part of the interface with Python.
enum class Cell : int32_t { kLstm = 0, kGru = 1, kRnn = 2 };

constexpr int kMaxStages = 2;

// A stage is a product and the elementwise work after it. The columns of the product
// are those of one gate after the other; for brevity what is computed with tanh is
// called a gate, too. An LSTM has one stage, of gates i, j, f, o. A GRU has two: one of
// gates r, u; then the candidate's, whose product is that of r * h. A basic RNN has one
// of one.
inline int Stages(Cell cell) { return cell == Cell::kGru ? 2 : 1; }
inline int64_t Gates(Cell cell, int stage) {
  if (cell == Cell::kLstm) return 4;
  return cell == Cell::kGru && stage == 0 ? 2 : 1;
}

struct Sizes {
  int64_t batch, time, depth, units, sequences;
  bool time_major;

  // The number of a step in a sequence that has one value a step.
  int64_t At(int64_t row, int64_t t) const {
    return time_major ? t * batch + row : row * time + t;
  }
};

struct Forward {
  Cell cell;
  Sizes sizes;
  float forget_bias;       // Of an LSTM.
  const int32_t* lengths;  // [batch]; any values, clipped to 0..time.
  const int32_t* starts;   // As a sequence of size 1: the number of the sequence
                           // that starts, or -1. Null without restarts.
  const float* x;          // A sequence of size depth.
  const float* w_inputs[kMaxStages];   // [depth, C].
  const float* w_state[kMaxStages];    // [units, C].
  const float* bias[kMaxStages];       // [C].
  const float *h, *c;                  // [batch, units]; c of an LSTM, else null.
  const float *restart_h, *restart_c;  // [sequences, units]; null without restarts.

  float* outputs;            // A sequence of size units; zeros where not alive.
  float *last_h, *last_c;    // [batch, units]; for a row of length 0 the bits of the
                             // initial state.
  float* new_c;              // A sequence of size units: c after each step, of an LSTM;
                             // null if not wanted.
  float* zs[kMaxStages];     // A sequence of size C, the products; finite where not
                             // alive. Null if nothing is saved.
  float *saved_h, *saved_c;  // A sequence of size units, the state before each step,
                             // after a restart; zeros where not alive. Null if nothing
                             // is saved.
};

// Names with c_ are cotangents.
struct Backward {
  Cell cell;
  Sizes sizes;  // The depth is not read.
  float forget_bias;
  const int32_t *lengths, *starts;
  const float* w_state[kMaxStages];
  const float* zs[kMaxStages];
  const float *saved_h, *saved_c;
  const float *c_outputs, *c_new_c;
  const float *c_last_h, *c_last_c;

  float* c_zs[kMaxStages];  // Zeros where not alive. May be the arrays zs: what is
                            // read of a step is read before it is written.
  float* operand;           // r * h of a GRU, a sequence of size units, zeros where
                            // not alive; else null.
  float *c_h, *c_c;         // [batch, units].
  float *c_restart_h, *c_restart_c;  // [sequences, units]; zeros for a sequence that
                                     // never starts.
};

// The cotangents of a stage's matrices and bias.
struct Weights {
  Sizes sizes;
  int64_t columns;           // C.
  const int32_t* lengths;    // [batch].
  const float *x, *operand;  // Sequences of size depth, and units: saved_h, or a GRU's
                             // operand in its second stage.
  const float* c_zs;         // A sequence of size C.

  float *c_w_inputs, *c_w_state, *c_bias;  // [depth, C], [units, C], [C].
};

// The cotangent of the inputs.
struct Inputs {
  Sizes sizes;  // The units are not read.
  int stages;
  int64_t columns[kMaxStages];
  const int32_t* lengths;             // [batch].
  const float* w_inputs[kMaxStages];  // [depth, C].
  const float* c_zs[kMaxStages];      // A sequence of size C.

  float* c_x;  // A sequence of size depth; zeros where not alive.
};

}  // namespace jaxrnn

#ifdef JAXRNN_TARGET
// The loops are compiled once for each instruction set, in a namespace of its name.
namespace jaxrnn::JAXRNN_TARGET {

void RunForward(const Forward& call, Executor& executor);
void RunBackward(const Backward& call, Executor& executor);
void RunWeights(const Weights& call, Executor& executor);
void RunInputs(const Inputs& call, Executor& executor);

}  // namespace jaxrnn::JAXRNN_TARGET
#endif

#endif  // JAXRNN_LOOPS_H_
