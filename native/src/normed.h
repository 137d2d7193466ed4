// The LSTM with layer normalization. It normalizes each of the gates i, j, f and o and
// the new c over the units of a row, so the work for one unit needs all other units.
#ifndef JAXRNN_NORMED_H_
#define JAXRNN_NORMED_H_

#include <cmath>
#include <cstdint>

#include "buffers.h"
#include "cells.h"
#include "loops.h"
#include "simd.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

inline float Sum(Vec x) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; lane++) sum += x[lane];
  return sum;
}

// The element-wise work of one step of a row, and its derivative. Each array holds all
// units. The lanes after the last unit have undefined values.
class NormedRow {
 public:
  NormedRow(const Settings& settings, int64_t units)
      : settings_{settings, false, {}},
        units_(units),
        padded_(Padded(units)),
        memory_(Allocate(kArrays * padded_)) {
    for (int k = 0; k < kNorms; k++) {
      const float* shift = settings.elementwise + 2 * kPlaces[k] * units;
      for (int64_t v = 0; v * kLanes < units; v++) {
        const int valid = Valid(units, v);
        Store(Array(kShifts + k) + v * kLanes, Load(shift + v * kLanes, valid));
        Store(Array(kGains + k) + v * kLanes, Load(shift + units + v * kLanes, valid));
      }
    }
  }

  // The inputs of Step: the gates, which Step normalizes in place, and c before the
  // step.
  float* z(int gate) { return Array(gate); }
  float* c() { return Array(kC); }
  // The results of Step.
  const float* next_c() { return Array(kNextC); }
  const float* h() { return Array(kH); }

  void Step() {
    for (int g = 0; g < kNewC; g++) Normalize(g);
    for (int64_t k = 0; k < padded_; k += kLanes) {
      const Vec i = Sigmoid(Scaled(0, k)), j = settings_.Active(Scaled(1, k));
      const Vec f = Sigmoid(Scaled(2, k) + settings_.forget_bias),
                o = Sigmoid(Scaled(3, k));
      const Vec gates[] = {i, j, f, o};
      for (int g = 0; g < kNewC; g++) Store(Array(kGates + g) + k, gates[g]);
      Store(Array(kNewC) + k, Load(c() + k) * f + i * j);
    }
    Normalize(kNewC);
    for (int64_t k = 0; k < padded_; k += kLanes) {
      const Vec next_c = Scaled(kNewC, k);
      Store(Array(kNextC) + k, next_c);
      Store(Array(kH) + k, settings_.Active(next_c) * Load(Array(kGates + 3) + k));
    }
  }

  // Computes the cotangents of the gates in ct_z, given the cotangents of h. Must run
  // after Step. carried(v) holds the cotangents of c and the summed cotangents of the
  // shifts and gains.
  template <typename Carried>
  void Pull(const float* ct_h, const Carried& carried) {
    for (int64_t k = 0; k < padded_; k += kLanes) {
      const Vec o = Load(Array(kGates + 3) + k),
                y = settings_.Active(Load(next_c() + k));
      const Vec cotangent = Load(ct_h + k);
      Store(ct_z(3) + k, cotangent * y * o * (1 - o));
      Store(ct_z(kNewC) + k,
            Load(carried(k / kLanes)) + settings_.PullActive(cotangent * o, y));
    }
    PullNorm(kNewC, carried);
    for (int64_t k = 0; k < padded_; k += kLanes) {
      const Vec total = Load(ct_z(kNewC) + k), i = Load(Array(kGates) + k),
                j = Load(Array(kGates + 1) + k), f = Load(Array(kGates + 2) + k);
      Store(ct_z(0) + k, total * j * i * (1 - i));
      Store(ct_z(1) + k, settings_.PullActive(total * i, j));
      Store(ct_z(2) + k, total * Load(c() + k) * f * (1 - f));
      Store(carried(k / kLanes), total * f);
    }
    for (int g = 0; g < kNewC; g++) PullNorm(g, carried);
  }
  float* ct_z(int gate) { return Array(kCotangents + gate); }

 private:
  static constexpr int kNewC = 4, kNorms = 5;  // The new c follows the four gates.
  // The position of each norm in the order of the arguments, f, i, o, c, j.
  static constexpr int kPlaces[] = {1, 4, 0, 2, 3};
  static constexpr float kEpsilon = 1e-12f;
  // The numbers of the arrays. The first arrays hold the normalized gates and new c.
  static constexpr int kGates = kNorms, kShifts = kGates + 4, kGains = kShifts + kNorms,
                       kCotangents = kGains + kNorms, kC = kCotangents + kNorms,
                       kNextC = kC + 1, kH = kC + 2, kArrays = kC + 3;

  float* Array(int number) { return &memory_[number * padded_]; }

  Vec Scaled(int norm, int64_t k) {
    return Load(Array(norm) + k) * Load(Array(kGains + norm) + k) +
           Load(Array(kShifts + norm) + k);
  }

  void Normalize(int norm) {
    float* x = Array(norm);
    Vec sum = {}, squares = {};
    for (int64_t v = 0; v * kLanes < padded_; v++)
      sum += Load(x + v * kLanes, Valid(units_, v));
    const float mean = Sum(sum) / units_;
    for (int64_t v = 0; v * kLanes < padded_; v++) {
      const Vec all = Load(x + v * kLanes) - mean;
      const Vec centered = Load(reinterpret_cast<const float*>(&all), Valid(units_, v));
      Store(x + v * kLanes, centered);
      squares += centered * centered;
    }
    scales_[norm] = 1 / std::sqrt(Sum(squares) / units_ + kEpsilon);
    for (int64_t k = 0; k < padded_; k += kLanes)
      Store(x + k, Load(x + k) * scales_[norm]);
  }

  // Replaces the cotangents of a normalization's results with the cotangents of its
  // arguments.
  template <typename Carried>
  void PullNorm(int norm, const Carried& carried) {
    const float *normal = Array(norm), *gain = Array(kGains + norm);
    float* cotangents = ct_z(norm);
    Vec sum = {}, products = {};
    for (int64_t k = 0; k < padded_; k += kLanes) {
      const Vec of_result = Load(cotangents + k), x = Load(normal + k);
      float* sums = carried(k / kLanes) + (1 + 2 * kPlaces[norm]) * kLanes;
      Store(sums, Load(sums) + of_result);
      Store(sums + kLanes, Load(sums + kLanes) + of_result * x);
      const Vec of_normal = of_result * Load(gain + k);
      Store(cotangents + k, of_normal);
      sum += of_normal;
      products += of_normal * x;
    }
    const float mean = Sum(sum) / units_, product = Sum(products) / units_;
    for (int64_t k = 0; k < padded_; k += kLanes)
      Store(cotangents + k,
            scales_[norm] * (Load(cotangents + k) - mean - Load(normal + k) * product));
  }

  SettingsVec settings_;
  int64_t units_, padded_;
  Buffer memory_;
  float scales_[kNorms];
};

struct NormedLstm : PlainLstm {
  using Row = NormedRow;
  static constexpr bool kByRow = true;
  // The cotangents of c and of each norm's shift and gain.
  static constexpr int kCarried = 11;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_NORMED_H_
