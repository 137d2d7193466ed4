// Chooses one of the instruction sets for which the loops are compiled.
#ifndef JAXRNN_DISPATCH_H_
#define JAXRNN_DISPATCH_H_

#include <string>
#include <vector>

#include "loops.h"

namespace jaxrnn {

// The loops compiled for one instruction set.
struct Target {
  const char* name;
  bool supported;  // Whether this CPU supports the target.
  void (*forward)(const std::vector<Forward>&, Executor&);
  void (*backward)(const std::vector<Backward>&, Executor&);
  void (*weights)(const std::vector<Weights>&, Executor&);
  void (*inputs)(const std::vector<Inputs>&, Executor&);
};

// The targets of this architecture, fastest first.
std::vector<Target> Targets();

struct Choice {
  Target target;
  std::string error;  // Why no target was chosen; otherwise empty.
};

// Chooses the target with this name, or the fastest supported target if `name` is null
// or empty. The caller reads the name from the environment variable
// JAXRNN_NATIVE_TARGET, which the error mentions.
Choice Choose(const char* name);

}  // namespace jaxrnn

#endif  // JAXRNN_DISPATCH_H_
