#include "dispatch.h"

namespace jaxrnn {

#ifdef JAXRNN_HAS_avx512
JAXRNN_DECLARE_ALL(avx512);
#endif
#ifdef JAXRNN_HAS_avx2
JAXRNN_DECLARE_ALL(avx2);
#endif
#ifdef JAXRNN_HAS_baseline
JAXRNN_DECLARE_ALL(baseline);
#endif

#define JAXRNN_TARGET_OF(target, supported) \
  {#target,                                 \
   supported,                               \
   JAXRNN_NAME(Forward, target),            \
   JAXRNN_NAME(Backward, target),           \
   JAXRNN_NAME(Weights, target),            \
   JAXRNN_NAME(Inputs, target)}

// A target is supported if the CPU supports its compiler options in CMakeLists.txt.
std::vector<Target> Targets() {
  std::vector<Target> targets;
#ifdef JAXRNN_HAS_avx512
  __builtin_cpu_init();
  bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
  targets.push_back(JAXRNN_TARGET_OF(avx512, has_avx512));
#ifdef JAXRNN_HAS_avx2
  targets.push_back(JAXRNN_TARGET_OF(avx2, has_avx2));
#endif
#endif
#ifdef JAXRNN_HAS_baseline
  targets.push_back(JAXRNN_TARGET_OF(baseline, true));
#endif
  return targets;
}

Choice Choose(const char* name) {
  if (name != nullptr && *name == '\0') name = nullptr;  // Empty means unset.
  std::string all, supported;
  for (const Target& target : Targets()) {
    const auto add = [&](std::string& to) {
      (to += to.empty() ? "" : ", ") += target.name;
    };
    add(all);
    if (!target.supported) continue;
    if (name == nullptr || name == std::string(target.name)) return {target, ""};
    add(supported);
  }
  if (supported.empty()) return {{}, "this CPU has none of " + all};
  return {{},
          "JAXRNN_NATIVE_TARGET must be one that this CPU has (" + supported +
              "), but it is " + name};
}

}  // namespace jaxrnn
