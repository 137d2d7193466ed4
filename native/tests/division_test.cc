// Tests how calls of different sizes are divided among threads, and that row blocks are
// balanced.
#include "division.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#define JAXRNN_TARGET division_test
#include "rows.h"

namespace jaxrnn {
namespace {

// A loop of 100 steps with this many rows and vectors.
Work Loop(int64_t rows, int64_t vectors) { return {rows, 1e7, 1e6, vectors, 100}; }

void TestDivision(const std::string& text, const Work& work, int64_t entries,
                  int64_t threads, int64_t row_blocks, int64_t workers) {
  const Division found = Divide(work, entries, threads);
  Check(found.row_blocks == row_blocks && found.workers == workers,
        text + ": " + std::to_string(found.row_blocks) + " row blocks of " +
            std::to_string(found.workers) + " workers");
}

void TestThreads() {
  TestDivision("many rows of few units", Loop(256, 2), 1, 16, 16, 1);
  TestDivision("one row", Loop(1, 64), 1, 2, 1, 2);
  TestDivision("one row of few units", {1, 1e5, 1e5, 2, 100}, 1, 16, 1, 1);
  TestDivision("little work", {8, 1e3, 1e3, 4, 1}, 1, 16, 1, 1);
  TestDivision("as many entries as threads", Loop(8, 4), 4, 4, 1, 1);
  TestDivision("entries of one row", Loop(1, 4), 5, 2, 1, 1);
  TestDivision("an entry too many", Loop(256, 2), 5, 2, 2, 1);
  TestDivision("large matrices", {16, 1e8, 2e8, 32, 100}, 1, 16, 2, 8);
  const Work near = {16, 1e6, 1e6, 64, 100, kNear, 2.8e7};
  TestDivision("matrices that stay in the caches", near, 1, 2, 2, 1);
  Work far = near;
  far.floats = 4 * kNear;
  TestDivision("a few rows of far matrices", far, 1, 2, 1, 2);
  far.rows = 512;
  TestDivision("many rows of far matrices", far, 1, 2, 2, 1);
  Work work = Loop(256, 2);
  work.most_row_blocks = 4;
  TestDivision("copies of large matrices", work, 1, 16, 4, 2);
}

void TestLimits() {
  for (int64_t rows : {1, 3, 40})
    for (int64_t vectors : {1, 5, 32})
      for (int64_t entries : {1, 3, 100})
        for (int64_t threads : {1, 2, 16}) {
          const auto [row_blocks, workers] =
              Divide(Loop(rows, vectors), entries, threads);
          Check(row_blocks <= rows && workers <= vectors &&
                    row_blocks * workers <= threads,
                "there is no idle thread");
        }
}

// Tests that the work of two row blocks differs by at most the steps of one row.
void TestGroups() {
  const std::vector<int32_t> lengths = {3, 9, 0, 1, 9, 4, 4, 7, 2, 9, 6};
  const Sizes sizes = {int64_t(lengths.size()), 9, 1, 1, 1, 0, false};
  for (int64_t row_blocks : {1, 2, 3, 8, 11}) {
    std::vector<int64_t> steps(row_blocks), seen;
    for (int64_t g = 0; g < row_blocks; g++) {
      const division_test::Rows rows(sizes, lengths.data(), {g, row_blocks});
      for (int64_t t = 0; t < sizes.time; t++) steps[g] += rows.alive(t);
      for (int64_t r = 0; r < rows.count(); r++) seen.push_back(rows[r]);
    }
    std::sort(seen.begin(), seen.end());
    for (int64_t row = 0; row < sizes.batch; row++)
      Check(seen.at(row) == row, "a row is in one row block");
    const auto [least, most] = std::minmax_element(steps.begin(), steps.end());
    Check(*most - *least <= sizes.time, "row blocks have equal work");
  }
}

}  // namespace
}  // namespace jaxrnn

int main() {
  jaxrnn::TestThreads();
  jaxrnn::TestLimits();
  jaxrnn::TestGroups();
}
