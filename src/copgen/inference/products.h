// Matrix products with packed weights, of bf16 or of 8-bit integers, and GELU on the way out.
//
// In 8 bits, x's rows are quantised as they are packed, each by its own largest magnitude, and weights are, column by column, by whoever
// packs them. Sums are exact; they are scaled back on the way out. Packed weights are seen as 16 bits a number in both kinds: two integers
// count as one.

#pragma once

#include "tiles.h"

namespace {

// x Phi(x): the error function by Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7.
inline __m512 gelu(__m512 x) {
    const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f)), one = _mm512_set1_ps(1.0f);
    const __m512 d = _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one), guess = _mm512_rcp14_ps(d);
    const __m512 t = _mm512_mul_ps(guess, _mm512_fnmadd_ps(d, guess, _mm512_set1_ps(2.0f)));              // 1 / d by one step of Newton's
    __m512 p = _mm512_set1_ps(1.061405429f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
    const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), exp2(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-LOG2_E))));
    const __m512 below = _mm512_mul_ps(_mm512_mul_ps(tail, _mm512_set1_ps(0.5f)), x);                     // x Phi(x) where x is negative
    return _mm512_mask_sub_ps(below, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), x, below);
}

// Matrix products. Weights come in panels of 32 columns, of which half a segment (32 kB) stays in the first-level cache while blocks of 32
// rows go by; the rows' segment stays in the second. A segment is 32 steps of 64 bytes: 1024 of the numbers that are summed over, or 2048
// integers.
constexpr int SEGMENT = 32, HALF = 16, MOST_BLOCKS = 14;

// Where a step of a panel lies in packed weights: segment by segment, panel by panel, step by step, 1024 numbers each.
inline std::ptrdiff_t panel_at(int step, int panel, int steps, int panels) {
    const std::ptrdiff_t segment = step / SEGMENT * SEGMENT, length = std::min<std::ptrdiff_t>(SEGMENT, steps - segment);
    return 1024 * (segment * panels + panel * length + step - segment);
}

// What is multiplied: x [rows, in] by panels from..to of w, which is of integers where it has scales, one a column, and else of bf16. Packed
// x and out are [blocks][in / 32 or panels][32][32], as A wants them in bf16: one product's out is then the next one's x as it stands.
struct Product {
    const bf16 *x, *w, *bias;
    const float* scales;
    bf16* out;
    int rows, in, panels, from, to;
    bool x_packed, out_packed;

    const bf16* at(int row, int step) const {       // 32 numbers of x
        return x_packed ? x + (static_cast<std::ptrdiff_t>(row / 32) * (in / 32) + step) * 1024 + row % 32 * 32
                        : x + static_cast<std::ptrdiff_t>(row) * in + 32 * step;
    }
};

// A block of sums [2][2][16][16] on its way out, a few rows between two steps of the next block: vectors and tiles work side by side.
template <bool INTEGERS, bool GELU> struct Leaving {
    const float* sums = nullptr;         // or the bits of integers
    bf16* out = nullptr;
    const bf16* bias = nullptr;
    const float *of_rows = nullptr, *of_columns = nullptr;                   // scales
    std::ptrdiff_t stride = 0;
    int next = 0, rows = 0;

    void leave(int count) {
        for (const int end = std::min(next + count, rows); next < end; ++next) {
            __m512 y[2];
            for (int side = 0; side < 2; ++side) {
                y[side] = _mm512_load_ps(sums + next / 16 * 512 + side * 256 + next % 16 * 16);
                if (INTEGERS) {
                    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(of_rows[next]), _mm512_loadu_ps(of_columns + 16 * side));
                    y[side] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(y[side])), scale);
                }
                if (bias) y[side] = _mm512_add_ps(y[side], load16(bias + 16 * side));
                if (GELU) y[side] = gelu(y[side]);
            }
            _mm512_storeu_si512((out + next * stride), (__m512i)_mm512_cvtne2ps_pbh(y[1], y[0]));
        }
    }
};

// Rows of x as A wants them: [blocks][steps][2][16][32], rows beyond the last are zero.
void pack_rows(const Product& p, int blocks, int from, int steps, bf16* to) {
    for (int row = 0; row < 32 * blocks; ++row)
        for (int step = 0; step < steps; ++step) {
            const __m512i values = row < p.rows ? _mm512_loadu_si512(p.at(row, from + step)) : _mm512_setzero_si512();
            _mm512_store_si512(to + ((row / 32 * steps + step) * 32 + row % 32) * 32, values);
        }
}

// What one is of each row's integers: a 127th of the largest magnitude, 0 for rows of zeros; no number where the row has one that is none.
void row_scales(const Product& p, int blocks, float* scales) {
    for (int row = 0; row < 32 * blocks; ++row) {
        __m512i most = _mm512_setzero_si512();                               // magnitudes in bf16 are ordered as integers are
        for (int step = 0; step < p.in / 32 && row < p.rows; ++step)
            most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_loadu_si512(p.at(row, step)), _mm512_set1_epi16(0x7fff)));
        const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
        const std::uint32_t largest = _mm512_reduce_max_epu32(_mm512_cvtepu16_epi32(half)) << 16;
        std::memcpy(scales + row, &largest, sizeof(float));
        scales[row] = scales[row] < 1e-30f ? 0 : scales[row] / 127;
    }
}

