#include "dispatch.h"

namespace jaxrnn {

#define JAXRNN_DECLARE(target)                               \
  namespace target {                                         \
  void RunForward(const std::vector<Forward>&, Executor&);   \
  void RunBackward(const std::vector<Backward>&, Executor&); \
  void RunWeights(const std::vector<Weights>&, Executor&);   \
  void RunInputs(const std::vector<Inputs>&, Executor&);     \
  }

#define JAXRNN_TARGET_OF(target, supported) \
  {#target,                                 \
   supported,                               \
   target::RunForward,                      \
   target::RunBackward,                     \
   target::RunWeights,                      \
   target::RunInputs}

JAXRNN_DECLARE(baseline)
#if defined(__x86_64__) && !defined(JAXRNN_BASELINE_ONLY)
JAXRNN_DECLARE(avx2)
JAXRNN_DECLARE(avx512)
#endif

// What is asked of the CPU are the options of each target in CMakeLists.txt.
std::vector<Target> Targets() {
  std::vector<Target> targets;
#if defined(__x86_64__) && !defined(JAXRNN_BASELINE_ONLY)
  __builtin_cpu_init();
  bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
  targets.push_back(JAXRNN_TARGET_OF(avx512, has_avx512));
  targets.push_back(JAXRNN_TARGET_OF(avx2, has_avx2));
#endif
  targets.push_back(JAXRNN_TARGET_OF(baseline, true));
  return targets;
}

Choice Choose(const char* name) {
  std::string names;
  for (const Target& target : Targets()) {
    if (!target.supported) continue;
    if (name == nullptr || name == std::string(target.name)) return {target, ""};
    names += std::string(names.empty() ? "" : ", ") + target.name;
  }
  return {{},
          "JAXRNN_NATIVE_TARGET must be one that this CPU has (" + names +
              "), but it is " + name};
}

}  // namespace jaxrnn
