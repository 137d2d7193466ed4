// Plain loops in double precision, which run one step of one row at a time.
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

// z += operand * w, where w is [operand.size(), z.size()].
inline void AddProduct(const Vector& operand, const float* w, Vector& z) {
  for (size_t i = 0; i < operand.size(); i++)
    for (size_t j = 0; j < z.size(); j++) z[j] += operand[i] * w[i * z.size() + j];
}

// ct_operand += ct_z * w^T.
inline void AddTransposed(const Vector& ct_z, const float* w, Vector& ct_operand) {
  for (size_t i = 0; i < ct_operand.size(); i++)
    for (size_t j = 0; j < ct_z.size(); j++)
      ct_operand[i] += ct_z[j] * w[i * ct_z.size() + j];
}

// ct_w += operand^T * ct_z, where ct_w is [operand.size(), ct_z.size()].
inline void AddOuter(const Vector& operand, const Vector& ct_z, Vector& ct_w) {
  for (size_t i = 0; i < operand.size(); i++)
    for (size_t j = 0; j < ct_z.size(); j++)
      ct_w[i * ct_z.size() + j] += operand[i] * ct_z[j];
}

// Whether a row gets its reset state before a step.
inline bool Resets(const int32_t* resets, int64_t at) {
  return resets != nullptr && resets[at] != 0;
}

// The rows of product k's kernel that multiply the operand.
template <typename Entry>
const float* StateRows(const Entry& entry, int k) {
  const Sizes& sizes = entry.sizes;
  return entry.kernel[k] +
         sizes.InputRows(entry.cell, k) * sizes.Columns(entry.cell, k);
}

struct State {
  Vector h, c;
};

inline Vector ForwardProduct(const Forward& entry, int k, const Vector& x,
                             const Vector& operand) {
  Vector z = Load(entry.bias[k], 0, entry.sizes.Columns(entry.cell, k));
  const Product product = ProductOf(entry.cell, k);
  if (product.inputs) AddProduct(x, entry.kernel[k], z);
  if (product.state) AddProduct(operand, StateRows(entry, k), z);
  return z;
}

inline Real Clip(Real x, float bound) {
  return std::min<Real>(std::max<Real>(x, -bound), bound);
}

inline Real Active(const Settings& settings, Real x) {
  if (settings.activation == Activation::kTanh) return std::tanh(x);
  if (settings.activation == Activation::kSigmoid) return Sigmoid(x);
  return x < 0 ? 0 : x;
}
// The cotangent of the argument, given the result y and its cotangent.
inline Real PullActive(const Settings& settings, Real ct_y, Real y) {
  if (settings.activation == Activation::kTanh) return ct_y * (1 - y * y);
  if (settings.activation == Activation::kSigmoid) return ct_y * y * (1 - y);
  return y > 0 ? ct_y : 0;
}

// The gates of an LSTM for one unit. p holds the unit's peepholes of f, i and o.
struct LstmGates {
  LstmGates(const Settings& settings, const Vector& z, Real c, int64_t n, int64_t k) {
    for (int g = 0; settings.elementwise != nullptr && g < 3; g++)
      p[g] = settings.elementwise[g * n + k];
    f = Sigmoid(z[2 * n + k] + settings.forget_bias + p[0] * c);
    i = Sigmoid(z[k] + p[1] * c);
    j = Active(settings, z[n + k]);
    unclipped = c * f + i * j;
    next_c = Clip(unclipped, settings.cell_clip);
    o = Sigmoid(z[3 * n + k] + p[2] * next_c);
    y = Active(settings, next_c);
  }
  Real p[3] = {}, f, i, j, o, unclipped, next_c, y;
};

// Layer normalization number `p`, in the order f, i, o, c, j.
struct Norm {
  Norm(const Settings& settings, int p, const Real* x, int64_t n)
      : shift(settings.elementwise + 2 * p * n), gain(shift + n), normal(x, x + n) {
    Real mean = 0, variance = 0;
    for (Real value : normal) mean += value / n;
    for (Real& value : normal) value -= mean;
    for (Real value : normal) variance += value * value / n;
    scale = 1 / std::sqrt(variance + 1e-12);
    for (Real& value : normal) value *= scale;
  }
  Real operator[](int64_t k) const { return normal[k] * gain[k] + shift[k]; }

