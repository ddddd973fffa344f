// The operations of a decoder, besides the products of matrices, for the CPU: each is one pass over
// memory where torch makes several calls. Compiled by build.py for the machine it runs on, called
// by compiled.py; the specification is reference.py. Plain C++17 and OpenMP, no headers of torch's.
//
// Letters as in CONVENTIONS.md: H query heads, K KV heads, D head dim, E hidden size, S tokens per
// block, M blocks per sequence. Weights and activations are T: float, or bfloat16 with its sums in
// float. All pointers are to contiguous memory unless a stride is given, in elements.

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include <omp.h>

#include "numbers.h"

namespace {

// Below so many elements a second thread costs more than it saves.
constexpr Index PARALLEL_ELEMENTS = 1 << 15;

// As many as any function has.
constexpr std::size_t MOST_ARGUMENTS = 12;

template <class T>
inline float sum_of_squares(const T* x, Index size) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < size; i++) sum += widen(x[i]) * widen(x[i]);
    return sum;
}

// out = the rows of a table that ids name. table: [V, E]. out: [rows, E].
template <class T>
void embed(const T* table, const Index* ids, float* out, Index rows, Index E) {
    for (Index row = 0; row < rows; row++) {
        const T* from = table + ids[row] * E;
        float* to = out + row * E;
#pragma omp simd
        for (Index i = 0; i < E; i++) to[i] = widen(from[i]);
    }
}

// Weights come from memory, a row after another: asked for this far ahead, they are there in time.
constexpr Index AHEAD_BYTES = 12288;

// sums[r] = weights . row r of x, for NUM rows, each in the same order whatever NUM is.
// x: [NUM, size].
template <int NUM, class T>
void multiply_rows(const T* weights, const typename Product<T>::X* x, float* sums, Index size) {
    using P = Product<T>;
    constexpr Index STEP = P::STEP;
    Lanes even[NUM] = {}, odd[NUM] = {};  // two of each, to hide how long an addition takes
    Index i = 0;
    for (; i + 2 * STEP <= size; i += 2 * STEP) {
        __builtin_prefetch(reinterpret_cast<const char*>(weights + i) + AHEAD_BYTES);
        __builtin_prefetch(reinterpret_cast<const char*>(weights + i + STEP) + AHEAD_BYTES);
        const auto first = P::load(weights + i), second = P::load(weights + i + STEP);
        for (int r = 0; r < NUM; r++) {
            P::add(even[r], first, x + r * size + i);
            P::add(odd[r], second, x + r * size + i + STEP);
        }
    }
    for (; i < size; i += STEP) {
        const Index rest = std::min(STEP, size - i);
        T last[STEP] = {};
        std::copy_n(weights + i, rest, last);
        for (int r = 0; r < NUM; r++) {
            typename P::X last_x[STEP] = {};
            std::copy_n(x + r * size + i, rest, last_x);
            P::add(even[r], P::load(last), last_x);
        }
    }
    for (int r = 0; r < NUM; r++) sums[r] = sum_of(even[r] + odd[r]);
}

// out = x W^T + bias, unless that is null, for a few rows of x. W: [N, size]. x: [rows, size].
// bias: [N]. out: [rows, N].
template <class T>
void multiply(const T* W, const T* x, const T* bias, T* out, Index rows, Index N, Index size) {
    using X = typename Product<T>::X;
    const X* prepared;
    if constexpr (std::is_same_v<X, T>) {
        prepared = x;
    } else {
        static thread_local std::vector<X> scratch;
        scratch.resize(size_t(rows * size));
        for (Index i = 0; i < rows * size; i++) scratch[i] = widen(x[i]);
        prepared = scratch.data();
    }
#pragma omp parallel for schedule(static) if (rows * N * size > PARALLEL_ELEMENTS)
    for (Index n = 0; n < N; n++) {
        const float start = bias == nullptr ? 0.0f : widen(bias[n]);
        Index r = 0;
        const auto multiply_next = [&](auto number) {
            constexpr int NUM = number;
            for (; r + NUM <= rows; r += NUM) {
                float sums[NUM];
                multiply_rows<NUM>(W + n * size, prepared + r * size, sums, size);
                for (int i = 0; i < NUM; i++) narrow(start + sums[i], out[(r + i) * N + n]);
            }
        };
        multiply_next(std::integral_constant<int, 8>());
        multiply_next(std::integral_constant<int, 4>());
        multiply_next(std::integral_constant<int, 2>());
        multiply_next(std::integral_constant<int, 1>());
    }
}

