// The element-wise work of the cells and its derivative, for one vector of units.
//
// A cell has one or two stages. Each stage is a product, followed by element-wise work.
// z holds the stage's gates. Gates that have no product with the state come first, and
// gates that have no product with the inputs come last. `carried` is memory that the
// loop keeps between phases for the row and the vector.
//
// To pull means to compute the cotangents of a function's arguments from the cotangents
// of its results.
//
// Operand: runs after the first of two stages. Returns the operand of the second
//   stage's product.
// Update: runs after the last stage. Returns the state h. In an LSTM, `carried` is c.
// PullStep: computes the cotangents ct_zs of the last stage's gates from ct_h, the
//   cotangent of the state. z holds the gates of the stages from kPullsFrom on. In an
//   LSTM, `carried` is the cotangent of c.
// PullStage: computes the cotangents ct_zs of the first stage's gates from the
//   cotangent of the second stage's operand. Returns the operand.
// The argument h is h before the step. If an LSTM's stage changes c, its pull function
// receives c before the step instead.
//
// kByRow: whether the cell has the class Row instead of these functions. Row processes
// all units of a row.
#ifndef JAXRNN_CELLS_H_
#define JAXRNN_CELLS_H_

#include "loops.h"
#include "simd.h"

namespace jaxrnn::JAXRNN_TARGET {

// A gate is block number `block` of the `blocks` equal blocks of a product's columns.
struct Gate {
  int product, block, blocks;
};

// The gates of a stage, and how many of them have a product with the inputs or the
// state.
struct StageGates {
  int gates = 0, inputs = 0, state = 0;
  Gate gate[4] = {};
};

// The gates of a cell's stage: of one product if there are two stages, else of all.
constexpr StageGates GatesOf(Cell cell, int stage) {
  StageGates found;
  for (int order = 0; order < 3; order++) {  // Only inputs, both, only the state.
    for (int k = 0; k < Products(cell); k++) {
      const Product product = ProductOf(cell, k);
      if (product.state + !product.inputs != order || (HasOperand(cell) && k != stage))
        continue;
      for (int block = 0; block < product.gates; block++)
        found.gate[found.gates++] = {k, block, product.gates};
      found.inputs += product.inputs * product.gates;
      found.state += product.state * product.gates;
    }
  }
  return found;
}

// A cell with the element-wise work of the class Functions.
template <Cell cell, typename Functions>
struct CellOf : Functions {
  static constexpr bool kHasC = HasC(cell);
  static constexpr bool kHasPeepholes = ElementwiseVectors(cell) == 3;
  static constexpr int kStages = HasOperand(cell) ? 2 : 1;
  static constexpr int kPullsFrom = kHasC ? kStages - 1 : 0;
  static constexpr StageGates kStage[] = {GatesOf(cell, 0), GatesOf(cell, 1)};
};

// The base of the cells that process each vector of units separately.
struct ByUnit {
  static constexpr bool kByRow = false;
  struct Row {
    Row(const Settings&, int64_t) {}
  };
};

// The settings for a vector of units.
struct SettingsVec : Settings {
  bool has_peepholes;
  Vec peepholes[3];

  Vec Active(Vec x) const {
    if (activation == Activation::kTanh) return Tanh(x);
    if (activation == Activation::kSigmoid) return Sigmoid(x);
    return x < 0 ? Vec{} : x;  // NaN stays NaN.
  }
  // The cotangent of x, given the result y and its cotangent. As in JAX, the cotangent
  // of an inactive relu is 0 even if ct_y is NaN or infinite. A multiplication by 0
  // would return NaN.
  Vec PullActive(Vec ct_y, Vec y) const {
    if (activation == Activation::kTanh) return ct_y * (1 - y * y);
    if (activation == Activation::kSigmoid) return ct_y * (y * (1 - y));
    return y > 0 ? ct_y : Vec{};
  }
};

struct PlainLstm : ByUnit {
  static constexpr int kCarried = 1;

