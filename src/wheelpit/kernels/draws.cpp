// Draw tokens at random: the same choice as runner/draws.py, which is the specification, in one
// pass over a row's logits. Compiled by build.py, called by compiled.py.

#include <algorithm>
#include <limits>
#include <vector>

#include "numbers.h"

namespace {

// Fewer are drawn from sooner than a second thread has begun.
constexpr Index PARALLEL_LOGITS = 1 << 18;

// The noise of one row: Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
// 2, 3") with key (seed, 0) and counter (1 + n, position, 0, 0) for its n-th block of four words,
// as numpy numbers them.
class Philox {
public:
    Philox(std::uint64_t seed, std::uint64_t position) : seed_(seed), position_(position) {}

    // The eight 32-bit words of a block, in order.
    void block(std::uint64_t number, std::uint32_t words[8]) const {
        std::uint64_t c[4] = {number + 1, position_, 0, 0};
        std::uint64_t k[2] = {seed_, 0};
        for (int round = 0; round < 10; round++) {
            if (round > 0) {
                k[0] += 0x9E3779B97F4A7C15u;
                k[1] += 0xBB67AE8584CAA73Bu;
            }
            const auto first = wide(0xD2E7470EE14C6C93u) * c[0];
            const auto second = wide(0xCA5A826395121157u) * c[2];
            const std::uint64_t next[4] = {
                std::uint64_t(second >> 64) ^ c[1] ^ k[0], std::uint64_t(second),
                std::uint64_t(first >> 64) ^ c[3] ^ k[1], std::uint64_t(first)};
            std::copy(next, next + 4, c);
        }
        for (int i = 0; i < 4; i++) {
            words[2 * i] = std::uint32_t(c[i]);
            words[2 * i + 1] = std::uint32_t(c[i] >> 32);
        }
    }