// hidden += delta, in place, unless delta is null; out = hidden / hypot(|hidden|, floor) * gain.
// hidden: [rows, E] float. delta, out: [rows, E]. gain: [E]. floor: one number.
template <class T>
void add_norm(float* hidden, const T* delta, const float* gain, const float* floor, T* out,
              Index rows, Index E) {
#pragma omp parallel for if (rows * E > PARALLEL_ELEMENTS)
    for (Index row = 0; row < rows; row++) {
        float* h = hidden + row * E;
        if (delta != nullptr) {
            const T* d = delta + row * E;
#pragma omp simd
            for (Index i = 0; i < E; i++) h[i] += widen(d[i]);
        }
        const float scale = 1.0f / std::sqrt(sum_of_squares(h, E) + *floor * *floor);
        T* o = out + row * E;
#pragma omp simd
        for (Index i = 0; i < E; i++) narrow(h[i] * scale * gain[i], o[i]);
    }
}

// Normalise each head of x, in place. x: [rows, heads, D], row_stride apart.
template <class T>
void norm_heads(T* x, const float* gain, const float* floor, Index rows, Index heads,
                Index row_stride, Index D) {
#pragma omp parallel for if (rows * heads * D > PARALLEL_ELEMENTS)
    for (Index row = 0; row < rows; row++) {
        for (Index head = 0; head < heads; head++) {
            T* h = x + row * row_stride + head * D;
            const float scale = 1.0f / std::sqrt(sum_of_squares(h, D) + *floor * *floor);
#pragma omp simd
            for (Index i = 0; i < D; i++) narrow(widen(h[i]) * scale * gain[i], h[i]);
        }
    }
}

// out = silu(gate) * up. gate_up: [rows, 2 * size], gate first. out: [rows, size].
template <class T>
void silu_and_mul(const T* gate_up, T* out, Index rows, Index size) {
#pragma omp parallel for if (rows * size > PARALLEL_ELEMENTS)
    for (Index row = 0; row < rows; row++) {
        const T* gate = gate_up + row * 2 * size;
        const T* up = gate + size;
        T* o = out + row * size;
#pragma omp simd
        for (Index i = 0; i < size; i++) {
            const float x = widen(gate[i]);
            const float e = exp_of_negative(-std::fabs(x));  // sigmoid without overflow
            narrow(x * (x < 0.0f ? e : 1.0f) / (1.0f + e) * widen(up[i]), o[i]);
        }
    }
}

// Turn queries and keys by their positions, in place; then copy keys and values to their slots.
// heads: [rows, H + 2 * K, D]. rotations: [rows, D / 2] pairs (cos, sin). cache: [slots, 2 * K, D].
template <class T>
void rotate_and_write(T* heads, const float* rotations, const Index* slots, T* cache, Index rows,
                      Index H, Index K, Index D) {
    const Index size = (H + 2 * K) * D;
#pragma omp parallel for if (rows * size > PARALLEL_ELEMENTS)
    for (Index row = 0; row < rows; row++) {
        T* r = heads + row * size;
        const float* turn = rotations + row * D;
        for (T* head = r; head < r + (H + K) * D; head += D) {
#pragma omp simd
            for (Index i = 0; i < D; i += 2) {
                const float a = widen(head[i]), b = widen(head[i + 1]);
                narrow(a * turn[i] - b * turn[i + 1], head[i]);
                narrow(a * turn[i + 1] + b * turn[i], head[i + 1]);
            }
        }
        std::memcpy(cache + slots[row] * 2 * K * D, r + H * D, size_t(2 * K * D) * sizeof(T));
    }
}

// The part of a sequence's keys or values that is in one block.
template <class T>
struct Part {
    const T* first;    // the block's first token, at the KV head in question
    Index from, to;    // the tokens of the block that are meant
    Index stride;      // from token to token
};

// weights[g][j] = query g . key j, for NUM query heads. queries: [NUM, D]. weights: rows of n, at the
// block's first token.
template <int NUM, class T>
void score(const float* queries, Part<T> keys, float* weights, Index n, Index D) {
    for (Index j = keys.from; j < keys.to; j++) {
        const T* key = keys.first + j * keys.stride;
        Lanes sums[NUM] = {};
        Index i = 0;
        for (; i + LANES <= D; i += LANES) {
            const Lanes wide = widen_lanes(key + i);
            for (int g = 0; g < NUM; g++) sums[g] += widen_lanes(queries + g * D + i) * wide;
        }
        for (int g = 0; g < NUM; g++) {
            float sum = sum_of(sums[g]);
            for (Index rest = i; rest < D; rest++) sum += queries[g * D + rest] * widen(key[rest]);
            weights[g * n + j] = sum;
        }
    }
}

