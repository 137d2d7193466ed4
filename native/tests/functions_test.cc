// Compares tanh and sigmoid with double precision, on each target that this CPU
// supports.
//
// The functions run in cells whose product equals x, because the matrix of the inputs
// is the identity. A basic RNN returns tanh(x). A GRU with state 1 and candidate 0
// returns its update gate, sigmoid(x). Special values are passed as the bias, because
// multiplying them by the zeros of the matrix would spread NaN to other units.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "arrays.h"
#include "check.h"
#include "dispatch.h"
#include "executors.h"
#include "loops.h"

namespace jaxrnn {
namespace {

constexpr int64_t kUnits = 16;

// tanh(x + bias) or sigmoid(x + bias), computed by a cell. x is [n, kUnits], and bias
// is [kUnits].
Floats Run(const Target& target, Cell cell, const Floats& x, const Floats& bias) {
  InlineExecutor executor;
  int64_t rows = x.size() / kUnits;
  Forward entry = {cell, {rows, 1, kUnits, kUnits, kUnits, 0, true}};
  std::vector<int32_t> lengths(rows, 1);
  entry.lengths = lengths.data();
  entry.x = x.data();
  int64_t gates = ProductOf(cell, 0).gates;
  Floats kernel(2 * kUnits * gates * kUnits), zeros(2 * kUnits * kUnits);
  Floats biases(gates * kUnits), h(x.size(), 1);
  for (int64_t k = 0; k < kUnits; k++) {
    kernel[(k * gates + gates - 1) * kUnits + k] = 1;
    biases[(gates - 1) * kUnits + k] = bias[k];
  }
  for (int k = 0; k < Products(cell); k++) {
    entry.kernel[k] = k ? zeros.data() : kernel.data();
    entry.bias[k] = k ? zeros.data() : biases.data();
  }
  entry.h = h.data();
  Floats outputs(x.size()), last_h(x.size());
  entry.outputs = outputs.data();
  entry.last_h = last_h.data();
  target.forward({entry}, executor);
  return outputs;
}

struct Function {
  const char* name;
  Cell cell;
  double (*exact)(double);
  // The error bounds in units in the last place of the exact value, on targets with and
  // without a fused multiply-add.
  double ulps, ulps_unfused;
  double least;     // The smallest absolute value to which they apply.
  double absolute;  // The absolute error bound for smaller values.
};

const Function kFunctions[] = {
    {"tanh", Cell::kRnn, [](double x) { return std::tanh(x); }, 5, 7, 2.5e-36, 2.5e-36},
    {"sigmoid", Cell::kGru, [](double x) { return 1 / (1 + std::exp(-x)); }, 3, 3,
     std::exp(-87.0), 2e-38}};

bool IsFused([[maybe_unused]] const Target& target) {
#if defined(__aarch64__)
  return true;
#else
  return target.name != std::string("baseline");
#endif
}

// The distance between adjacent floats at this value.
double UnitInLastPlace(double value) {
  int exponent;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, std::max(exponent - 24, -149));
}

// Points of both signs with absolute values from the smallest normal number to 100.
// From 2**-20 on, their relative distance is `step`.
Floats Points(double step) {
  Floats points = {0};
  for (double x = std::numeric_limits<float>::min(); x < 100;
       x *= 1 + (x < 0x1p-20 ? 1e-2 : step))
    points.insert(points.end(), {float(x), float(-x)});
  points.resize((points.size() + kUnits - 1) / kUnits * kUnits);
  return points;
}

void TestAccuracy(const Target& target, const Function& function, const Floats& x) {
  Floats results = Run(target, function.cell, x, Floats(kUnits));
  std::string name = std::string(target.name) + ": " + function.name;
  double worst = 0, worst_x = 0;
  for (size_t k = 0; k < x.size(); k++) {
    double exact = function.exact(x[k]), error = std::abs(results[k] - exact);
    bool small = std::abs(exact) < function.least;
    Check(small ? error <= function.absolute : std::isfinite(error),
          name + " of " + std::to_string(x[k]) + " is " + std::to_string(results[k]));
    double ulps = small ? 0 : error / UnitInLastPlace(exact);
    if (ulps <= worst) continue;
    worst = ulps;
    worst_x = x[k];
  }
  std::string text = name + " is " + std::to_string(worst) +
                     " units in the last place off, at " + std::to_string(worst_x);
  std::fprintf(stderr, "%s\n", text.c_str());
  Check(worst <= (IsFused(target) ? function.ulps : function.ulps_unfused), text);
}

void TestSpecial(const Target& target, const Function& function) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Floats bias(kUnits);
  bias[0] = kNaN;
  bias[1] = kInfinity;
  bias[2] = -kInfinity;
  bias[3] = std::numeric_limits<float>::max();
  bias[4] = -bias[3];
  Floats results = Run(target, function.cell, Floats(kUnits), bias);
  for (int64_t k = 0; k < kUnits; k++) {
    float want = function.exact(bias[k]), got = results[k];
    Check(std::isnan(want) ? std::isnan(got) : std::abs(got - want) <= 3e-7,
          std::string(target.name) + ": " + function.name + " of " +
              std::to_string(bias[k]) + " is " + std::to_string(got));
  }
}

}  // namespace
}  // namespace jaxrnn

// The argument is the relative distance between points; the default is 1e-5.
int main(int count, char** arguments) {
  using namespace jaxrnn;
  Floats x = Points(count > 1 ? std::atof(arguments[1]) : 1e-5);
  for (const Target& target : Targets()) {
    if (!target.supported) continue;
    for (const Function& function : kFunctions) {
      TestAccuracy(target, function, x);
      TestSpecial(target, function);
    }
  }
}