  // Returns the cotangents of the arguments, given the cotangents c of the results.
  // Adds the cotangents of the shift and the gain to `sums`.
  Vector Pull(int p, const Vector& c, Vector& sums) const {
    const int64_t n = c.size();
    Vector ct_x(n);
    for (int64_t k = 0; k < n; k++) {
      sums[2 * p * n + k] += c[k];
      sums[(2 * p + 1) * n + k] += c[k] * normal[k];
      // d normal[l] / d x[k] = scale * ((l == k) - (1 + normal[k] normal[l]) / n)
      for (int64_t l = 0; l < n; l++)
        ct_x[k] +=
            c[l] * gain[l] * scale * ((l == k) - (1 + normal[k] * normal[l]) / Real(n));
    }
    return ct_x;
  }

  const float *shift, *gain;
  Vector normal;
  Real scale;
};

// The gates of a normed LSTM, and the values computed from them.
struct NormedGates {
  NormedGates(const Settings& settings, const Vector& z, const Vector& c)
      : n(c.size()),
        norm_i(settings, 1, &z[0], n),
        norm_j(settings, 4, &z[n], n),
        norm_f(settings, 0, &z[2 * n], n),
        norm_o(settings, 2, &z[3 * n], n) {
    Vector unnormed(n);
    for (int64_t k = 0; k < n; k++) {
      i.push_back(Sigmoid(norm_i[k])), j.push_back(Active(settings, norm_j[k]));
      f.push_back(Sigmoid(norm_f[k] + settings.forget_bias));
      o.push_back(Sigmoid(norm_o[k]));
      unnormed[k] = c[k] * f[k] + i[k] * j[k];
    }
    norm_c.emplace_back(settings, 3, unnormed.data(), n);
    for (int64_t k = 0; k < n; k++) {
      next_c.push_back(norm_c[0][k]);
      y.push_back(Active(settings, next_c[k]));
    }
  }

  int64_t n;
  Norm norm_i, norm_j, norm_f, norm_o;
  Vector i, j, f, o, next_c, y;
  std::vector<Norm> norm_c;
};

// Runs one step of a row. Updates the state and returns the products.
inline std::vector<Vector> ForwardStep(const Forward& entry, const Vector& x,
                                       State& state) {
  int64_t n = entry.sizes.units;
  Vector &h = state.h, operand(n);
  std::vector<Vector> zs = {ForwardProduct(entry, 0, x, h)};
  const Vector z = zs[0];
  if (entry.cell == Cell::kNormedLstm) {
    const NormedGates gates(entry.settings, z, state.c);
    state.c = gates.next_c;
    for (int64_t k = 0; k < n; k++) h[k] = gates.y[k] * gates.o[k];
  } else if (HasC(entry.cell)) {
    for (int64_t k = 0; k < n; k++) {
      LstmGates gates(entry.settings, z, state.c[k], n, k);
      state.c[k] = gates.next_c;
      operand[k] = gates.y * gates.o;
    }
    h = operand;
    if (entry.cell == Cell::kProjectedLstm) {
      h = ForwardProduct(entry, 1, x, operand);
      zs.push_back(h);
      for (Real& value : h) value = Clip(value, entry.settings.output_clip);
    }
  } else if (entry.cell == Cell::kGru) {
    for (int64_t k = 0; k < n; k++) operand[k] = Sigmoid(z[k]) * h[k];
    zs.push_back(ForwardProduct(entry, 1, x, operand));
    for (int64_t k = 0; k < n; k++) {
      Real u = Sigmoid(z[n + k]);
      h[k] = u * h[k] + (1 - u) * Active(entry.settings, zs[1][k]);
    }
  } else if (entry.cell == Cell::kCudnnGru) {
    for (int p : {1, 2}) zs.push_back(ForwardProduct(entry, p, x, h));
    for (int64_t k = 0; k < n; k++) {
      Real r = Sigmoid(z[k]), u = Sigmoid(z[n + k]);
      h[k] = u * h[k] + (1 - u) * Active(entry.settings, zs[1][k] + r * zs[2][k]);
    }
  } else {
    for (int64_t k = 0; k < n; k++) h[k] = Active(entry.settings, z[k]);
  }
  return zs;
}