// mixed[g] += sum over j of weights[g][j] * value j, for NUM query heads. mixed: [NUM, D].
template <int NUM, class T>
void mix(const float* weights, Part<T> values, float* mixed, Index n, Index D) {
    Index i = 0;
    for (; i + LANES <= D; i += LANES) {
        Lanes sums[NUM];
        for (int g = 0; g < NUM; g++) sums[g] = widen_lanes(mixed + g * D + i);
        for (Index j = values.from; j < values.to; j++) {
            const Lanes wide = widen_lanes(values.first + j * values.stride + i);
            for (int g = 0; g < NUM; g++) sums[g] += weights[g * n + j] * wide;
        }
        for (int g = 0; g < NUM; g++) std::memcpy(mixed + g * D + i, &sums[g], sizeof(Lanes));
    }
    for (; i < D; i++) {
        for (Index j = values.from; j < values.to; j++) {
            const float value = widen(values.first[j * values.stride + i]);
            for (int g = 0; g < NUM; g++) mixed[g * D + i] += weights[g * n + j] * value;
        }
    }
}

// The query heads that share a KV head, four at a time: so many fit the registers, and each key
// and value is widened for all of them at once.
template <class T>
void score_group(const float* queries, Part<T> keys, float* weights, Index n, Index G, Index D) {
    Index g = 0;
    for (; g + 4 <= G; g += 4) score<4>(queries + g * D, keys, weights + g * n, n, D);
    for (; g + 2 <= G; g += 2) score<2>(queries + g * D, keys, weights + g * n, n, D);
    for (; g < G; g++) score<1>(queries + g * D, keys, weights + g * n, n, D);
}

template <class T>
void mix_group(const float* weights, Part<T> values, float* mixed, Index n, Index G, Index D) {
    Index g = 0;
    for (; g + 4 <= G; g += 4) mix<4>(weights + g * n, values, mixed + g * D, n, D);
    for (; g + 2 <= G; g += 2) mix<2>(weights + g * n, values, mixed + g * D, n, D);
    for (; g < G; g++) mix<1>(weights + g * n, values, mixed + g * D, n, D);
}

// Turn n scores into weights that add up to 1.
inline void softmax(float* weights, Index n) {
    float top = weights[0];
#pragma omp simd reduction(max : top)
    for (Index j = 0; j < n; j++) top = weights[j] > top ? weights[j] : top;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Index j = 0; j < n; j++) {
        weights[j] = exp_of_negative(weights[j] - top);
        sum += weights[j];
    }
    const float scale = 1.0f / sum;
#pragma omp simd
    for (Index j = 0; j < n; j++) weights[j] *= scale;
}

template <class T>
struct Decodes {
    const T* heads;          // [B, H + 2 * K, D]: the queries come first
    const T* cache;          // [N, S, 2 * K, D]
    const Index* tables;     // [B, M], the sequences' block ids
    const Index* positions;  // [B], of the queries, whose keys and values are in the cache
    T* out;                  // [B, H * D]
    Index B, M, H, K, D, S;
    Index window;            // how many keys back a query sees, itself included; 0 is all
};

// One sequence's query against KV heads [k_from, k_to). scratch: [H * (2 * D + keys)].
template <class T>
void attend_one(const Decodes<T>& in, Index b, Index k_from, Index k_to, float* scratch) {
    const Index D = in.D, S = in.S, G = in.H / in.K;
    const Index end = in.positions[b] + 1;
    const Index first = in.window > 0 ? std::max(Index(0), end - in.window) : 0;
    const Index n = end - first, stride = 2 * in.K * D;
    const T* heads = in.heads + b * (in.H + 2 * in.K) * D;
    const float scale = 1.0f / std::sqrt(float(D));
    float* queries = scratch;
    float* mixed = queries + in.H * D;
    float* weights = mixed + in.H * D;
    for (Index i = k_from * G * D; i < k_to * G * D; i++) {
        queries[i] = widen(heads[i]) * scale;
        mixed[i] = 0.0f;
    }
    // Block by block, all heads of each, so that memory is read in long pieces.
    const auto each_part = [&](const T* memory, auto visit) {
        for (Index block = first / S; block * S < end; block++) {
            const T* tokens = memory + in.tables[b * in.M + block] * S * stride;
            const Index from = std::max(first - block * S, Index(0));
            const Index to = std::min(end - block * S, S);
            for (Index k = k_from; k < k_to; k++) {
                visit(k, Part<T>{tokens + k * D, from, to, stride}, weights + k * G * n + block * S - first);
            }
        }
    };
    each_part(in.cache, [&](Index k, Part<T> keys, float* at) {
        score_group(queries + k * G * D, keys, at, n, G, D);
    });
    for (Index h = k_from * G; h < k_to * G; h++) softmax(weights + h * n, n);
    each_part(in.cache + in.K * D, [&](Index k, Part<T> values, float* at) {
        mix_group(at, values, mixed + k * G * D, n, G, D);
    });
    T* out = in.out + b * in.H * D;
    for (Index i = k_from * G * D; i < k_to * G * D; i++) narrow(mixed[i], out[i]);
}