  static Vec Update(const Vec* z, Vec, float* c, const SettingsVec& settings) {
    const Vec f = Sigmoid(z[2] + settings.forget_bias);
    const Vec next = Load(c) * f + Sigmoid(z[0]) * settings.Active(z[1]);
    Store(c, next);
    return settings.Active(next) * Sigmoid(z[3]);
  }

  static void PullStep(const Vec* z, Vec c, Vec ct_h, float* ct_c,
                       const SettingsVec& settings, Vec* ct_zs) {
    const Vec i = Sigmoid(z[0]), j = settings.Active(z[1]),
              f = Sigmoid(z[2] + settings.forget_bias), o = Sigmoid(z[3]);
    const Vec active_c = settings.Active(c * f + i * j);
    const Vec total = Load(ct_c) + settings.PullActive(ct_h * o, active_c);
    ct_zs[0] = total * j * i * (1 - i);
    ct_zs[1] = settings.PullActive(total * i, j);
    ct_zs[2] = total * c * f * (1 - f);
    ct_zs[3] = ct_h * active_c * o * (1 - o);
    Store(ct_c, total * f);
  }
};

// The gates of an LSTM with optional peepholes and an optional clip. The clip's
// derivative is 1 at the bounds and for NaN.
struct PeepholeGates {
  PeepholeGates(const Vec* z, Vec c, const SettingsVec& settings) {
    Vec zs[] = {z[0], z[2] + settings.forget_bias, z[3]};
    if (settings.has_peepholes) {
      zs[0] += settings.peepholes[1] * c;
      zs[1] += settings.peepholes[0] * c;
    }
    i = Sigmoid(zs[0]), j = settings.Active(z[1]), f = Sigmoid(zs[1]);
    unclipped = c * f + i * j;
    next_c = Clamp(unclipped, settings.cell_clip);
    if (settings.has_peepholes) zs[2] += settings.peepholes[2] * next_c;
    o = Sigmoid(zs[2]);
    active_c = settings.Active(next_c);
  }
  Vec i, j, f, o, unclipped, next_c, active_c;
};

inline Vec PullClamp(Vec cotangent, Vec x, float most) {
  cotangent = x > most ? Vec{} : cotangent;
  return x < -most ? Vec{} : cotangent;
}

struct PeepholeLstm : PlainLstm {
  // The cotangents of c and of the peepholes of f, i and o.
  static constexpr int kCarried = 4;

  static Vec Update(const Vec* z, Vec, float* c, const SettingsVec& settings) {
    const PeepholeGates gates(z, Load(c), settings);
    Store(c, gates.next_c);
    return gates.active_c * gates.o;
  }

  static void PullStep(const Vec* z, Vec c, Vec ct_h, float* carried,
                       const SettingsVec& settings, Vec* ct_zs) {
    PullGates({z, c, settings}, c, ct_h, carried, settings, ct_zs);
  }

  static void PullGates(const PeepholeGates& gates, Vec c, Vec ct_h, float* carried,
                        const SettingsVec& settings, Vec* ct_zs) {
    const Vec i = gates.i, j = gates.j, f = gates.f, o = gates.o, y = gates.active_c;
    ct_zs[3] = ct_h * y * o * (1 - o);
    Vec total = Load(carried) + settings.PullActive(ct_h * o, y);
    if (settings.has_peepholes) total += ct_zs[3] * settings.peepholes[2];
    total = PullClamp(total, gates.unclipped, settings.cell_clip);
    ct_zs[0] = total * j * i * (1 - i);
    ct_zs[1] = settings.PullActive(total * i, j);
    ct_zs[2] = total * c * f * (1 - f);
    Vec ct_c = total * f;
    if (settings.has_peepholes) {
      ct_c += ct_zs[2] * settings.peepholes[0] + ct_zs[0] * settings.peepholes[1];
      const Vec products[] = {ct_zs[2] * c, ct_zs[0] * c, ct_zs[3] * gates.next_c};
      for (int k = 0; k < 3; k++) {
        float* sum = carried + (k + 1) * kLanes;
        Store(sum, Load(sum) + products[k]);
      }
    }
    Store(carried, ct_c);
  }
};

// The first stage is a step of a PeepholeLstm. The second stage projects its output.
struct ProjectedLstm : PeepholeLstm {
  static Vec Operand(const Vec* z, Vec h, float* c, const SettingsVec& settings) {
    return PeepholeLstm::Update(z, h, c, settings);
  }
  static Vec Update(const Vec* z, Vec, float*, const SettingsVec& settings) {
    return Clamp(z[0], settings.output_clip);
  }
  static void PullStep(const Vec* z, Vec, Vec ct_h, float*, const SettingsVec& settings,
                       Vec* ct_zs) {
    ct_zs[0] = PullClamp(ct_h, z[0], settings.output_clip);
  }
  static Vec PullStage(const Vec* z, Vec c, Vec ct_operand, float* carried,
                       const SettingsVec& settings, Vec* ct_zs) {
    const PeepholeGates gates(z, c, settings);
    PullGates(gates, c, ct_operand, carried, settings, ct_zs);
    return gates.active_c * gates.o;
  }
};

struct Gru : ByUnit {
  // The forward loop carries the update gate. The backward loop carries the part of h's
  // cotangent that bypasses the products, and the cotangent of the update gate.
  static constexpr int kCarried = 2;

