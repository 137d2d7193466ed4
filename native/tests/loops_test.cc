// Compares the loops of each target that this CPU supports with the plain loops.
//
// Results are NaN before a call, to detect values that are not written. The padding of
// arguments is NaN, to detect reads of the padding.
#include "loops.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "arrays.h"
#include "check.h"
#include "dispatch.h"
#include "executors.h"
#include "layout.h"
#include "naive_loops.h"

namespace jaxrnn {
namespace {

struct Case {
  Cell cell;
  int64_t units, batch, time, first_length;
  bool time_major, resets;

  bool lstm() const { return HasC(cell); }
  Activation activation() const {
    return Activation((units / 2 + int(cell)) % kActivations);
  }
  // Whether the cell has peepholes and both clips. Otherwise, it has neither, like a
  // plain LSTM.
  bool full() const {
    return (cell == Cell::kPeepholeLstm || cell == Cell::kProjectedLstm) && units != 17;
  }
  int64_t outputs() const {
    if (cell != Cell::kProjectedLstm) return units;
    if (units % 16 == 0) return units * 2;  // Full vectors.
    return units % 2 ? units * 2 / 3 + 1 : units * 3 - 1;
  }
  std::string Text() const {
    return "cell " + std::to_string(static_cast<int>(cell)) + ", units " +
           std::to_string(units) + ", batch " + std::to_string(batch) + ", time " +
           std::to_string(time) + ", first length " + std::to_string(first_length) +
           (time_major ? ", time major" : "") + (resets ? ", resets" : "");
  }
};

struct Extent {
  int64_t units, batch, time;
};

std::vector<Extent> Extents() {
  // These extents are divided among row blocks, workers or both.
  std::vector<Extent> extents = {{100, 1, 9}, {100, 3, 9}, {33, 40, 9}, {256, 2, 3}};
  for (int64_t units : {1, 7, 16, 17, 40})
    for (int64_t batch : {1, 2, 13})
      for (int64_t time : {1, 5}) extents.push_back({units, batch, time});
  return extents;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (int cell = 0; cell < kCells; cell++)
    for (const auto& [units, batch, time] : Extents())
      for (bool time_major : {false, true}) {
        // 13 rows cover all lengths.
        int64_t lengths = batch >= 13 ? 1 : time + 1;
        for (int64_t first = 0; first < lengths; first += batch)
          for (bool resets : {false, true})
            cases.push_back(
                {Cell(cell), units, batch, time, first, time_major, resets});
      }
  return cases;
}

// The arguments of a call.
struct Problem {
  static constexpr int64_t kDepth = 5;

  explicit Problem(const Case& c, int seed = 23)
      : c(c),
        sizes{c.batch,     c.time,       kDepth,    c.units,
              c.outputs(), c.time_major, c.resets},
        Random(seed) {
    for (int k = 0; k < Products(c.cell); k++) {
      const Product product = ProductOf(c.cell, k);
      int64_t columns = sizes.Columns(c.cell, k);
      kernel[k] = Random(sizes.InputRows(c.cell, k) * columns, 0.5f);
      const Floats state = Random(sizes.StateRows(c.cell, k) * columns, 0.2f);
      kernel[k].insert(kernel[k].end(), state.begin(), state.end());
      if (product.bias) bias[k] = Random(columns, 0.5f);
    }
    if (c.full() || c.cell == Cell::kNormedLstm)
      elementwise = Random(ElementwiseVectors(c.cell) * c.units, 1);
    h = Random(c.batch * c.outputs(), 1);
    if (c.lstm()) c0 = Random(c.batch * c.units, 1);
    MakeLengths();
    if (c.resets) MakeResets();
    x = Random(c.batch * c.time * kDepth, 1);
    MakeSpecialRows();
    ct_outputs = Random(c.batch * c.time * c.outputs(), 1);
    if (c.lstm() && c.resets) ct_new_c = Random(c.batch * c.time * c.units, 1);
    ct_last_h = Random(c.batch * c.outputs(), 1);
    if (c.lstm()) ct_last_c = Random(c.batch * c.units, 1);
    FillDead(x, kNaN);
    FillDead(ct_outputs, kNaN);
  }

