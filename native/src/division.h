// How the work of calls is divided among threads.
#ifndef JAXRNN_DIVISION_H_
#define JAXRNN_DIVISION_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace jaxrnn {

// The work of one of several equal calls. Its unit is the time of a multiplication.
struct Work {
  int64_t rows;       // Those that groups divide.
  double row, group;  // The work for a row, and that for a group, however small.
  int64_t vectors;    // Those that slots divide.
  int64_t phases;     // After each of them slots meet.
  // Each group has a copy of the matrices, which must not be too many.
  int64_t most_groups = std::numeric_limits<int64_t>::max();
};

// Each call is divided into groups of rows, and each group among slots.
struct Division {
  int64_t groups, slots;
};

// How long it takes until another thread works: about 5 microseconds.
constexpr double kStart = 180'000;
// For each slot that is more, how long slots take to meet: half a microsecond.
constexpr double kMeeting = 18'000;
// How much longer slots that do the same take, since each waits for the slowest one.
constexpr double kWaiting = 1.06;

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The time until all calls have ended, if as many groups run beside each other as there
// are threads for.
inline double Time(const Work& work, Division division, int64_t calls,
                   int64_t threads) {
  const auto [groups, slots] = division;
  double time = CeilDiv(work.rows, groups) * work.row + work.group;
  if (slots > 1) {
    time *= kWaiting * CeilDiv(work.vectors, slots) / work.vectors;
    time += kMeeting * (slots - 1) * work.phases;
  }
  const bool alone = slots == 1 && (calls * groups == 1 || threads == 1);
  return CeilDiv(calls * groups, threads / slots) * time + (alone ? 0 : kStart);
}

// The division with the least time.
inline Division Divide(const Work& work, int64_t calls, int64_t threads) {
  Division best = {1, 1};
  double least = std::numeric_limits<double>::infinity();
  const int64_t most_groups = std::min({threads, work.rows, work.most_groups});
  for (int64_t groups = 1; groups <= most_groups; groups++) {
    for (int64_t slots = 1; slots <= std::min(threads / groups, work.vectors);
         slots++) {
      const double time = Time(work, {groups, slots}, calls, threads);
      if (time >= least) continue;
      least = time;
      best = {groups, slots};
    }
  }
  return best;
}

}  // namespace jaxrnn

#endif  // JAXRNN_DIVISION_H_