  static Vec Operand(const Vec* z, Vec h, float* carried, const SettingsVec&) {
    Store(carried, Sigmoid(z[1]));
    return Sigmoid(z[0]) * h;
  }

  static Vec Update(const Vec* z, Vec h, float* carried, const SettingsVec& settings) {
    const Vec u = Load(carried);
    return u * h + (1 - u) * settings.Active(z[0]);
  }

  static void PullStep(const Vec* z, Vec h, Vec ct_h, float* carried,
                       const SettingsVec& settings, Vec* ct_zs) {
    const Vec u = Sigmoid(z[1]), c = settings.Active(z[2]);
    Store(carried, ct_h * u);
    Store(carried + kLanes, ct_h * (h - c) * u * (1 - u));
    ct_zs[0] = settings.PullActive(ct_h * (1 - u), c);
  }

  static Vec PullStage(const Vec* z, Vec h, Vec ct_operand, float* carried,
                       const SettingsVec&, Vec* ct_zs) {
    const Vec r = Sigmoid(z[0]);
    Store(carried, Load(carried) + ct_operand * r);
    ct_zs[0] = ct_operand * h * r * (1 - r);
    ct_zs[1] = Load(carried + kLanes);
    return r * h;
  }
};

// The gates, in order: the candidate's product with the inputs, r, u, and the
// candidate's product with h.
struct CudnnGru : ByUnit {
  static constexpr int kCarried = 1;  // The part of ct_h that bypasses the products.

  static Vec Update(const Vec* z, Vec h, float*, const SettingsVec& settings) {
    const Vec r = Sigmoid(z[1]), u = Sigmoid(z[2]);
    return u * h + (1 - u) * settings.Active(z[0] + r * z[3]);
  }

  static void PullStep(const Vec* z, Vec h, Vec ct_h, float* carried,
                       const SettingsVec& settings, Vec* ct_zs) {
    const Vec r = Sigmoid(z[1]), u = Sigmoid(z[2]),
              c = settings.Active(z[0] + r * z[3]);
    Store(carried, ct_h * u);
    ct_zs[0] = settings.PullActive(ct_h * (1 - u), c);
    ct_zs[1] = ct_zs[0] * z[3] * r * (1 - r);
    ct_zs[2] = ct_h * (h - c) * u * (1 - u);
    ct_zs[3] = ct_zs[0] * r;
  }
};

struct Rnn : ByUnit {
  static constexpr int kCarried = 1;  // Always 0, because only the product uses h.

  static Vec Update(const Vec* z, Vec, float*, const SettingsVec& settings) {
    return settings.Active(z[0]);
  }

  static void PullStep(const Vec* z, Vec, Vec ct_h, float* carried,
                       const SettingsVec& settings, Vec* ct_zs) {
    const Vec h = settings.Active(z[0]);
    Store(carried, Vec{});
    ct_zs[0] = settings.PullActive(ct_h, h);
  }
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_CELLS_H_
