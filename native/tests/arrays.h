// Arrays for the tests: random values, parts that must not be read, and results.
#ifndef JAXRNN_ARRAYS_H_
#define JAXRNN_ARRAYS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "loops.h"

namespace jaxrnn {

using Floats = std::vector<float>;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kTolerance = 2e-5f;  // Relative to 1 + the absolute value.

inline const float* Data(const Floats& values) {
  return values.empty() ? nullptr : values.data();
}

class RandomFloats {
 public:
  explicit RandomFloats(int seed = 23) : generator_(seed) {}

  // Uniformly distributed between -scale and scale.
  Floats operator()(int64_t size, float scale) {
    std::uniform_real_distribution<float> uniform(-scale, scale);
    Floats values(size);
    for (float& value : values) value = uniform(generator_);
    return values;
  }

 private:
  std::mt19937 generator_;
};

// Writes a value to a sequence, at the steps at which rows are alive or in the padding.
inline void FillSteps(const Sizes& sizes, const std::vector<int32_t>& lengths,
                      bool alive, float value, Floats& values) {
  int64_t size = values.size() / (sizes.batch * sizes.time);
  for (int64_t row = 0; row < sizes.batch; row++)
    for (int64_t t = 0; t < sizes.time; t++)
      if ((t < lengths[row]) == alive)
        std::fill_n(values.begin() + sizes.At(row, t) * size, size, value);
}

// The named results of a call, which are NaN until they are written. As a visitor of
// layout.h, adds the results of an entry.
class Results {
 public:
  template <typename T>
  void Argument(const std::string&, const T*&, double) {}
  void Result(const std::string& name, float*& array, double size) {
    if (size == 0) return;
    names_.push_back(name);
    array = values_.emplace_back(int64_t(size), kNaN).data();
  }

  Floats& operator[](const std::string& name) {
    size_t k = std::find(names_.begin(), names_.end(), name) - names_.begin();
    return values_.at(k);
  }

  void Compare(const Results& wanted, const std::string& text) const {
    for (size_t k = 0; k < values_.size(); k++)
      for (size_t i = 0; i < values_[k].size(); i++) {
        float got = values_[k][i], want = wanted.values_[k][i];
        bool close = std::isnan(want)
                         ? std::isnan(got)
                         : std::abs(got - want) <= kTolerance * (1 + std::abs(want));
        Check(close, text + ": " + names_[k] + "[" + std::to_string(i) + "] is " +
                         std::to_string(got) + ", not " + std::to_string(want));
      }
  }

 private:
  std::vector<std::string> names_;
  std::vector<Floats> values_;
};

}  // namespace jaxrnn

#endif  // JAXRNN_ARRAYS_H_
