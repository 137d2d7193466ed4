// Compares the cotangents of matrices and inputs with the plain loops, on each target
// that this CPU supports. The padding of arguments is NaN, to detect reads of the
// padding. Results are NaN before a call, to detect values that are not written.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "arrays.h"
#include "check.h"
#include "dispatch.h"
#include "executors.h"
#include "layout.h"
#include "loops.h"
#include "naive_loops.h"

namespace jaxrnn {
namespace {

enum class Lengths { kFull, kRagged, kNone };

struct Case {
  Cell cell;
  int64_t units, depth, batch, time;
  Lengths lengths;
  bool time_major;
  bool before;  // Whether steps multiplied the previous step's operand.

  std::string Text() const {
    return "cell " + std::to_string(static_cast<int>(cell)) + ", units " +
           std::to_string(units) + ", depth " + std::to_string(depth) + ", batch " +
           std::to_string(batch) + ", time " + std::to_string(time) + ", lengths " +
           std::to_string(static_cast<int>(lengths)) +
           (time_major ? ", time major" : "") + (before ? ", before" : "");
  }
};

std::vector<Case> Cases() {
  struct Steps {
    int64_t batch, time;
  };
  // Fewer steps than a block, slightly more steps than a block of InputsLoop, and
  // several blocks of both loops.
  const std::vector<Steps> all_steps = {{1, 1}, {3, 5}, {14, 7}, {13, 80}};
  std::vector<Case> cases;
  for (Cell cell : {Cell::kProjectedLstm, Cell::kCudnnGru, Cell::kRnn})
    for (int64_t units : {1, 7, 16, 17, 40})
      for (int64_t depth : {1, 17, 40})
        for (const Steps& steps : all_steps)
          for (Lengths lengths : {Lengths::kFull, Lengths::kRagged, Lengths::kNone})
            for (bool time_major : {false, true})
              for (bool before : {false, true})
                cases.push_back({cell, units, depth, steps.batch, steps.time, lengths,
                                 time_major, before});
  // Matrices beyond a core's own caches.
  for (int64_t batch : {1, 14})
    cases.push_back({Cell::kProjectedLstm, 300, 250, batch, 7, Lengths::kRagged, false,
                     true});
  return cases;
}

// The arguments of the calls for all products.
struct Problem {
  explicit Problem(const Case& c)
      : c(c), sizes{c.batch, c.time, c.depth, c.units, c.units + 2, 0, c.time_major} {
    MakeLengths();
    x = Padded(c.depth, 1);
    for (int k = 0; k < Products(c.cell); k++) {
      operand[k] = Padded(sizes.Rows(k), 1);
      first[k] = Random(c.batch * sizes.Rows(k), 1);
      ct_zs[k] = Padded(Columns(k), 0.1f);
      kernel[k] = Random(c.depth * Columns(k), 0.5f);
    }
  }

  int64_t Columns(int k) const { return sizes.Columns(c.cell, k); }

  Case c;
  Sizes sizes;
  std::vector<int32_t> lengths;
  Floats x, operand[kMaxProducts], first[kMaxProducts], ct_zs[kMaxProducts],
      kernel[kMaxProducts];

 private:
  void MakeLengths() {
    lengths.assign(c.batch, c.lengths == Lengths::kFull ? c.time : 0);
    if (c.lengths != Lengths::kRagged) return;
    for (int64_t row = 0; row < c.batch; row++)
      lengths[row] = std::min(c.time, 3 * row % 4 * c.time / 3 + row % 2);
  }

  // A sequence with NaN in the padding.
  Floats Padded(int64_t size, float scale) {
    Floats values = Random(c.batch * c.time * size, scale);
    FillSteps(sizes, lengths, false, kNaN, values);
    return values;
  }

  RandomFloats Random;
};

template <typename Weigh, typename Input>
Results Run(const Problem& problem, const Weigh& weights, const Input& inputs) {
  const Sizes& sizes = problem.sizes;
  Results results;
  const int32_t* lengths = problem.lengths.data();
  Inputs on_inputs = {sizes};
  on_inputs.lengths = lengths;
  for (int k = 0; k < Products(problem.c.cell); k++) {
    const Product product = ProductOf(problem.c.cell, k);
    int64_t columns = problem.Columns(k);
    const float* ct_zs = problem.ct_zs[k].data();
    Weights entry = {sizes, columns, product.state && problem.c.before, product.bias,
                     lengths};
    entry.sizes.depth = product.inputs ? sizes.depth : 0;
    entry.sizes.units = product.state ? sizes.Rows(k) : 0;
    entry.ct_zs = ct_zs;
    if (product.inputs) {
      on_inputs.columns[on_inputs.products] = columns;
      on_inputs.kernel[on_inputs.products] = problem.kernel[k].data();
      on_inputs.ct_zs[on_inputs.products++] = ct_zs;
      entry.x = problem.x.data();
    }
    if (product.state) entry.operand = problem.operand[k].data();
    if (entry.has_first) entry.first = problem.first[k].data();
    VisitArrays(entry, results);
    weights(entry);
  }
  VisitArrays(on_inputs, results);
  inputs(on_inputs);
  return results;
}

// Tests every `stride`-th case, starting at `first`, on all targets and random
// executors.
void TestCases(size_t first, size_t stride, const std::vector<Executor*>& executors) {
  std::vector<Case> cases = Cases();
  std::minstd_rand random(first);
  for (size_t k = first; k < cases.size(); k += stride) {
    Problem problem(cases[k]);
    Results wanted = Run(problem, naive::RunWeights, naive::RunInputs);
    for (const Target& target : Targets()) {
      if (!target.supported) continue;
      Executor& executor = *executors[random() % executors.size()];
      auto weights = [&](const Weights& entry) { target.weights({entry}, executor); };
      auto inputs = [&](const Inputs& entry) { target.inputs({entry}, executor); };
      Run(problem, weights, inputs)
          .Compare(wanted, std::string(target.name) + ", " + problem.c.Text() +
                               ", threads " + std::to_string(executor.threads()));
    }
  }
}

// Runs calls at the same time that request more threads than the executor has.
void TestCallsAtOnce() {
  PoolExecutor executor(4, 1);
  std::vector<std::thread> callers;
  for (size_t k = 1; k <= 3; k++)
    callers.emplace_back([&executor, k] { TestCases(k, 31, {&executor}); });
  for (std::thread& caller : callers) caller.join();
}

}  // namespace
}  // namespace jaxrnn

// The argument is the stride between cases; the default is 1.
int main(int count, char** arguments) {
  using namespace jaxrnn;
  PoolExecutor one(1, 1), two(2, 2), three(3, 3);
  InlineExecutor at_once;
  TestCases(0, count > 1 ? std::atoi(arguments[1]) : 1, {&one, &two, &three, &at_once});
  TestCallsAtOnce();
}