  Forward ForwardArguments(bool save) const {
    Forward entry = {c.cell,     sizes, SettingsArguments(), !elementwise.empty(),
                     c.resets, save,  lengths.data(),      ResetsData()};
    for (int k = 0; k < Products(c.cell); k++) {
      entry.kernel[k] = Data(kernel[k]);
      entry.bias[k] = Data(bias[k]);
    }
    entry.x = Data(x);
    entry.h = Data(h);
    entry.c = Data(c0);
    entry.reset_h = Data(reset_h);
    entry.reset_c = Data(reset_c);
    return entry;
  }

  Backward BackwardArguments() const {
    Backward entry = {
        c.cell,         sizes,   SettingsArguments(), !elementwise.empty(), c.resets,
        lengths.data(), ResetsData()};
    for (int k = 0; k < Products(c.cell); k++) entry.kernel[k] = Data(kernel[k]);
    entry.ct_outputs = Data(ct_outputs);
    entry.ct_new_c = Data(ct_new_c);
    entry.ct_last_h = Data(ct_last_h);
    entry.ct_last_c = Data(ct_last_c);
    return entry;
  }

  Settings SettingsArguments() const {
    const float no_clip = std::numeric_limits<float>::infinity();
    return {c.activation(), 0.75f, c.full() ? 0.6f : no_clip, c.full() ? 0.2f : no_clip,
            Data(elementwise)};
  }

  // The name of the forward call's result from which the backward call reads h.
  std::string SavedH() const { return c.resets ? "saved_h" : "outputs"; }

  // Fill the steps of a sequence at which rows are alive, or the padding.
  void FillAlive(Floats& values, float value) const {
    FillSteps(sizes, lengths, true, value, values);
  }
  void FillDead(Floats& values, float value) const {
    FillSteps(sizes, lengths, false, value, values);
  }

  Case c;
  Sizes sizes;
  std::vector<int32_t> lengths, resets;
  Floats x, kernel[kMaxProducts], bias[kMaxProducts];
  Floats elementwise;
  Floats h, c0, reset_h, reset_c, ct_outputs, ct_new_c, ct_last_h, ct_last_c;

 private:
  const int32_t* ResetsData() const {
    return resets.empty() ? nullptr : resets.data();
  }

  void MakeLengths() {
    for (int64_t row = 0; row < c.batch; row++)
      lengths.push_back((c.first_length + row) % (c.time + 1));
  }

  // Every second row is reset at the first step, and every third row at the last step.
  // The reset states of the other rows are never read.
  void MakeResets() {
    resets.assign(c.batch * c.time, 0);
    reset_h.assign(c.batch * c.outputs(), kNaN);
    if (c.lstm()) reset_c.assign(c.batch * c.units, kNaN);
    for (int64_t row = 0; row < c.batch; row++)
      for (int64_t t : {int64_t{0}, c.time - 1})
        if (row % (t == 0 ? 2 : 3) == 0) Reset(row, t);
  }

  void Reset(int64_t row, int64_t t) {
    resets[sizes.At(row, t)] = 1;
    const int64_t m = c.outputs();
    const Floats new_h = Random(m, 1), new_c = Random(c.units, 1);
    std::copy(new_h.begin(), new_h.end(), reset_h.begin() + row * m);
    if (c.lstm())
      std::copy(new_c.begin(), new_c.end(), reset_c.begin() + row * c.units);
    if (t == 0) std::fill_n(h.begin() + row * m, m, kNaN);  // This h is not read.
  }

  // Puts NaN into the state of rows without steps, and into the input of one row.
  // Another row gets a large input that does not amplify rounding errors.
  void MakeSpecialRows() {
    for (int64_t row = 0; row < c.batch; row++)
      if (lengths[row] == 0) h[row * c.outputs()] = kNaN;
    if (c.batch < 13) return;
    std::fill_n(x.begin() + sizes.At(3, 0) * kDepth, kDepth, kNaN);
    std::fill_n(x.begin() + sizes.At(5, 0) * kDepth, kDepth, 0.0f);
    x[sizes.At(5, 0) * kDepth] = c.activation() == Activation::kRelu ? 10 : 1e4f;
  }