inline void ForwardRow(const Forward& entry, int64_t row) {
  const Sizes& sizes = entry.sizes;
  int64_t n = sizes.units, m = sizes.outputs;
  State state = {Load(entry.h, row, m), Load(entry.c, row, n)};
  for (int64_t t = 0; t < sizes.time; t++) {
    int64_t at = sizes.At(row, t);
    bool alive = t < entry.lengths[row];
    if (alive && Resets(entry.resets, at))
      state = {Load(entry.reset_h, row, m), Load(entry.reset_c, row, n)};
    Store(alive ? state.h : Vector(m), entry.saved_h, at);
    Store(alive ? state.c : Vector(n), entry.saved_c, at);
    std::vector<Vector> zs;
    if (alive) zs = ForwardStep(entry, Load(entry.x, at, sizes.depth), state);
    for (int k = 0; k < Products(entry.cell); k++)
      Store(alive ? zs[k] : Vector(sizes.Columns(entry.cell, k)), entry.zs[k], at);
    Store(alive ? state.h : Vector(m), entry.outputs, at);
    Store(alive ? state.c : Vector(n), entry.new_c, at);
  }
  Store(state.h, entry.last_h, row);
  Store(state.c, entry.last_c, row);
}

// The values of a sequence at the step before position `at`. If `at` is the first step,
// the row's values in `first`.
inline Vector Before(const Sizes& sizes, int64_t at, int64_t size,
                     const float* sequence, const float* first) {
  for (int64_t row = 0; row < sizes.batch; row++) {
    for (int64_t t = 1; t < sizes.time; t++)
      if (sizes.At(row, t) == at) return Load(sequence, sizes.At(row, t - 1), size);
    if (sizes.At(row, 0) == at) return Load(first, row, size);
  }
  return {};
}

inline Vector HBefore(const Backward& entry, int64_t at) {
  const int64_t m = entry.sizes.outputs;
  if (entry.saved_h) return Load(entry.saved_h, at, m);
  return Before(entry.sizes, at, m, entry.outputs, entry.h);
}

// The results of a backward step, except the cotangent of the state. The cotangents of
// the element-wise parameters are summed over steps.
struct StepCotangents {
  std::vector<Vector> zs;
  Vector operand, elementwise;
};

inline void BackwardLstm(const Backward& entry, int64_t at, State& ct_state,
                         StepCotangents& step) {
  const Settings& settings = entry.settings;
  int64_t n = entry.sizes.units, m = entry.sizes.outputs;
  Vector z = Load(entry.zs[0], at, 4 * n), c = Load(entry.saved_c, at, n);
  Vector ct_operand = ct_state.h;
  if (entry.cell == Cell::kProjectedLstm) {
    Vector projected = Load(entry.zs[1], at, m);
    for (int64_t k = 0; k < m; k++)
      step.zs[1][k] = std::abs(projected[k]) > settings.output_clip ? 0 : ct_state.h[k];
    ct_operand = Vector(n);
    AddTransposed(step.zs[1], StateRows(entry, 1), ct_operand);
  }
  for (int64_t k = 0; k < n; k++) {
    LstmGates g(settings, z, c[k], n, k);
    Real ct_o = ct_operand[k] * g.y * g.o * (1 - g.o);
    Real ct_c = ct_state.c[k] + PullActive(entry.settings, ct_operand[k] * g.o, g.y) +
                ct_o * g.p[2];
    if (std::abs(g.unclipped) > settings.cell_clip) ct_c = 0;
    Real ct_i = ct_c * g.j * g.i * (1 - g.i), ct_f = ct_c * c[k] * g.f * (1 - g.f);
    step.zs[0][k] = ct_i;
    step.zs[0][n + k] = PullActive(entry.settings, ct_c * g.i, g.j);
    step.zs[0][2 * n + k] = ct_f;
    step.zs[0][3 * n + k] = ct_o;
    step.operand[k] = g.y * g.o;
    ct_state.c[k] = ct_c * g.f + ct_f * g.p[0] + ct_i * g.p[1];
    if (settings.elementwise == nullptr) continue;
    step.elementwise[k] += ct_f * c[k];
    step.elementwise[n + k] += ct_i * c[k];
    step.elementwise[2 * n + k] += ct_o * g.next_c;
  }
  ct_state.h = Vector(m);
  AddTransposed(step.zs[0], StateRows(entry, 0), ct_state.h);
}