// The same with integers, two for a number of 16 bits: [blocks][steps][2][16][64].
void quantise_rows(const Product& p, const float* scales, int blocks, int from, int steps, bf16* to) {
    for (int row = 0; row < 32 * blocks; ++row) {
        const __m512 per_one = _mm512_set1_ps(scales[row] == 0 ? 0 : 1 / scales[row]);
        for (int part = 0; part < 2 * steps; ++part) {
            __m256i* place = reinterpret_cast<__m256i*>(to + ((row / 32 * steps + part / 2) * 32 + row % 32) * 32) + part % 2;
            __m128i sides[2] = {};
            for (int side = 0; side < 2 && row < p.rows; ++side)
                sides[side] = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(per_one, load16(p.at(row, 2 * from + part) + 16 * side))));
            _mm256_store_si256(place, _mm256_set_m128i(sides[1], sides[0]));
        }
    }
}

// Tile registers are named in the instruction itself, so by a macro.
#define COPGEN_DOT(sums, a, b)                                                \
    do {                                                                      \
        if constexpr (INTEGERS) _tile_dpbssd(sums, a, b);                     \
        else _tile_dpbf16ps(sums, a, b);                                      \
    } while (false)

template <bool INTEGERS, bool GELU> void multiply(const Product& p) {
    const int blocks = (p.rows + 31) / 32, all = p.in / (INTEGERS ? 64 : 32);
    const std::ptrdiff_t outs = 32 * p.panels;
    const std::size_t held = all > SEGMENT ? p.to - p.from : 1;          // panels whose sums wait for the next segment
    scratch.begin(sizeof(float) * 1024 * (held * blocks + 2) + sizeof(bf16) * 1024 * SEGMENT * blocks + 128 * blocks + 4096);
    float* waiting = scratch.take<float>(held * blocks * 1024);
    float* done = scratch.take<float>(2 * 1024);
    bf16* packed = scratch.take<bf16>(1024 * static_cast<std::size_t>(SEGMENT) * blocks);
    float* scales = scratch.take<float>(32 * blocks);
    if (INTEGERS) row_scales(p, blocks, scales);
    Leaving<INTEGERS, GELU> leaving;
    for (int segment = 0; segment < all; segment += SEGMENT) {
        const int length = std::min(SEGMENT, all - segment);
        const bool as_it_stands = !INTEGERS && p.x_packed;
        if (INTEGERS) quantise_rows(p, scales, blocks, segment, length, packed);
        else if (!p.x_packed) pack_rows(p, blocks, segment, length, packed);
        const bf16* a = as_it_stands ? p.x + 1024 * segment : packed;
        const std::ptrdiff_t block_stride = 1024 * (as_it_stands ? all : length);
        settle();
        for (int panel = p.from; panel < p.to; ++panel)
            for (int half = 0; half < length; half += HALF) {
                const int steps = std::min(HALF, length - half);
                const bool first = segment + half == 0, last = segment + half + steps == all;
                const bf16* weights = p.w + panel_at(segment + half, panel, all, p.panels);
                const char* ahead = reinterpret_cast<const char*>(weights + 1024 * steps);     // the next half panel, most often
                const int lines = (32 * HALF + blocks * steps - 1) / (blocks * steps);
                for (int block = 0; block < blocks; ++block) {
                    float* sums = waiting + ((held > 1 ? panel - p.from : 0) * blocks + block) * 1024;
                    const bool both = p.rows - 32 * block > 16;
                    if (first) {
                        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
                    } else {
                        _tile_loadd(0, sums, 64);
                        _tile_loadd(1, sums + 256, 64);
                        _tile_loadd(2, sums + 512, 64);
                        _tile_loadd(3, sums + 768, 64);
                    }
                    const bf16 *rows = a + block * block_stride + half * 1024, *columns = weights;
                    for (int step = 0; step < steps; ++step, rows += 1024, columns += 1024) {
                        _tile_stream_loadd(4, rows, 64);             // past the first-level cache, where the panel is to stay
                        _tile_loadd(6, columns, 64);
                        COPGEN_DOT(0, 4, 6);
                        _tile_loadd(7, columns + 512, 64);
                        COPGEN_DOT(1, 4, 7);
                        if (both) {
                            _tile_stream_loadd(5, rows + 512, 64);
                            COPGEN_DOT(2, 5, 6);
                            COPGEN_DOT(3, 5, 7);
                        }
                        for (int line = 0; line < lines; ++line, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T1);
                        leaving.leave(2);
                    }
                    leaving.leave(32);
                    if (last) sums = done + (block & 1) * 1024;
                    _tile_stored(0, sums, 64);
                    _tile_stored(1, sums + 256, 64);
                    _tile_stored(2, sums + 512, 64);
                    _tile_stored(3, sums + 768, 64);
                    if (last) leaving = {sums, p.out + (p.out_packed ? (block * p.panels + panel) * 1024 : 32 * block * outs + 32 * panel),
                                         p.bias ? p.bias + 32 * panel : nullptr, scales + 32 * block, p.scales + 32 * panel,
                                         p.out_packed ? 32 : outs, 0,
                                         p.out_packed ? 32 : std::min(32, p.rows - 32 * block)};
                }
            }
    }
    leaving.leave(32);
}

#undef COPGEN_DOT

}  // namespace