  RandomFloats Random;
};

template <typename Loop>
Results RunForward(const Problem& problem, bool save, const Loop& loop) {
  Results results;
  Forward entry = problem.ForwardArguments(save);
  VisitArrays(entry, results);
  loop(entry);
  return results;
}

// `saved` holds the results of a forward call. If `in_place`, the cotangents replace
// zs.
template <typename Loop>
Results RunBackward(const Problem& problem, Results& saved, bool in_place,
                    const Loop& loop) {
  const Case& c = problem.c;
  Results results;
  Backward entry = problem.BackwardArguments();
  VisitArrays(entry, results);
  for (int k = 0; k < Products(c.cell); k++) {
    Floats& zs = saved[Of("zs", k)];
    if (in_place) std::copy(zs.begin(), zs.end(), entry.ct_zs[k]);
    entry.zs[k] = in_place ? entry.ct_zs[k] : zs.data();
  }
  (c.resets ? entry.saved_h : entry.outputs) = saved[problem.SavedH()].data();
  if (!c.resets) entry.h = Data(problem.h);
  if (c.lstm()) entry.saved_c = saved["saved_c"].data();
  loop(entry);
  return results;
}

// Checks that zs are finite in finished rows, and sets them to 0 there. Also checks
// that rows without steps keep their state bit for bit.
void CheckDead(const Problem& problem, bool save, Results& results,
               const std::string& text) {
  int64_t units = problem.c.outputs();
  for (int64_t row = 0; row < problem.c.batch; row++)
    if (problem.lengths[row] == 0)
      Check(!std::memcmp(&problem.h[row * units], &results["last_h"][row * units],
                         units * sizeof(float)),
            text + ": last_h has the bits of h");
  for (int k = 0; save && k < Products(problem.c.cell); k++) {
    Floats& zs = results[Of("zs", k)];
    Floats dead = zs;
    for (float& z : dead) z = std::isfinite(z) ? 0 : kNaN;
    problem.FillAlive(dead, 0);
    for (float z : dead) Check(!std::isnan(z), text + ": zs are finite");
    problem.FillDead(zs, 0);
  }
}

// The results of the plain loops.
struct Wanted {
  explicit Wanted(const Problem& problem)
      : forward(RunForward(problem, false, naive_forward)),
        saving(RunForward(problem, true, naive_forward)),
        saved(saving) {
    for (int k = 0; k < Products(problem.c.cell); k++)
      problem.FillDead(saved[Of("zs", k)], kNaN);
    problem.FillDead(saved[problem.SavedH()], kNaN);
    if (problem.c.lstm()) problem.FillDead(saved["saved_c"], kNaN);
    backward = RunBackward(problem, saved, false, naive_backward);
  }

  static constexpr auto naive_forward = [](Forward& entry) {
    naive::RunForward(entry);
  };
  static constexpr auto naive_backward = [](Backward& entry) {
    naive::RunBackward(entry);
  };

