// Divides units or columns into vectors, the vectors into one range per worker, and
// each range into panels of a few vectors.
#ifndef JAXRNN_UNITS_H_
#define JAXRNN_UNITS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "product.h"

namespace jaxrnn::JAXRNN_TARGET {

// `count` vectors, starting at vector `first`.
struct Panel {
  int64_t first;
  int count;
};

// The vectors of a worker, `first` to `end` - 1.
struct VectorRange {
  int64_t first, end;

  VectorRange(int64_t units, int64_t worker, int64_t workers) {
    const int64_t vectors = (units + kLanes - 1) / kLanes;
    first = vectors * worker / workers;
    end = vectors * (worker + 1) / workers;
  }
  int64_t size() const { return end - first; }
  // Divides the range into panels of about equal size, with at most `most` vectors
  // each.
  std::vector<Panel> Panels(int most) const {
    std::vector<Panel> panels;
    const int64_t count = (size() + most - 1) / most;
    for (int64_t i = 0, start = first; i < count; i++) {
      const int64_t next = first + size() * (i + 1) / count;
      panels.push_back({start, int(next - start)});
      start = next;
    }
    return panels;
  }
};

// A row of zeros for a panel.
alignas(64) constexpr float kZeros[kMaxVectors * kLanes] = {};

// The number of units, rounded up to full vectors.
inline int64_t Padded(int64_t units) { return (units + kLanes - 1) / kLanes * kLanes; }

// The number of units in a vector: all lanes, except in a partly filled last vector.
inline int Valid(int64_t units, int64_t vector) {
  return int(std::min<int64_t>(kLanes, units - vector * kLanes));
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_UNITS_H_
