// How the work of a call is divided among threads.
#ifndef JAXRNN_DIVISION_H_
#define JAXRNN_DIVISION_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace jaxrnn {

// The work of one of several equal entries, in units of the time of a multiplication.
struct Work {
  int64_t rows;           // Divided into row blocks.
  double row, row_block;  // The work for a row; for a row block, however small.
  int64_t vectors;        // Divided among workers.
  int64_t phases;         // After each phase the workers meet.
  // Each row block takes memory for a copy of the matrices.
  int64_t most_row_blocks = std::numeric_limits<int64_t>::max();
};

// Each entry is divided into row blocks, and each row block among workers.
struct Division {
  int64_t row_blocks, workers;
};

// How long it takes until another thread works: about 5 microseconds.
constexpr double kStart = 180'000;
// How long each further worker delays a meeting: half a microsecond.
constexpr double kMeeting = 18'000;
// How much longer workers take, since each waits for the slowest one.
constexpr double kWaiting = 1.06;

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The time until all entries have ended, if as many row blocks run at the same time as
// there are threads for.
inline double Time(const Work& work, Division division, int64_t entries,
                   int64_t threads) {
  const auto [row_blocks, workers] = division;
  double time = CeilDiv(work.rows, row_blocks) * work.row + work.row_block;
  if (workers > 1) {
    time *= kWaiting * CeilDiv(work.vectors, workers) / work.vectors;
    time += kMeeting * (workers - 1) * work.phases;
  }
  const bool alone = workers == 1 && (entries * row_blocks == 1 || threads == 1);
  return CeilDiv(entries * row_blocks, threads / workers) * time + (alone ? 0 : kStart);
}

// The division with the least time.
inline Division Divide(const Work& work, int64_t entries, int64_t threads) {
  Division best = {1, 1};
  double least = std::numeric_limits<double>::infinity();
  const int64_t most_row_blocks = std::min({threads, work.rows, work.most_row_blocks});
  for (int64_t row_blocks = 1; row_blocks <= most_row_blocks; row_blocks++) {
    for (int64_t workers = 1; workers <= std::min(threads / row_blocks, work.vectors);
         workers++) {
      const double time = Time(work, {row_blocks, workers}, entries, threads);
      if (time >= least) continue;
      least = time;
      best = {row_blocks, workers};
    }
  }
  return best;
}

}  // namespace jaxrnn

#endif  // JAXRNN_DIVISION_H_