template <class T>
void attend_all(const Decodes<T>& in) {
    Index num_keys = 0;
    for (Index b = 0; b < in.B; b++) num_keys += in.positions[b] + 1;
    // Few sequences are cut into their KV heads, so that every thread has some.
    const Index parts = in.B >= 8 ? 1 : in.K;
#pragma omp parallel if (num_keys * in.H * in.D > PARALLEL_ELEMENTS)
    {
        std::vector<float> scratch;
#pragma omp for schedule(dynamic)
        for (Index task = 0; task < in.B * parts; task++) {
            const Index b = task / parts, part = task % parts;
            scratch.resize(size_t(in.H * (2 * in.D + in.positions[b] + 1)));
            attend_one(in, b, part * in.K / parts, (part + 1) * in.K / parts, scratch.data());
        }
    }
}

template <class T>
void attend_decodes(const T* heads, const T* cache, const Index* tables, const Index* positions,
                    T* out, Index B, Index M, Index H, Index K, Index D, Index S, Index window) {
    attend_all(Decodes<T>{heads, cache, tables, positions, out, B, M, H, K, D, S, window});
}

// out = the rows of a table that ids name. table: [N, size]. out: [rows, size].
void copy_rows(const float* table, const Index* ids, float* out, Index rows, Index size) {
    for (Index row = 0; row < rows; row++) {
        std::memcpy(out + row * size, table + ids[row] * size, size_t(size) * sizeof(float));
    }
}

// --- calls that are kept, to be made again

using Arguments = const Index*;  // addresses and numbers

template <class A>
A argument(Index value) {
    if constexpr (std::is_pointer_v<A>) {
        return reinterpret_cast<A>(value);
    } else {
        return value;
    }
}

template <class... A, std::size_t... I>
void call(void (*function)(A...), Arguments arguments, std::index_sequence<I...>) {
    function(argument<A>(arguments[I])...);
}

template <class... A>
void call(void (*function)(A...), Arguments arguments) {
    static_assert(sizeof...(A) <= MOST_ARGUMENTS, "a Call has room for so many");
    call(function, arguments, std::index_sequence_for<A...>{});
}

struct Call {
    void (*function)(Arguments);
    Index arguments[MOST_ARGUMENTS];
};

}  // namespace

// Every function takes its arguments in a row: so a call is data, which Python may make at once or
// keep. NAME is a template or a function, FUNCTION what it is exported as.
#define EXPORT_AS(FUNCTION, NAME) \
    void FUNCTION(Arguments arguments) { call(&NAME, arguments); }

#define EXPORT(SUFFIX, T)                                   \
    EXPORT_AS(embed_##SUFFIX, embed<T>)                     \
    EXPORT_AS(multiply_##SUFFIX, multiply<T>)               \
    EXPORT_AS(add_norm_##SUFFIX, add_norm<T>)               \
    EXPORT_AS(norm_heads_##SUFFIX, norm_heads<T>)           \
    EXPORT_AS(silu_and_mul_##SUFFIX, silu_and_mul<T>)       \
    EXPORT_AS(rotate_and_write_##SUFFIX, rotate_and_write<T>) \
    EXPORT_AS(attend_decodes_##SUFFIX, attend_decodes<T>)

extern "C" {
// Of the thread that calls; torch's number, in case this library has OpenMP threads of its own.
void set_num_threads(int number) { omp_set_num_threads(number); }

EXPORT(float32, float)
EXPORT(bfloat16, BFloat16)
EXPORT_AS(take_rows, copy_rows)

void replay(const Call* calls, Index num_calls) {
    for (const Call* each = calls; each < calls + num_calls; each++) each->function(each->arguments);
}
}
