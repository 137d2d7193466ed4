// The loops, plainly: a row at a time, a step at a time, in double precision.
#ifndef JAXRNN_NAIVE_LOOPS_H_
#define JAXRNN_NAIVE_LOOPS_H_

#include <algorithm>
#include <cmath>
#include <vector>

#include "loops.h"

namespace jaxrnn::naive {

using Real = double;
using Vector = std::vector<Real>;

inline Real Sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }

inline Vector Load(const float* values, int64_t index, int64_t size) {
  if (values == nullptr) return Vector(size);
  return Vector(values + index * size, values + (index + 1) * size);
}

inline void Store(const Vector& vector, float* values, int64_t index) {
  if (values == nullptr) return;
  std::copy(vector.begin(), vector.end(), values + index * vector.size());
}

inline void Add(const Vector& vector, float* values, int64_t index) {
  if (values == nullptr) return;
  for (size_t k = 0; k < vector.size(); k++)
    values[index * vector.size() + k] += vector[k];
}

// z += operand w, w [operand.size(), z.size()].
inline void AddProduct(const Vector& operand, const float* w, Vector& z) {
  for (size_t i = 0; i < operand.size(); i++)
    for (size_t j = 0; j < z.size(); j++) z[j] += operand[i] * w[i * z.size() + j];
}

// c_operand += c_z w^T.
inline void AddTransposed(const Vector& c_z, const float* w, Vector& c_operand) {
  for (size_t i = 0; i < c_operand.size(); i++)
    for (size_t j = 0; j < c_z.size(); j++)
      c_operand[i] += c_z[j] * w[i * c_z.size() + j];
}

// c_w += operand^T c_z, c_w [operand.size(), c_z.size()].
inline void AddOuter(const Vector& operand, const Vector& c_z, Vector& c_w) {
  for (size_t i = 0; i < operand.size(); i++)
    for (size_t j = 0; j < c_z.size(); j++)
      c_w[i * c_z.size() + j] += operand[i] * c_z[j];
}

inline int64_t Length(const Sizes& sizes, const int32_t* lengths, int64_t row) {
  return std::clamp<int64_t>(lengths[row], 0, sizes.time);
}

// The sequence that starts at a step, or -1.
inline int64_t Start(const int32_t* starts, int64_t at) {
  return starts == nullptr ? -1 : starts[at];
}

struct State {
  Vector h, c;
};

inline Vector ForwardStage(const Forward& call, int stage, const Vector& x,
                           const Vector& operand) {
  Vector z = Load(call.bias[stage], 0, Gates(call.cell, stage) * call.sizes.units);
  AddProduct(x, call.w_inputs[stage], z);
  AddProduct(operand, call.w_state[stage], z);
  return z;
}

// One step of a row: changes the state, returns the products.
inline std::vector<Vector> ForwardStep(const Forward& call, const Vector& x,
                                       State& state) {
  int64_t n = call.sizes.units;
  Vector& h = state.h;
  std::vector<Vector> zs = {ForwardStage(call, 0, x, h)};
  const Vector& z = zs[0];
  if (call.cell == Cell::kLstm) {
    for (int64_t k = 0; k < n; k++) {
      Real i = Sigmoid(z[k]), j = std::tanh(z[n + k]);
      Real f = Sigmoid(z[2 * n + k] + call.forget_bias), o = Sigmoid(z[3 * n + k]);
      state.c[k] = state.c[k] * f + i * j;
      h[k] = std::tanh(state.c[k]) * o;
    }
  } else if (call.cell == Cell::kGru) {
    Vector operand(n);
    for (int64_t k = 0; k < n; k++) operand[k] = Sigmoid(z[k]) * h[k];
    Vector candidate = ForwardStage(call, 1, x, operand);
    for (int64_t k = 0; k < n; k++) {
      Real u = Sigmoid(z[n + k]);
      h[k] = u * h[k] + (1 - u) * std::tanh(candidate[k]);
    }
    zs.push_back(candidate);
  } else {
    for (int64_t k = 0; k < n; k++) h[k] = std::tanh(z[k]);
  }
  return zs;
}

