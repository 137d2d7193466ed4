// The arguments and results of the four calls; layout.h has the sizes of the arrays.
//
// Arrays are contiguous. A sequence has the shape [batch, time, size], or [time, batch,
// size] if time_major, and has at least one step. C is the number of columns of a
// product, which hold the units of all its gates. A row is alive at the steps before
// its length, and finished at later steps. Lengths are from 0 to the number of steps.
// The calls do not read arguments at steps of finished rows, so NaN in the padding does
// not affect any result.
#ifndef JAXRNN_LOOPS_H_
#define JAXRNN_LOOPS_H_

#include <cstdint>
#include <vector>

#include "executor.h"

namespace jaxrnn {

// The numbers are part of the interface with Python. kGru applies the reset gate before
// the candidate's product. kCudnnGru applies the reset gate after the product, as cuDNN
// does. kPeepholeLstm and kProjectedLstm may have peepholes and clips. kProjectedLstm
// also has a projection. kNormedLstm has layer normalization and no bias.
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

// A product of a step. It multiplies the inputs, an operand computed from the state, or
// both by matrices, and may add a bias. Its columns hold one gate after another. For
// brevity, the candidate before its activation is also called a gate.
struct Product {
  int gates;
  bool inputs, state, bias;
};

// The number of a cell's products. An LSTM has one product, with the gates i, j, f and
// o. A projection is a second product, whose only gate is the output. A GRU has a
// product with the gates r and u, and a product for the candidate, which uses r * h.
// cuDNN's GRU has a product with the gates r and u, the candidate's product with the
// inputs, and the candidate's product with h. A basic RNN has one product with one
// gate.
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

// Whether the cell has a second stage, whose operand is not h: r * h in a GRU, or the
// unprojected output in an LSTM.
constexpr bool HasOperand(Cell cell) {
  return cell == Cell::kGru || cell == Cell::kProjectedLstm;
}

struct Sizes {
  // `units` is the size of a gate. `outputs`, the size of h, equals `units` unless h is
  // projected.
  int64_t batch, time, depth, units, outputs;
  bool time_major, has_resets;

  // The index of a step in a sequence of size 1.
  int64_t At(int64_t row, int64_t t) const {
    return time_major ? t * batch + row : row * time + t;
  }
  // The number of rows of product k's kernel that multiply the inputs. They come first.
  int64_t InputRows(Cell cell, int k) const {
    return ProductOf(cell, k).inputs * depth;
  }
  // The number of rows that multiply the operand.
  int64_t StateRows(Cell cell, int k) const {
    return ProductOf(cell, k).state * Rows(k);
  }
  // The size of product k's operand.
  int64_t Rows(int k) const { return k == 0 ? outputs : units; }
  int64_t Columns(Cell cell, int k) const {
    const bool projects = cell == Cell::kProjectedLstm && k == 1;
    return projects ? outputs : ProductOf(cell, k).gates * units;
  }
};

// The activation of the candidate, or of j and c in an LSTM. The numbers are part of
// the interface with Python.
enum class Activation : int32_t { kTanh = 0, kRelu = 1, kSigmoid = 2 };
constexpr int kActivations = 3;

// The parameters of the element-wise work. Cells other than LSTMs use only the
// activation.
struct Settings {
  Activation activation;
  float forget_bias;
  float cell_clip, output_clip;  // Bounds on c and on a projected h, or infinity.
  // [ElementwiseVectors(cell), units], or null if unused. Holds the peepholes of the
  // gates f, i and o, or the shift and the gain of each norm in the order f, i, o, c,
  // j.
  const float* elementwise;
};
constexpr int64_t ElementwiseVectors(Cell cell) {
  if (cell == Cell::kNormedLstm) return 10;
  return cell == Cell::kPeepholeLstm || cell == Cell::kProjectedLstm ? 3 : 0;
}

// An entry of a forward call: its arguments, then its results.
struct Forward {
  Cell cell;
  Sizes sizes;
  Settings settings;
  bool has_elementwise, has_new_c, saves;  // Which optional arrays the call has.
  const int32_t* lengths;                  // [batch].
  const int32_t* resets;  // A sequence of size 1: whether a row gets its reset state
                          // before the step. Null without resets.
  const float* x;         // A sequence of size depth.
  const float* kernel[kMaxProducts];  // [InputRows + StateRows, C].
  const float* bias[kMaxProducts];    // [C]; null if the product has none.
  const float *h, *c;  // [batch, outputs]; [batch, units], null without c.
  const float *reset_h, *reset_c;  // Like h and c; null without resets.

