// Lets a thread wake another thread on a different core.
#ifndef JAXRNN_CORES_H_
#define JAXRNN_CORES_H_

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace jaxrnn {

// The cores of a thread that sleeps.
//
// After a pause, the load of all cores is low. Linux then often wakes a thread on the
// core of the caller, where it waits for milliseconds, although another core is idle.
class Cores {
 public:
#if defined(__linux__)
  // Called by another thread, before it wakes this one: excludes the caller's core, if
  // the caller may use others.
  void Avoid() {
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0) return;
    allowed_ = others;
    CPU_CLR(sched_getcpu(), &others);
    limited_ = CPU_COUNT(&others) > 0 &&
               pthread_setaffinity_np(thread_, sizeof others, &others) == 0;
  }

  // Called by this thread, when it wakes: allows the cores that the other thread may
  // use. The thread stays where it is until the scheduler moves it.
  void Allow() {
    if (limited_) pthread_setaffinity_np(thread_, sizeof allowed_, &allowed_);
    limited_ = false;
  }

 private:
  const pthread_t thread_ = pthread_self();
  cpu_set_t allowed_;
  bool limited_ = false;
#else
  void Avoid() {}
  void Allow() {}
#endif
};

}  // namespace jaxrnn

#endif  // JAXRNN_CORES_H_
