// How the work of calls is divided among threads.
#ifndef JAXRNN_DIVISION_H_
#define JAXRNN_DIVISION_H_

#include <algorithm>
#include <cstdint>
#include <limits>

namespace jaxrnn {

// The work of one of several equal calls, in multiplications.
struct Work {
  double multiplications;
  int64_t vectors;  // Those that slots divide.
  int64_t phases;   // After each the slots meet.
};

inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The number of slots of each call with which all calls end soonest, if as many calls as
// there are threads for run beside each other.
inline int64_t Slots(const Work& work, int64_t calls, int64_t threads) {
  // The threads take as long to meet, for each that is more, as they take to multiply:
  // about half a microsecond.
  constexpr double kMeeting = 18'000;
  int64_t best = 1;
  double least = std::numeric_limits<double>::infinity();
  for (int64_t slots = 1; slots <= std::min(threads, work.vectors); slots++) {
    const double share = double(CeilDiv(work.vectors, slots)) / work.vectors;
    const double cost = CeilDiv(calls, threads / slots) *
                        (work.multiplications * share +
                         kMeeting * (slots - 1) * work.phases);
    if (cost >= least) continue;
    least = cost;
    best = slots;
  }
  return best;
}

}  // namespace jaxrnn

#endif  // JAXRNN_DIVISION_H_