  Results forward, saving, saved, backward;
};

void TestCase(const Problem& problem, const Wanted& wanted, const Target& target,
              Executor& executor) {
  std::string text = std::string(target.name) + ", " + problem.c.Text() + ", threads " +
                     std::to_string(executor.threads());
  auto forward = [&](Forward& entry) { target.forward({entry}, executor); };
  auto backward = [&](Backward& entry) { target.backward({entry}, executor); };
  for (bool save : {false, true}) {
    Results results = RunForward(problem, save, forward);
    CheckDead(problem, save, results, text);
    results.Compare(save ? wanted.saving : wanted.forward, text);
  }
  Results saved = wanted.saved;
  for (bool in_place : {false, true})
    RunBackward(problem, saved, in_place, backward).Compare(wanted.backward, text);
}

// Tests every `stride`-th case, starting at `first`, on all targets and random
// executors.
void TestCases(size_t first, size_t stride, const std::vector<Executor*>& executors) {
  std::vector<Case> cases = Cases();
  std::minstd_rand random(first);
  for (size_t k = first; k < cases.size(); k += stride) {
    Problem problem(cases[k]);
    Wanted wanted(problem);
    for (const Target& target : Targets())
      if (target.supported)
        TestCase(problem, wanted, target, *executors[random() % executors.size()]);
  }
}

void TestThreads(size_t stride) {
  PoolExecutor one(1, 1), two(2, 2), three(3, 3), four(4, 2), many(16, 3);
  TestCases(0, stride, {&one, &two, &three, &four, &many});
}

// Tests matrices that are beyond a core's own caches, in huge pages, with so many rows
// that their products have several blocks.
void TestFarMatrices() {
  PoolExecutor one(1, 1);
  for (Cell cell : {Cell::kLstm, Cell::kCudnnGru, Cell::kProjectedLstm}) {
    Problem problem({cell, 320, 40, 3, 2, true, false});
    Wanted wanted(problem);
    for (const Target& target : Targets())
      if (target.supported) TestCase(problem, wanted, target, one);
  }
}

// Runs several problems of the same sizes in one call.
void TestEntries(const Target& target, Executor& executor, Case c) {
  std::vector<Problem> problems;
  for (int k = 0; k < 5; k++) {
    c.first_length = k % (c.time + 1);
    problems.emplace_back(c, k);
  }
  std::vector<Wanted> wanted(problems.begin(), problems.end());
  std::vector<Forward> forward;
  std::vector<Backward> backward;
  std::vector<Results> results, ct_results;
  for (size_t k = 0; k < problems.size(); k++) {
    results.push_back(RunForward(problems[k], true,
                                 [&](Forward& entry) { forward.push_back(entry); }));
    ct_results.push_back(
        RunBackward(problems[k], wanted[k].saved, false,
                    [&](Backward& entry) { backward.push_back(entry); }));
  }
  target.forward(forward, executor);
  target.backward(backward, executor);
  const std::string text = "entries, " + c.Text();
  for (size_t k = 0; k < problems.size(); k++) {
    CheckDead(problems[k], true, results[k], text);
    results[k].Compare(wanted[k].saving, text);
    ct_results[k].Compare(wanted[k].backward, text);
  }
}

void TestEntries() {
  PoolExecutor two(2, 1), many(16, 3);
  for (const Target& target : Targets()) {
    if (!target.supported) continue;
    for (Executor* executor : {&two, &many})
      for (int cell = 0; cell < kCells; cell++)
        for (int64_t batch : {1, 14})
          for (bool resets : {false, true})
            TestEntries(target, *executor,
                        {Cell(cell), 40, batch, 5, 0, true, resets});
  }
}

// Has only the caller's thread, and counts the threads that a call requests.
class CountingExecutor final : public Executor {
 public:
  int64_t threads() const override { return 16; }
  void Schedule(std::function<void()>) override { count++; }

  int64_t count = 0;
};

// Tests that all 16 threads are used for 256 rows, although 8 units are too few for 16
// workers.
void TestManyRows() {
  const Problem problem({Cell::kLstm, 8, 256, 20, 20, false, false});
  Wanted wanted(problem);
  CountingExecutor executor;
  RunForward(problem, true, [&](Forward& entry) {
    Targets().back().forward({entry}, executor);
  }).Compare(wanted.saving, "many rows");
  Check(executor.count == 15, "forward uses all threads");
  RunBackward(problem, wanted.saved, false, [&](Backward& entry) {
    Targets().back().backward({entry}, executor);
  }).Compare(wanted.backward, "many rows");
  Check(executor.count == 30, "backward, too");
}

// Runs calls at the same time that request more threads than the executor has.
void TestCallsAtOnce() {
  PoolExecutor executor(4, 1);
  std::vector<std::thread> callers;
  for (size_t k = 1; k <= 3; k++)
    callers.emplace_back([&executor, k] { TestCases(k, 31, {&executor}); });
  for (std::thread& caller : callers) caller.join();
}

void TestChoice() {
  for (const Target& target : Targets()) {
    Choice choice = Choose(target.name);
    if (target.supported) Check(choice.target.forward == target.forward, "is chosen");
    Check(choice.error.empty() == target.supported, "is refused if not supported");
  }
  Check(Choose(nullptr).error.empty(), "there is a default");
  Check(Choose("").error.empty(), "an empty name is the default");
  Check(Choose("none").error.find("JAXRNN_NATIVE_TARGET") == 0, "names the variable");
}

}  // namespace
}  // namespace jaxrnn

// The argument is the stride between cases; the default is 1.
int main(int count, char** arguments) {
  jaxrnn::TestChoice();
  jaxrnn::TestEntries();
  jaxrnn::TestFarMatrices();
  jaxrnn::TestManyRows();
  jaxrnn::TestThreads(count > 1 ? std::atoi(arguments[1]) : 1);
  jaxrnn::TestCallsAtOnce();
}