    std::uint32_t word(std::uint64_t number) const {
        std::uint32_t words[8];
        block(number / 8, words);
        return words[number % 8];
    }

private:
    using wide = unsigned __int128;
    std::uint64_t seed_, position_;
};

// -log(-log(1 - u)) for u = (word + 0.5) / 2^32, so that u = 1 is a token never drawn.
inline float gumbel(std::uint32_t word) {
    const float u = (float(word) + 0.5f) * 2.3283064365386963e-10f;
    // log1p(-u) with all of u's bits where it is small (Kahan): the small ones decide a draw.
    const float rest = 1.0f - u, taken = 1.0f - rest;
    const float safe = rest > 0.0f ? rest : 0.5f, divisor = taken > 0.0f ? taken : 1.0f;
    const float waited = taken > 0.0f ? -log_of_positive(safe) * (u / divisor) : u;
    const float noise = -log_of_positive(waited);
    return rest > 0.0f ? noise : -std::numeric_limits<float>::infinity();
}

struct Token {
    float value;
    std::int32_t id;
    bool operator<(const Token& other) const {  // the likelier first
        return value > other.value || (value == other.value && id < other.id);
    }
};

struct Row {
    const float* logits;  // [V], divided by the temperature already
    Index V;
    float min_p;      // 0 keeps all
    Index top_k;      // 0 keeps all
    float top_p;      // 1 keeps all
    Philox noise;
};

Index draw_from_all(const Row& row) {
    constexpr Index BLOCK = 8;
    float best = -std::numeric_limits<float>::infinity();
    Index found = 0;
    for (Index first = 0; first < row.V; first += BLOCK) {
        std::uint32_t words[BLOCK];
        row.noise.block(std::uint64_t(first / BLOCK), words);
        const Index size = std::min(BLOCK, row.V - first);
        for (Index i = 0; i < size; i++) {
            // As -log(1 - u) >= u, noise is at most -log(u), and so at most -log(2) times the
            // exponent of u. Few tokens get past that, so few logarithms are taken.
            const float logit = row.logits[first + i];
            const float u = (float(words[i]) + 0.5f) * 2.3283064365386963e-10f;
            const float exponent = float(std::int32_t(bits_of<std::uint32_t>(u) >> 23) - 127);
            if (logit - 0.693147f * exponent < best) continue;
            const float score = logit + gumbel(words[i]);
            if (score > best) {
                best = score;
                found = first + i;
            }
        }
    }
    return found;
}

// How many of the tokens, the likeliest first, the filters keep; -1 if it takes more to tell.
// floor: min_p's. is_all: there are no others above the floor.
Index count_kept(const Row& row, const std::vector<Token>& tokens, float floor, bool is_all) {
    const Index known = Index(tokens.size());
    Index kept = row.top_k > 0 ? std::min(row.top_k, known) : known;
    const bool is_complete = is_all || (row.top_k > 0 && row.top_k <= known);
    if (row.top_p >= 1.0f) return is_complete ? kept : -1;
    const float top = tokens[0].value;
    float mass = 0.0f;
    if (is_complete) {
        for (Index i = 0; i < kept; i++) mass += exp_of_negative(tokens[i].value - top);
    } else if (row.top_k > 0) {
        return -1;
    } else {
#pragma omp simd reduction(+ : mass)
        for (Index i = 0; i < row.V; i++) {
            const float weight = exp_of_negative(row.logits[i] - top);
            mass += row.logits[i] >= floor ? weight : 0.0f;
        }
    }
    float before = 0.0f;
    for (Index i = 0; i < kept; i++) {
        if (i > 0 && before >= row.top_p * mass) return i;
        before += exp_of_negative(tokens[i].value - top);
    }
    return is_complete || before >= row.top_p * mass ? kept : -1;
}

Index draw_filtered(const Row& row) {
    float top = row.logits[0];
#pragma omp simd reduction(max : top)
    for (Index i = 0; i < row.V; i++) top = row.logits[i] > top ? row.logits[i] : top;
    const float floor = row.min_p > 0.0f ? top + std::log(row.min_p)
                                         : -std::numeric_limits<float>::infinity();
    // Mostly the few likeliest tokens say it all: look at more only when they do not.
    std::vector<Token> tokens;
    Index kept = -1;
    for (const float depth : {5.0f, 10.0f, std::numeric_limits<float>::infinity()}) {
        const float lowest = std::max(floor, top - depth);
        const bool is_all = lowest == floor;
        tokens.clear();
        for (Index i = 0; i < row.V; i++) {
            if (row.logits[i] >= lowest) tokens.push_back({row.logits[i], std::int32_t(i)});
        }
        if (tokens.empty()) return 0;  // not a number: the row ends with an error anyway
        std::sort(tokens.begin(), tokens.end());
        kept = count_kept(row, tokens, floor, is_all);
        if (kept >= 0) break;
    }
    float best = -std::numeric_limits<float>::infinity();
    Index found = tokens[0].id;
    for (Index i = 0; i < kept; i++) {
        const float score = tokens[i].value + gumbel(row.noise.word(std::uint64_t(tokens[i].id)));
        if (score > best || (score == best && tokens[i].id < found)) {
            best = score;
            found = tokens[i].id;
        }
    }
    return found;
}

}  // namespace

// One token per row into out. logits: [rows, V] float; divided by the temperatures, in place.
extern "C" void draw_tokens(float* logits, const float* temperatures, const float* min_ps,
                            const Index* top_ks, const float* top_ps, const std::uint64_t* seeds,
                            const Index* positions, Index* out, Index rows, Index V) {
#pragma omp parallel for schedule(dynamic) if (rows * V > PARALLEL_LOGITS)
    for (Index r = 0; r < rows; r++) {
        float* values = logits + r * V;
#pragma omp simd
        for (Index i = 0; i < V; i++) values[i] /= temperatures[r];
        const Row row{values,
                      V,
                      min_ps[r],
                      top_ks[r],
                      top_ps[r],
                      Philox(seeds[r], std::uint64_t(positions[r]))};
        const bool is_filtered = row.min_p > 0.0f || row.top_k > 0 || row.top_p < 1.0f;
        out[r] = is_filtered ? draw_filtered(row) : draw_from_all(row);
    }
}
