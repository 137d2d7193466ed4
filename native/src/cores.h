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
    if (sched_getaffinity(0, sizeof allowed_, &allowed_) != 0) return;
    others_ = allowed_;
    CPU_CLR(sched_getcpu(), &others_);
    limited_ = CPU_COUNT(&others_) > 0 &&
               pthread_setaffinity_np(thread_, sizeof others_, &others_) == 0;
  }

  // Called by this thread, when it wakes: allows the cores that the other thread may
  // use, unless a user has meanwhile limited this thread to other cores. The thread
  // stays where it is until the scheduler moves it.
  void Allow() {
    cpu_set_t now;
    if (limited_ && pthread_getaffinity_np(thread_, sizeof now, &now) == 0 &&
        CPU_EQUAL(&now, &others_))
      pthread_setaffinity_np(thread_, sizeof allowed_, &allowed_);
    limited_ = false;
  }

 private:
  const pthread_t thread_ = pthread_self();
  cpu_set_t allowed_, others_;
  bool limited_ = false;
#else
  void Avoid() {}
  void Allow() {}
#endif
};

}  // namespace jaxrnn

#endif  // JAXRNN_CORES_H_
