// Tells the processor that a thread waits.
#ifndef JAXRNN_PAUSE_H_
#define JAXRNN_PAUSE_H_

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace jaxrnn {

inline void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace jaxrnn

#endif  // JAXRNN_PAUSE_H_
