// Divides the work of a call among threads.
#ifndef JAXRNN_DIVISION_H_
#define JAXRNN_DIVISION_H_

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace jaxrnn {

// The work of one entry. All entries have equal work. The unit is the time of one
// multiplication.
struct Work {
  int64_t rows;           // The rows to divide into row blocks.
  double row, row_block;  // The work per row, and the fixed work per row block.
  int64_t vectors;        // The vectors to divide among workers.
  int64_t phases;         // The workers synchronize after each phase.
  // The floats of the matrices that each row block reads, and the least time of all its
  // steps if a worker's share of them is far. Reading hides shorter multiplications.
  double floats = 0, far_time = 0;
  // Limited because each row block needs memory for its copy of the matrices.
  int64_t most_row_blocks = std::numeric_limits<int64_t>::max();
};

// The numbers of row blocks per entry and workers per row block.
struct Division {
  int64_t row_blocks, workers;
};

// The time until another thread starts to work: about 5 microseconds.
constexpr double kStart = 180'000;
// The delay that each additional worker adds to a synchronization: half a microsecond.
constexpr double kMeeting = 18'000;
// The factor by which workers take longer, because each waits for the slowest one.
constexpr double kWaiting = 1.06;

// The bytes of a core's second cache: 1 to 2 MiB on most servers.
inline int64_t BytesOfL2() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  if (const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE); bytes > 0) return bytes;
#endif
  return 1 << 21;
}
inline const double kNear = BytesOfL2() / sizeof(float) / 2;

// Whether matrices of so many floats leave a core's own caches before the core reads
// them again, because the values of the steps also need space there.
inline bool AreFar(double floats) { return floats > kNear; }

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The time to finish all entries when the threads run as many row blocks at once as
// possible.
inline double Time(const Work& work, Division division, int64_t entries,
                   int64_t threads) {
  const auto [row_blocks, workers] = division;
  double time = CeilDiv(work.rows, row_blocks) * work.row;
  if (AreFar(work.floats / workers)) time = std::max(time, work.far_time);
  time += work.row_block;
  if (workers > 1) {
    time *= kWaiting * CeilDiv(work.vectors, workers) / work.vectors;
    time += kMeeting * (workers - 1) * work.phases;
  }
  const bool alone = workers == 1 && (entries * row_blocks == 1 || threads == 1);
  return CeilDiv(entries * row_blocks, threads / workers) * time + (alone ? 0 : kStart);
}

// The fastest division.
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
