// Vectors of floats that fill the target's registers, and functions of vectors.
#ifndef JAXRNN_SIMD_H_
#define JAXRNN_SIMD_H_

#include <cstdint>
#include <cstring>

namespace jaxrnn::JAXRNN_TARGET {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kAccumulators = 24;
#elif defined(__AVX2__)
constexpr int kLanes = 8, kAccumulators = 12;
#elif defined(__aarch64__)
constexpr int kLanes = 4, kAccumulators = 24;
#else
constexpr int kLanes = 4, kAccumulators = 12;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef Vec Unaligned __attribute__((aligned(4), may_alias));

inline Vec Load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
inline void Store(float* p, Vec v) { *reinterpret_cast<Unaligned*>(p) = v; }

// Loads or stores the first `count` lanes. The other loaded lanes are 0.
inline Vec Load(const float* p, int count) {
  if (count == kLanes) return Load(p);
  Vec v = {};
  std::memcpy(&v, p, sizeof(float) * count);
  return v;
}
inline void Store(float* p, Vec v, int count) {
  if (count == kLanes) return Store(p, v);
  std::memcpy(p, &v, sizeof(float) * count);
}

#if defined(__FMA__) || defined(__aarch64__)
constexpr float kLargestTanh = 7.99881172180175781f;
#else
constexpr float kLargestTanh = 7.90531110763549805f;
#endif

// NaN stays NaN.
inline Vec Clamp(Vec x, float most) {
  x = x > most ? Vec{} + most : x;
  return x < -most ? Vec{} - most : x;
}

// Eigen's rational approximation, which XLA also uses: x times a ratio of polynomials
// in x**2. x is clamped to the value whose result is 1 with a fused multiply-add, or
// the float next to 1 without one. The error is at most 5 units in the last place, or 7
// without a fused multiply-add. For values below 2.5e-36, the absolute error is at most
// 2.5e-36.
inline Vec Tanh(Vec x) {
  const Vec y = Clamp(x, kLargestTanh), s = y * y;
  Vec p = s * -2.76076847742355e-16f + 2.00018790482477e-13f;
  p = s * p + -8.60467152213735e-11f;
  p = s * p + 5.12229709037114e-08f;
  p = s * p + 1.48572235717979e-05f;
  p = s * p + 6.37261928875436e-04f;
  p = s * p + 4.89352455891786e-03f;
  Vec q = s * 1.19825839466702e-06f + 1.18534705686654e-04f;
  q = s * q + 2.26843463243900e-03f;
  q = s * q + 4.89352518554385e-03f;
  return y * p / q;
}

// 2**n for integers n from -126 to 127.
inline Vec PowerOfTwo(Vec n) {
  // Adding 1.5 * 2**23 leaves n in the low bits. The shift moves n to the exponent.
  const Words bits = reinterpret_cast<Words>(n + 12582912.f);
  return reinterpret_cast<Vec>((bits + 127) << 23);
}

// e**x for x from -87 to 87, computed as 2**n * e**r with |r| at most log(2) / 2. n *
// log(2) is subtracted in two parts to keep r accurate. The polynomial is from expf in
// the Cephes library.
inline Vec Exp(Vec x) {
  const Vec n = (x * 1.44269504f + 12582912.f) - 12582912.f;
  Vec r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  Vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = r * p + 8.3334519073e-3f;
  p = r * p + 4.1665795894e-2f;
  p = r * p + 1.6666665459e-1f;
  p = r * p + 5.0000001201e-1f;
  return (r * r * p + r + 1.f) * PowerOfTwo(n);
}

// The error is at most 3 units in the last place for x >= -87. Below -87, the result is
// exactly 0, so that the derivative of a closed gate is 0 even if it is multiplied by a
// large number.
inline Vec Sigmoid(Vec x) {
  const Vec y = 1.f / (1.f + Exp(-Clamp(x, 87.f)));
  return x < -87.f ? Vec{} : y;
}

}  // namespace jaxrnn::JAXRNN_TARGET

#endif  // JAXRNN_SIMD_H_
