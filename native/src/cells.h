// The elementwise work of the cells and its derivative, for a vector of units.
//
// z are the products of a stage's gates; all stages' in PullStep. `carried` is memory
// that the loop keeps from phase to phase for the row and the vector.
//
// Operand: after the first of two stages, the operand of the second one's product.
// Update: after the last stage, the state h. An LSTM's carried is its c.
// PullStep: from the cotangent c_h of that state, the cotangents c_zs of the last
// stage's
//   products. An LSTM's carried is the cotangent of c.
// PullStage: from the cotangent of the second stage's operand, those of the first
// stage's.
#ifndef JAXRNN_CELLS_H_
#define JAXRNN_CELLS_H_

#include "simd.h"

namespace jaxrnn::JAXRNN_TARGET {

struct Lstm {
  static constexpr int kStages = 1, kGates[] = {4};
  static constexpr bool kHasC = true;

  static Vec Operand(const Vec*, Vec h, float*) { return h; }

  static Vec Update(const Vec* z, Vec, float* c, float forget_bias) {
    const Vec next = Load(c) * Sigmoid(z[2] + forget_bias) + Sigmoid(z[0]) * Tanh(z[1]);
    Store(c, next);
    return Tanh(next) * Sigmoid(z[3]);
  }

  static Vec PullStep(const Vec* z, Vec c, Vec c_h, float* c_c, float forget_bias,
                      Vec* c_zs) {
    const Vec i = Sigmoid(z[0]), j = Tanh(z[1]), f = Sigmoid(z[2] + forget_bias),
              o = Sigmoid(z[3]);
    const Vec tanh_c = Tanh(c * f + i * j);
    const Vec total = Load(c_c) + c_h * o * (1 - tanh_c * tanh_c);
    c_zs[0] = total * j * i * (1 - i);
    c_zs[1] = total * i * (1 - j * j);
    c_zs[2] = total * c * f * (1 - f);
    c_zs[3] = c_h * tanh_c * o * (1 - o);
    Store(c_c, total * f);
    return Vec{};
  }
  static void PullStage(Vec, Vec, Vec, float*, Vec*) {}
};

struct Gru {
  static constexpr int kStages = 2, kGates[] = {2, 1};
  static constexpr bool kHasC = false;

  // The reset state; keeps the update gate.
  static Vec Operand(const Vec* z, Vec h, float* carried) {
    Store(carried, Sigmoid(z[1]));
    return Sigmoid(z[0]) * h;
  }

  static Vec Update(const Vec* z, Vec h, float* carried, float) {
    const Vec u = Load(carried);
    return u * h + (1 - u) * Tanh(z[0]);
  }

  // Keeps the cotangents of the state, as far as it goes past the products, and of the
  // update gate's product. Returns the operand.
  static Vec PullStep(const Vec* z, Vec h, Vec c_h, float* carried, float, Vec* c_zs) {
    const Vec r = Sigmoid(z[0]), u = Sigmoid(z[1]), c = Tanh(z[2]);
    Store(carried, c_h * u);
    Store(carried + kLanes, c_h * (h - c) * u * (1 - u));
    c_zs[0] = c_h * (1 - u) * (1 - c * c);
    return r * h;
  }

  static void PullStage(Vec z, Vec h, Vec c_operand, float* carried, Vec* c_zs) {
    const Vec r = Sigmoid(z);
    Store(carried, Load(carried) + c_operand * r);
    c_zs[0] = c_operand * h * r * (1 - r);
    c_zs[1] = Load(carried + kLanes);
  }
};

struct Rnn {
  static constexpr int kStages = 1, kGates[] = {1};
  static constexpr bool kHasC = false;

  static Vec Operand(const Vec*, Vec h, float*) { return h; }
  static Vec Update(const Vec* z, Vec, float*, float) { return Tanh(z[0]); }

  static Vec PullStep(const Vec* z, Vec, Vec c_h, float* carried, float, Vec* c_zs) {
    const Vec h = Tanh(z[0]);
    Store(carried, Vec{});
    c_zs[0] = c_h * (1 - h * h);
    return Vec{};
  }
  static void PullStage(Vec, Vec, Vec, float*, Vec*) {}
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_CELLS_H_
