// Number types and elementary functions for cpu.cpp and draws.cpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

using Index = std::int64_t;

template <class To, class From>
inline To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

struct BFloat16 {
    std::uint16_t bits;
};

inline float widen(float value) { return value; }

inline float widen(BFloat16 value) { return bits_of<float>(std::uint32_t(value.bits) << 16); }

// Sixteen floats that are computed with at once, as GCC and Clang write it for any processor.
constexpr Index LANES = 16;
using Lanes = float __attribute__((vector_size(LANES * sizeof(float))));

inline Lanes widen_lanes(const float* values) {
    Lanes wide;
    std::memcpy(&wide, values, sizeof wide);
    return wide;
}

inline Lanes widen_lanes(const BFloat16* values) {
#ifdef __AVX512F__
    // What follows after it, in a third of the instructions that GCC 12 makes of that.
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    return bits_of<Lanes>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#else
    using Half = std::uint16_t __attribute__((vector_size(LANES * sizeof(std::uint16_t))));
    using Whole = std::uint32_t __attribute__((vector_size(LANES * sizeof(std::uint32_t))));
    Half halves;
    std::memcpy(&halves, values, sizeof halves);
    return bits_of<Lanes>(__builtin_convertvector(halves, Whole) << 16);
#endif
}

// What a row of weights is multiplied by, so many at a time, and how: sums += weights * x.
template <class T>
struct Product {
    using X = float;
    static constexpr Index STEP = LANES;
    using Weights = Lanes;
    static Weights load(const T* weights) { return widen_lanes(weights); }
    static void add(Lanes& sums, Weights weights, const X* x) { sums += weights * widen_lanes(x); }
};

#ifdef __AVX512BF16__
// Pairs of neighbours are multiplied and added in one instruction, without widening them.
template <>
struct Product<BFloat16> {
    using X = BFloat16;
    static constexpr Index STEP = 2 * LANES;
    using Weights = __m512bh;
    static Weights load(const BFloat16* values) {
        return bits_of<__m512bh>(_mm512_loadu_si512(values));
    }
    static void add(Lanes& sums, Weights weights, const X* x) {
        sums = bits_of<Lanes>(_mm512_dpbf16_ps(bits_of<__m512>(sums), weights, load(x)));
    }
};
#endif

inline float sum_of(Lanes lanes) {
    using Eight = float __attribute__((vector_size(8 * sizeof(float))));
    using Four = float __attribute__((vector_size(4 * sizeof(float))));
    struct Eights { Eight low, high; } eights = bits_of<Eights>(lanes);
    struct Fours { Four low, high; } fours = bits_of<Fours>(eights.low + eights.high);
    const Four four = fours.low + fours.high;
    return (four[0] + four[2]) + (four[1] + four[3]);
}

inline void narrow(float value, float& to) { to = value; }

// Rounds to the nearest, ties to even; NaN stays NaN.
inline void narrow(float value, BFloat16& to) {
    const std::uint32_t bits = bits_of<std::uint32_t>(value);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to.bits = std::uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

// Polynomials of our own, because loops over std::exp and std::log are not vectorised everywhere.
// Range reduction and coefficients: Cephes' expf and logf (netlib.org/cephes).

// e^x for x <= 0, to 2 ulp; 0 only for less than -87. NaN stays NaN.
inline float exp_of_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    const float n = std::floor(x * 1.44269504f + 0.5f);
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * bits_of<float>((std::int32_t(n) + 127) << 23);
}

// The natural logarithm of a normal number > 0, to 2 ulp.
inline float log_of_positive(float x) {
    const std::uint32_t bits = bits_of<std::uint32_t>(x);
    std::int32_t exponent = std::int32_t(bits >> 23) - 126;
    float m = bits_of<float>((bits & 0x007fffffu) | 0x3f000000u);  // in [0.5, 1)
    const bool is_small = m < 0.707106781f;
    exponent -= is_small;
    m = (is_small ? m + m : m) - 1.0f;
    const float square = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const float e = float(exponent);
    return m + (p * m * square - 2.12194440e-4f * e - 0.5f * square) + 0.693359375f * e;
}