  float* outputs;            // A sequence of size outputs; zeros in finished rows.
  float *last_h, *last_c;    // Like h and c. A row of length 0 keeps its initial state
                             // bit for bit.
  float* new_c;              // A sequence of size units: c after each step. Null
                             // without c, or if not requested.
  float* zs[kMaxProducts];   // A sequence of size C: the products. Any finite values in
                             // finished rows. Null if nothing is saved.
  float *saved_h, *saved_c;  // A sequence: the state before each step, after any reset;
                             // zeros in finished rows. Null if nothing is saved.
                             // Without resets, saved_h is also null, because the
                             // outputs contain it.
};

// An entry of a backward call. Names that start with ct_ denote cotangents.
struct Backward {
  Cell cell;
  Sizes sizes;
  Settings settings;
  bool has_elementwise, has_new_c;
  const int32_t *lengths, *resets;
  const float* kernel[kMaxProducts];
  const float* zs[kMaxProducts];
  const float *saved_h, *saved_c;
  const float *outputs, *h;  // From the forward call; used if saved_h is null.
  const float *ct_outputs, *ct_new_c;
  const float *ct_last_h, *ct_last_c;

  float* ct_zs[kMaxProducts];  // Not written in finished rows. May be the same arrays
                               // as zs, because a step is read before it is written.
  float* operand;  // A sequence of size units; zeros in finished rows. Null if the cell
                   // has none.
  float *ct_h, *ct_c;
  float *ct_reset_h, *ct_reset_c;  // Zeros for a row that is never reset.
  float* ct_elementwise;  // [batch, ElementwiseVectors(cell), units], or null.
};

// The cotangents of a product's matrices and bias.
struct Weights {
  Sizes sizes;  // Here `units` is the size of the operand. `depth` or `units` is 0 if
                // the product lacks the matrix.
  int64_t columns;  // C.
  bool has_first, has_bias;
  const int32_t* lengths;    // [batch].
  const float *x, *operand;  // Sequences of size depth and units.
  const float* first;  // [batch, units]. If not null, each step multiplied the previous
                       // step's `operand`, and the first step multiplied `first`.
  const float* ct_zs;  // A sequence of size C.

  float *ct_kernel, *ct_bias;  // [depth + units, C], [C].
};

// The cotangent of the inputs.
struct Inputs {
  Sizes sizes;  // The units are not read.
  int products;
  double kernels[kMaxProducts];  // The sizes of the kernels.
  int64_t columns[kMaxProducts];
  const int32_t* lengths;             // [batch].
  const float* kernel[kMaxProducts];  // [.., C]; only the first `depth` rows are read.
  const float* ct_zs[kMaxProducts];   // A sequence of size C.

  float* ct_x;  // A sequence of size depth; zeros in finished rows.
};

// The loops are compiled once for each instruction set. Each function runs the entries
// of a call, which differ only in their arrays. The functions are extern "C", so that
// the build can hide all names but theirs.
#define JAXRNN_NAME_OF(loop, target) Jaxrnn##loop##_##target
#define JAXRNN_NAME(loop, target) JAXRNN_NAME_OF(loop, target)
#define JAXRNN_DECLARE(loop, target) \
  extern "C" void JAXRNN_NAME(loop, target)(const std::vector<loop>&, Executor&)
#define JAXRNN_DECLARE_ALL(target)  \
  JAXRNN_DECLARE(Forward, target);  \
  JAXRNN_DECLARE(Backward, target); \
  JAXRNN_DECLARE(Weights, target);  \
  JAXRNN_DECLARE(Inputs, target)

#ifdef JAXRNN_TARGET
JAXRNN_DECLARE_ALL(JAXRNN_TARGET);
#endif

}  // namespace jaxrnn

#endif  // JAXRNN_LOOPS_H_