inline void ForwardRow(const Forward& call, int64_t row) {
  const Sizes& sizes = call.sizes;
  int64_t n = sizes.units, length = Length(sizes, call.lengths, row);
  State state = {Load(call.h, row, n), Load(call.c, row, n)};
  for (int64_t t = 0; t < sizes.time; t++) {
    int64_t at = sizes.At(row, t), start = Start(call.starts, at);
    bool alive = t < length;
    if (alive && start >= 0)
      state = {Load(call.restart_h, start, n), Load(call.restart_c, start, n)};
    Store(alive ? state.h : Vector(n), call.saved_h, at);
    Store(alive ? state.c : Vector(n), call.saved_c, at);
    std::vector<Vector> zs;
    if (alive) zs = ForwardStep(call, Load(call.x, at, sizes.depth), state);
    for (int s = 0; s < Stages(call.cell); s++)
      Store(alive ? zs[s] : Vector(Gates(call.cell, s) * n), call.zs[s], at);
    Store(alive ? state.h : Vector(n), call.outputs, at);
    Store(alive ? state.c : Vector(n), call.new_c, at);
  }
  Store(state.h, call.last_h, row);
  Store(state.c, call.last_c, row);
}

// What a step of the backward loop computes beside the cotangent of the state.
struct StepCotangents {
  std::vector<Vector> zs;
  Vector operand;
};

inline void BackwardLstm(const Backward& call, int64_t at, State& c_state,
                         StepCotangents& step) {
  int64_t n = call.sizes.units;
  Vector z = Load(call.zs[0], at, 4 * n), c = Load(call.saved_c, at, n);
  for (int64_t k = 0; k < n; k++) {
    Real i = Sigmoid(z[k]), j = std::tanh(z[n + k]);
    Real f = Sigmoid(z[2 * n + k] + call.forget_bias), o = Sigmoid(z[3 * n + k]);
    Real y = std::tanh(c[k] * f + i * j), c_h = c_state.h[k];
    Real c_c = c_state.c[k] + c_h * o * (1 - y * y);
    step.zs[0][k] = c_c * j * i * (1 - i);
    step.zs[0][n + k] = c_c * i * (1 - j * j);
    step.zs[0][2 * n + k] = c_c * c[k] * f * (1 - f);
    step.zs[0][3 * n + k] = c_h * y * o * (1 - o);
    c_state.c[k] = c_c * f;
  }
  c_state.h = Vector(n);
  AddTransposed(step.zs[0], call.w_state[0], c_state.h);
}

inline void BackwardGru(const Backward& call, int64_t at, State& c_state,
                        StepCotangents& step) {
  int64_t n = call.sizes.units;
  Vector z = Load(call.zs[0], at, 2 * n), candidate = Load(call.zs[1], at, n);
  Vector h = Load(call.saved_h, at, n), c_operand(n);
  for (int64_t k = 0; k < n; k++) {
    Real u = Sigmoid(z[n + k]), y = std::tanh(candidate[k]), c_h = c_state.h[k];
    step.zs[0][n + k] = c_h * (h[k] - y) * u * (1 - u);
    step.zs[1][k] = c_h * (1 - u) * (1 - y * y);
    c_state.h[k] = c_h * u;
  }
  AddTransposed(step.zs[1], call.w_state[1], c_operand);
  for (int64_t k = 0; k < n; k++) {
    Real r = Sigmoid(z[k]);
    step.operand[k] = r * h[k];
    step.zs[0][k] = c_operand[k] * h[k] * r * (1 - r);
    c_state.h[k] += c_operand[k] * r;
  }
  AddTransposed(step.zs[0], call.w_state[0], c_state.h);
}

inline void BackwardRnn(const Backward& call, int64_t at, State& c_state,
                        StepCotangents& step) {
  int64_t n = call.sizes.units;
  Vector z = Load(call.zs[0], at, n);
  for (int64_t k = 0; k < n; k++) {
    Real y = std::tanh(z[k]);
    step.zs[0][k] = c_state.h[k] * (1 - y * y);
  }
  c_state.h = Vector(n);
  AddTransposed(step.zs[0], call.w_state[0], c_state.h);
}

