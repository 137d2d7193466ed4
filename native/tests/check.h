// A check that ends the test program if it fails.
#ifndef JAXRNN_CHECK_H_
#define JAXRNN_CHECK_H_

#include <cstdio>
#include <cstdlib>
#include <string>

namespace jaxrnn {

inline void Check(bool condition, const std::string& message) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", message.c_str());
  std::_Exit(1);
}

}  // namespace jaxrnn

#endif  // JAXRNN_CHECK_H_