inline void BackwardNormedLstm(const Backward& entry, int64_t at, State& ct_state,
                               StepCotangents& step) {
  int64_t n = entry.sizes.units;
  const Vector c = Load(entry.saved_c, at, n);
  const NormedGates g(entry.settings, Load(entry.zs[0], at, 4 * n), c);
  Vector ct_i(n), ct_j(n), ct_f(n), ct_o(n), ct_c = ct_state.c,
                                             &sums = step.elementwise;
  for (int64_t k = 0; k < n; k++) {
    ct_o[k] = ct_state.h[k] * g.y[k] * g.o[k] * (1 - g.o[k]);
    ct_c[k] += PullActive(entry.settings, ct_state.h[k] * g.o[k], g.y[k]);
  }
  ct_c = g.norm_c[0].Pull(3, ct_c, sums);
  for (int64_t k = 0; k < n; k++) {
    ct_i[k] = ct_c[k] * g.j[k] * g.i[k] * (1 - g.i[k]);
    ct_j[k] = PullActive(entry.settings, ct_c[k] * g.i[k], g.j[k]);
    ct_f[k] = ct_c[k] * c[k] * g.f[k] * (1 - g.f[k]);
    ct_state.c[k] = ct_c[k] * g.f[k];
  }
  step.zs[0].clear();
  for (const Vector& ct_z :
       {g.norm_i.Pull(1, ct_i, sums), g.norm_j.Pull(4, ct_j, sums),
        g.norm_f.Pull(0, ct_f, sums), g.norm_o.Pull(2, ct_o, sums)})
    step.zs[0].insert(step.zs[0].end(), ct_z.begin(), ct_z.end());
  ct_state.h = Vector(n);
  AddTransposed(step.zs[0], StateRows(entry, 0), ct_state.h);
}

inline void BackwardGru(const Backward& entry, int64_t at, State& ct_state,
                        StepCotangents& step) {
  int64_t n = entry.sizes.units;
  Vector z = Load(entry.zs[0], at, 2 * n), candidate = Load(entry.zs[1], at, n);
  Vector h = HBefore(entry, at), ct_operand(n);
  for (int64_t k = 0; k < n; k++) {
    Real u = Sigmoid(z[n + k]), y = Active(entry.settings, candidate[k]),
         ct_h = ct_state.h[k];
    step.zs[0][n + k] = ct_h * (h[k] - y) * u * (1 - u);
    step.zs[1][k] = PullActive(entry.settings, ct_h * (1 - u), y);
    ct_state.h[k] = ct_h * u;
  }
  AddTransposed(step.zs[1], StateRows(entry, 1), ct_operand);
  for (int64_t k = 0; k < n; k++) {
    Real r = Sigmoid(z[k]);
    step.operand[k] = r * h[k];
    step.zs[0][k] = ct_operand[k] * h[k] * r * (1 - r);
    ct_state.h[k] += ct_operand[k] * r;
  }
  AddTransposed(step.zs[0], StateRows(entry, 0), ct_state.h);
}

inline void BackwardCudnnGru(const Backward& entry, int64_t at, State& ct_state,
                             StepCotangents& step) {
  int64_t n = entry.sizes.units;
  Vector z = Load(entry.zs[0], at, 2 * n), of_x = Load(entry.zs[1], at, n);
  Vector of_h = Load(entry.zs[2], at, n), h = HBefore(entry, at);
  for (int64_t k = 0; k < n; k++) {
    Real r = Sigmoid(z[k]), u = Sigmoid(z[n + k]), ct_h = ct_state.h[k];
    Real y = Active(entry.settings, of_x[k] + r * of_h[k]),
         ct_y = PullActive(entry.settings, ct_h * (1 - u), y);
    step.zs[0][k] = ct_y * of_h[k] * r * (1 - r);
    step.zs[0][n + k] = ct_h * (h[k] - y) * u * (1 - u);
    step.zs[1][k] = ct_y;
    step.zs[2][k] = ct_y * r;
    ct_state.h[k] = ct_h * u;
  }
  for (int p : {0, 2}) AddTransposed(step.zs[p], StateRows(entry, p), ct_state.h);
}

inline void BackwardRnn(const Backward& entry, int64_t at, State& ct_state,
                        StepCotangents& step) {
  int64_t n = entry.sizes.units;
  Vector z = Load(entry.zs[0], at, n);
  for (int64_t k = 0; k < n; k++) {
    Real y = Active(entry.settings, z[k]);
    step.zs[0][k] = PullActive(entry.settings, ct_state.h[k], y);
  }
  ct_state.h = Vector(n);
  AddTransposed(step.zs[0], StateRows(entry, 0), ct_state.h);
}

