// The values that a worker keeps between phases.
#ifndef JAXRNN_CARRIED_H_
#define JAXRNN_CARRIED_H_

#include <cstdint>

#include "buffers.h"
#include "units.h"

namespace jaxrnn::JAXRNN_TARGET {

// Holds kCount vectors for each row and each vector of the worker's units. The cell's
// functions define the contents.
template <int kCount>
class Carried {
 public:
  Carried(const VectorRange& range, int64_t batch)
      : first_(range.first),
        batch_(batch),
        memory_(Allocate(range.size() * batch * kCount * kLanes)) {}

  // The values for vector v of row r.
  float* operator()(int64_t v, int64_t r) const {
    return &memory_[((v - first_) * batch_ + r) * kCount * kLanes];
  }

 private:
  int64_t first_, batch_;
  Buffer memory_;
};

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_CARRIED_H_
