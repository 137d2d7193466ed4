// The loops, compiled for several instruction sets, and the choice between them.
#ifndef JAXRNN_DISPATCH_H_
#define JAXRNN_DISPATCH_H_

#include <string>
#include <vector>

#include "loops.h"

namespace jaxrnn {

// The loops compiled for one instruction set.
struct Target {
  const char* name;
  bool supported;  // By this CPU.
  void (*forward)(const std::vector<Forward>&, Executor&);
  void (*backward)(const std::vector<Backward>&, Executor&);
  void (*weights)(const std::vector<Weights>&, Executor&);
  void (*inputs)(const std::vector<Inputs>&, Executor&);
};

// Those of this architecture, the fastest first.
std::vector<Target> Targets();

struct Choice {
  Target target;
  std::string error;  // If not empty, why there is no target.
};

// The fastest target that is supported, or the one of this name; it comes from the
// environment variable JAXRNN_NATIVE_TARGET, which the error names. Null or empty if
// not set.
Choice Choose(const char* name);

}  // namespace jaxrnn

#endif  // JAXRNN_DISPATCH_H_