inline void BackwardStep(const Backward& entry, int64_t at, State& ct_state,
                         StepCotangents& step) {
  Vector ct_output = Load(entry.ct_outputs, at, entry.sizes.outputs);
  Vector ct_new_c = Load(entry.ct_new_c, at, entry.sizes.units);
  for (size_t k = 0; k < ct_output.size(); k++) ct_state.h[k] += ct_output[k];
  for (size_t k = 0; k < ct_new_c.size(); k++) ct_state.c[k] += ct_new_c[k];
  if (entry.cell == Cell::kNormedLstm)
    return BackwardNormedLstm(entry, at, ct_state, step);
  if (HasC(entry.cell)) return BackwardLstm(entry, at, ct_state, step);
  if (entry.cell == Cell::kGru) return BackwardGru(entry, at, ct_state, step);
  if (entry.cell == Cell::kCudnnGru) return BackwardCudnnGru(entry, at, ct_state, step);
  BackwardRnn(entry, at, ct_state, step);
}

inline void BackwardRow(const Backward& entry, int64_t row) {
  const Sizes& sizes = entry.sizes;
  int64_t n = sizes.units, m = sizes.outputs;
  State ct_state = {Load(entry.ct_last_h, row, m), Load(entry.ct_last_c, row, n)};
  StepCotangents step = {{}, Vector(n), Vector(ElementwiseVectors(entry.cell) * n)};
  for (int64_t t = sizes.time - 1; t >= 0; t--) {
    int64_t at = sizes.At(row, t);
    step.zs.clear(), step.operand = Vector(n);
    for (int k = 0; k < Products(entry.cell); k++)
      step.zs.emplace_back(sizes.Columns(entry.cell, k));
    if (t < entry.lengths[row]) {
      BackwardStep(entry, at, ct_state, step);
      if (Resets(entry.resets, at)) {
        Add(ct_state.h, entry.ct_reset_h, row);
        Add(ct_state.c, entry.ct_reset_c, row);
        ct_state = {Vector(m), Vector(n)};
      }
      for (int k = 0; k < Products(entry.cell); k++)
        Store(step.zs[k], entry.ct_zs[k], at);
    }
    Store(step.operand, entry.operand, at);
  }
  Store(ct_state.h, entry.ct_h, row);
  Store(ct_state.c, entry.ct_c, row);
  Store(step.elementwise, entry.ct_elementwise, row);
}

inline void RunForward(const Forward& entry) {
  for (int64_t row = 0; row < entry.sizes.batch; row++) ForwardRow(entry, row);
}

inline void RunBackward(const Backward& entry) {
  const Sizes& sizes = entry.sizes;
  if (entry.ct_reset_h)
    std::fill_n(entry.ct_reset_h, sizes.batch * sizes.outputs, 0.0f);
  if (entry.ct_reset_c)
    std::fill_n(entry.ct_reset_c, sizes.batch * sizes.units, 0.0f);
  for (int64_t row = 0; row < entry.sizes.batch; row++) BackwardRow(entry, row);
}

inline void RunWeights(const Weights& entry) {
  const Sizes& sizes = entry.sizes;
  Vector one(1, 1.0), ct_w_inputs(sizes.depth * entry.columns);
  Vector ct_w_state(sizes.units * entry.columns), ct_bias(entry.columns);
  for (int64_t row = 0; row < sizes.batch; row++) {
    for (int64_t t = 0; t < entry.lengths[row]; t++) {
      int64_t at = sizes.At(row, t);
      Vector ct_z = Load(entry.ct_zs, at, entry.columns);
      AddOuter(Load(entry.x, at, sizes.depth), ct_z, ct_w_inputs);
      Vector operand =
          entry.first ? Before(sizes, at, sizes.units, entry.operand, entry.first)
                      : Load(entry.operand, at, sizes.units);
      AddOuter(operand, ct_z, ct_w_state);
      AddOuter(one, ct_z, ct_bias);
    }
  }
  ct_w_inputs.insert(ct_w_inputs.end(), ct_w_state.begin(), ct_w_state.end());
  Store(ct_w_inputs, entry.ct_kernel, 0);
  Store(ct_bias, entry.ct_bias, 0);
}

inline void RunInputs(const Inputs& entry) {
  const Sizes& sizes = entry.sizes;
  for (int64_t row = 0; row < sizes.batch; row++) {
    for (int64_t t = 0; t < sizes.time; t++) {
      int64_t at = sizes.At(row, t);
      Vector ct_x(sizes.depth);
      bool alive = t < entry.lengths[row];
      for (int s = 0; alive && s < entry.products; s++)
        AddTransposed(Load(entry.ct_zs[s], at, entry.columns[s]), entry.kernel[s],
                      ct_x);
      Store(ct_x, entry.ct_x, at);
    }
  }
}

}  // namespace jaxrnn::naive

#endif  // JAXRNN_NAIVE_LOOPS_H_
