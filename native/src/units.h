// How units are divided: into vectors, slots of vectors, and panels of a few vectors.
#ifndef JAXRNN_UNITS_H_
#define JAXRNN_UNITS_H_

#include <vector>

#include "product.h"
#include "rows.h"

namespace jaxrnn::JAXRNN_TARGET {

// Vectors of units that a slot computes together, `count` from number `first` on.
struct Panel {
  int64_t first;
  int count;
};

// A slot's share of the units.
struct Share {
  int64_t first, end;  // Vectors.

  Share(int64_t units, int64_t slot, int64_t slots) {
    const int64_t vectors = (units + kLanes - 1) / kLanes;
    first = vectors * slot / slots;
    end = vectors * (slot + 1) / slots;
  }
  int64_t size() const { return end - first; }
  // Panels of about equal size, of at most so many vectors.
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

alignas(64) constexpr float kZeros[kMaxVectors * kLanes] = {};

inline int64_t Padded(int64_t units) { return (units + kLanes - 1) / kLanes * kLanes; }

// The distance of rows of so many floats, such that rows do not compete for one set of
// the cache.
inline int64_t Stride(int64_t floats) {
  return floats % 256 == 0 ? floats + 16 : floats;
}

// The number of units that the vector holds.
inline int Valid(int64_t units, int64_t vector) {
  return int(std::min<int64_t>(kLanes, units - vector * kLanes));
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_UNITS_H_