inline void BackwardStep(const Backward& call, int64_t at, State& c_state,
                         StepCotangents& step) {
  int64_t n = call.sizes.units;
  Vector c_output = Load(call.c_outputs, at, n), c_new_c = Load(call.c_new_c, at, n);
  for (int64_t k = 0; k < n; k++) {
    c_state.h[k] += c_output[k];
    c_state.c[k] += c_new_c[k];
  }
  if (call.cell == Cell::kLstm) return BackwardLstm(call, at, c_state, step);
  if (call.cell == Cell::kGru) return BackwardGru(call, at, c_state, step);
  BackwardRnn(call, at, c_state, step);
}

inline void BackwardRow(const Backward& call, int64_t row) {
  const Sizes& sizes = call.sizes;
  int64_t n = sizes.units, length = Length(sizes, call.lengths, row);
  State c_state = {Load(call.c_last_h, row, n), Load(call.c_last_c, row, n)};
  for (int64_t t = sizes.time - 1; t >= 0; t--) {
    int64_t at = sizes.At(row, t), start = Start(call.starts, at);
    StepCotangents step = {{}, Vector(n)};
    for (int s = 0; s < Stages(call.cell); s++)
      step.zs.emplace_back(Gates(call.cell, s) * n);
    if (t < length) {
      BackwardStep(call, at, c_state, step);
      if (start >= 0) {
        Add(c_state.h, call.c_restart_h, start);
        Add(c_state.c, call.c_restart_c, start);
        c_state = {Vector(n), Vector(n)};
      }
    }
    for (int s = 0; s < Stages(call.cell); s++) Store(step.zs[s], call.c_zs[s], at);
    Store(step.operand, call.operand, at);
  }
  Store(c_state.h, call.c_h, row);
  Store(c_state.c, call.c_c, row);
}

inline void RunForward(const Forward& call) {
  for (int64_t row = 0; row < call.sizes.batch; row++) ForwardRow(call, row);
}

inline void RunBackward(const Backward& call) {
  int64_t size = call.sizes.sequences * call.sizes.units;
  for (float* c_restart : {call.c_restart_h, call.c_restart_c})
    if (c_restart != nullptr) std::fill_n(c_restart, size, 0.0f);
  for (int64_t row = 0; row < call.sizes.batch; row++) BackwardRow(call, row);
}

inline void RunWeights(const Weights& call) {
  const Sizes& sizes = call.sizes;
  Vector one(1, 1.0), c_w_inputs(sizes.depth * call.columns);
  Vector c_w_state(sizes.units * call.columns), c_bias(call.columns);
  for (int64_t row = 0; row < sizes.batch; row++) {
    for (int64_t t = 0; t < Length(sizes, call.lengths, row); t++) {
      int64_t at = sizes.At(row, t);
      Vector c_z = Load(call.c_zs, at, call.columns);
      AddOuter(Load(call.x, at, sizes.depth), c_z, c_w_inputs);
      AddOuter(Load(call.operand, at, sizes.units), c_z, c_w_state);
      AddOuter(one, c_z, c_bias);
    }
  }
  Store(c_w_inputs, call.c_w_inputs, 0);
  Store(c_w_state, call.c_w_state, 0);
  Store(c_bias, call.c_bias, 0);
}

inline void RunInputs(const Inputs& call) {
  const Sizes& sizes = call.sizes;
  for (int64_t row = 0; row < sizes.batch; row++) {
    for (int64_t t = 0; t < sizes.time; t++) {
      int64_t at = sizes.At(row, t);
      Vector c_x(sizes.depth);
      bool alive = t < Length(sizes, call.lengths, row);
      for (int s = 0; alive && s < call.stages; s++)
        AddTransposed(Load(call.c_zs[s], at, call.columns[s]), call.w_inputs[s], c_x);
      Store(c_x, call.c_x, at);
    }
  }
}

}  // namespace jaxrnn::naive

#endif  // JAXRNN_NAIVE_LOOPS_H_
