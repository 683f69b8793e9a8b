// What a network call spends outside its matrix products, for processors with AMX (bf16 tiles) and AVX-512: attention, residual and
// layer norm, GELU. All numbers between bf16 inputs and outputs are float32. Compiled by kernels.py for the machine that it runs on.
//
// A tile register holds 16 rows of 64 bytes. _tile_dpbf16ps(C, A, B) adds A [16 x 32] times B [32 x 16] to C [16 x 16]; B's rows come in
// pairs: its register's row r holds, column by column, B[2r] and B[2r + 1].

#include <immintrin.h>
#include <omp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

using bf16 = std::uint16_t;
constexpr int HEAD = 64;                 // values a head
constexpr int QUERIES = 32;              // queries at a time: two tiles
constexpr float LOG2_E = 1.44269504088896f;

// Registers 0-3 are sums, 4-7 factors; all are full.
struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

const TileConfig FULL;                   // in memory, for the instruction that reads it says nothing to the compiler of how much it reads

struct Tiles {                           // the calling thread's, while this lives
    Tiles() { _tile_loadconfig(&FULL); }
    ~Tiles() { _tile_release(); }
};

// What was written before is in memory from here on: the intrinsics that load a tile don't tell the compiler that they read.
inline void settle() { asm volatile("" ::: "memory"); }

// A thread's working memory, which it keeps: fresh memory costs a page fault every 4 kB.
class Scratch {
    char* start = nullptr;
    std::size_t size = 0, used = 0;

public:
    Scratch() = default;
    Scratch(const Scratch&) = delete;
    ~Scratch() { std::free(start); }
    void begin(std::size_t bytes) {      // what was taken before is gone
        used = 0;
        if (bytes <= size) return;
        std::free(start);
        size = (bytes + 4095) / 4096 * 4096;
        start = static_cast<char*>(std::aligned_alloc(4096, size));
        if (!start) std::abort();        // a few megabytes: nothing else would work either
    }
    template <class T> T* take(std::size_t count) {
        T* place = reinterpret_cast<T*>(start + used);
        used += (count * sizeof(T) + 63) / 64 * 64;
        return place;
    }
};

thread_local Scratch scratch;

inline __m512 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

inline __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

inline __m512 load16(const bf16* x) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))); }

inline void store16(bf16* to, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(x)); }

// 2 to the power t, relative error below 5e-6: a polynomial on [0, 1), of least squares at Chebyshev's nodes, exact at 0.
inline __m512 exp2(__m512 t) {
    const __m512 f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(1.35557577e-2f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.20323522e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.41379774e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93032458e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, t);
}

// Of two halves of 16 numbers of 16 bits: first, first, second, second, ...
inline __m512i interleaved(__m512i halves) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18,
                                           2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, halves);
}

// Rows become columns in a block of 16 x 16 numbers of 32 bits.
inline void transpose(__m512i (&r)[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// 16 rows of 32 values, of which the first `rows` are there, as B wants them: [16 pairs of values][16 rows][2].
inline void pack_columns(const bf16* from, std::ptrdiff_t stride, int rows, bf16* to) {
    __m512i r[16];
    for (int i = 0; i < 16; ++i) r[i] = i < rows ? _mm512_loadu_si512(from + i * stride) : _mm512_setzero_si512();
    transpose(r);
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + 32 * i, r[i]);
}

struct Rows { const bf16* at; std::ptrdiff_t stride; };     // one head of one sample: row i begins at at + i * stride

// Keys [n][64] as A wants them: tiles [n / 16][2][16][32]. Values as A wants their transpose: tiles [n / 32][4][16 values][32 keys].
void pack(Rows keys, Rows values, int n, int blocks, bf16* k, bf16* v) {
    for (int i = 0; i < 32 * blocks; ++i)
        for (int half = 0; half < 2; ++half) {
            const __m512i row = i < n ? _mm512_loadu_si512(keys.at + i * keys.stride + 32 * half) : _mm512_setzero_si512();
            _mm512_storeu_si512(k + ((i / 16 * 2 + half) * 16 + i % 16) * 32, row);
        }
    const auto row_of = [&](int i) { return values.at + i * values.stride; };
    for (int block = 0; block < blocks; ++block)
        for (int quarter = 0; quarter < 4; ++quarter) {     // 16 values of 32 keys: their rows, two a register, become columns
            __m512i r[16];
            for (int j = 0; j < 16; ++j) {
                __m256i two[2];
                for (int odd = 0; odd < 2; ++odd) {
                    const int i = 32 * block + 2 * j + odd;
                    two[odd] = i < n ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row_of(i) + 16 * quarter)) : _mm256_setzero_si256();
                }
                const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(two[0]), two[1], 1);      // keys 2j, then 2j + 1
                r[j] = interleaved(both);                                                               // [16 values][2 keys]
            }
            transpose(r);                                                                               // [16 values][32 keys]
            for (int i = 0; i < 16; ++i) _mm512_storeu_si512(v + ((block * 4 + quarter) * 16 + i) * 32, r[i]);
        }
}

// Scores of all keys with 32 queries, [32 * blocks keys][32], and the largest of each query.
void scores(const bf16* k, const bf16* q, int n, int blocks, float* s, __m512 (&largest)[2]) {
    settle();
    _tile_loadd(4, q, 64);                                  // B: queries 0-15, first and second half of their values; then 16-31
    _tile_loadd(5, q + 512, 64);
    _tile_loadd(6, q + 1024, 64);
    _tile_loadd(7, q + 1536, 64);
    largest[0] = largest[1] = _mm512_set1_ps(-1e30f);
    for (int block = 0; block < 2 * blocks; ++block, k += 1024, s += 16 * QUERIES) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_loadd(2, k, 64);
        _tile_dpbf16ps(0, 2, 4);
        _tile_dpbf16ps(1, 2, 6);
        _tile_loadd(3, k + 512, 64);
        _tile_dpbf16ps(0, 3, 5);
        _tile_dpbf16ps(1, 3, 7);
        _tile_stored(0, s, 4 * QUERIES);
        _tile_stored(1, s + 16, 4 * QUERIES);
        const int there = std::clamp(n - 16 * block, 0, 16);
        for (int i = 0; i < there; ++i)
            for (int side = 0; side < 2; ++side) largest[side] = _mm512_max_ps(_mm512_loadu_ps(s + i * QUERIES + 16 * side), largest[side]);
        for (int i = there; i < 16; ++i)
            for (int side = 0; side < 2; ++side) _mm512_storeu_ps(s + i * QUERIES + 16 * side, _mm512_set1_ps(-1e30f));
    }
}

// Scores become weights that are not normalised yet, as B wants them: tiles [blocks][2][16 pairs of keys][16 queries][2]; and their sums.
void soften(const float* s, int blocks, float scale, const __m512 (&largest)[2], bf16* p, __m512 (&sum)[2]) {
    const __m512 c = _mm512_set1_ps(scale * LOG2_E);
    const __m512 shift[2] = {_mm512_mul_ps(largest[0], c), _mm512_mul_ps(largest[1], c)};
    sum[0] = sum[1] = _mm512_setzero_ps();
    for (int block = 0; block < blocks; ++block)
        for (int pair = 0; pair < 16; ++pair)
            for (int side = 0; side < 2; ++side) {
                const float* at = s + (32 * block + 2 * pair) * QUERIES + 16 * side;
                const __m512 even = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(at), c, shift[side]));
                const __m512 odd = exp2(_mm512_fmsub_ps(_mm512_loadu_ps(at + QUERIES), c, shift[side]));
                sum[side] = _mm512_add_ps(sum[side], _mm512_add_ps(even, odd));
                const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);               // 16 even, then 16 odd
                _mm512_storeu_si512(p + ((block * 2 + side) * 16 + pair) * 32, interleaved(both));
            }
}

// Values weighted, transposed: o [64][32].
void weigh(const bf16* v, const bf16* p, int blocks, float* o) {
    settle();
    for (int half = 0; half < 2; ++half) {                  // 32 values by 32 queries
        for (int block = 0; block < blocks; ++block) {
            if (block == 0) { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }
            const bf16* a = v + (block * 4 + 2 * half) * 512;
            const bf16* b = p + block * 1024;
            _tile_loadd(4, a, 64);
            _tile_loadd(6, b, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b + 512, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, a + 512, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        float* to = o + 32 * half * QUERIES;
        _tile_stored(0, to, 4 * QUERIES);
        _tile_stored(1, to + 16, 4 * QUERIES);
        _tile_stored(2, to + 16 * QUERIES, 4 * QUERIES);
        _tile_stored(3, to + 16 * QUERIES + 16, 4 * QUERIES);
    }
}

void write_out(const float* o, const __m512 (&sum)[2], int there, bf16* out, std::ptrdiff_t stride) {
    for (int side = 0; side < 2; ++side) {
        const __m512 share = _mm512_div_ps(_mm512_set1_ps(1.0f), sum[side]);
        for (int quarter = 0; quarter < 4; ++quarter) {
            __m512i r[16];
            for (int i = 0; i < 16; ++i)
                r[i] = _mm512_castps_si512(_mm512_mul_ps(_mm512_loadu_ps(o + (16 * quarter + i) * QUERIES + 16 * side), share));
            transpose(r);
            for (int i = 0; i < std::min(there - 16 * side, 16); ++i)
                store16(out + (16 * side + i) * stride + 16 * quarter, _mm512_castsi512_ps(r[i]));
        }
    }
}

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
// rows go by; the rows' segment stays in the second. A segment is 1024 of the numbers that are summed over, 32 steps of 32.
constexpr int SEGMENT = 32, HALF = 16, MOST_BLOCKS = 14;

// Where a step of a panel lies in packed weights: segment by segment, panel by panel, step by step, 1024 numbers each.
inline std::ptrdiff_t panel_at(int step, int panel, int steps, int panels) {
    const std::ptrdiff_t segment = step / SEGMENT * SEGMENT, length = std::min<std::ptrdiff_t>(SEGMENT, steps - segment);
    return 1024 * (segment * panels + panel * length + step - segment);
}

// What is multiplied: x [rows, 32 * steps] by panels from..to of w. Packed x and out are [blocks][steps or panels][32][32], as A wants them:
// one product's out is then the next one's x as it stands.
struct Product {
    const bf16 *x, *w, *bias;
    bf16* out;
    int rows, steps, panels, from, to;
    bool x_packed, out_packed;
};

// A block of sums [2][2][16][16] on its way out, a few rows between two steps of the next block: vectors and tiles work side by side.
template <bool GELU> struct Leaving {
    const float* sums = nullptr;
    bf16* out = nullptr;
    const bf16* bias = nullptr;
    std::ptrdiff_t stride = 0;
    int next = 0, rows = 0;

    void leave(int count) {
        for (const int end = std::min(next + count, rows); next < end; ++next) {
            __m512 y[2];
            for (int side = 0; side < 2; ++side) {
                y[side] = _mm512_load_ps(sums + next / 16 * 512 + side * 256 + next % 16 * 16);
                if (bias) y[side] = _mm512_add_ps(y[side], load16(bias + 16 * side));
                if (GELU) y[side] = gelu(y[side]);
            }
            _mm512_storeu_si512((out + next * stride), (__m512i)_mm512_cvtne2ps_pbh(y[1], y[0]));
        }
    }
};

// Rows of x as A wants them: [blocks][steps][2][16][32], rows beyond the last are zero.
void pack_rows(const bf16* x, std::ptrdiff_t stride, int rows, int blocks, int steps, bf16* to) {
    for (int row = 0; row < 32 * blocks; ++row)
        for (int step = 0; step < steps; ++step) {
            const __m512i values = row < rows ? _mm512_loadu_si512(x + row * stride + 32 * step) : _mm512_setzero_si512();
            _mm512_store_si512(to + ((row / 32 * steps + step) * 32 + row % 32) * 32, values);
        }
}

template <bool GELU> void multiply(const Product& p) {
    const int blocks = (p.rows + 31) / 32;
    const std::ptrdiff_t in = 32 * p.steps, outs = 32 * p.panels;
    const std::size_t held = p.steps > SEGMENT ? p.to - p.from : 1;          // panels whose sums wait for the next segment
    scratch.begin(sizeof(float) * 1024 * (held * blocks + 2) + sizeof(bf16) * 1024 * SEGMENT * blocks + 4096);
    float* waiting = scratch.take<float>(held * blocks * 1024);
    float* done = scratch.take<float>(2 * 1024);
    bf16* packed = scratch.take<bf16>(1024 * static_cast<std::size_t>(SEGMENT) * blocks);
    Leaving<GELU> leaving;
    for (int segment = 0; segment < p.steps; segment += SEGMENT) {
        const int length = std::min(SEGMENT, p.steps - segment);
        if (!p.x_packed) pack_rows(p.x + 32 * segment, in, p.rows, blocks, length, packed);
        const bf16* a = p.x_packed ? p.x + 1024 * segment : packed;
        const std::ptrdiff_t block_stride = 1024 * (p.x_packed ? p.steps : length);
        settle();
        for (int panel = p.from; panel < p.to; ++panel)
            for (int half = 0; half < length; half += HALF) {
                const int steps = std::min(HALF, length - half);
                const bool first = segment + half == 0, last = segment + half + steps == p.steps;
                const bf16* weights = p.w + panel_at(segment + half, panel, p.steps, p.panels);
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
                        _tile_dpbf16ps(0, 4, 6);
                        _tile_loadd(7, columns + 512, 64);
                        _tile_dpbf16ps(1, 4, 7);
                        if (both) {
                            _tile_stream_loadd(5, rows + 512, 64);
                            _tile_dpbf16ps(2, 5, 6);
                            _tile_dpbf16ps(3, 5, 7);
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
                                         p.bias ? p.bias + 32 * panel : nullptr, p.out_packed ? 32 : outs, 0,
                                         p.out_packed ? 32 : std::min(32, p.rows - 32 * block)};
                }
            }
    }
    leaving.leave(32);
}

}  // namespace

extern "C" {

// Whether the system lets this process use tile registers (Linux asks to be asked).
int copgen_permitted() { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0; }

// Softmax attention: q [batch, queries, heads, 64], k and v [batch, keys, heads, 64], out as q. Strides in values, of samples and of rows.
void copgen_attention(const bf16* q, const bf16* k, const bf16* v, bf16* out, int batch, int heads, int queries, int keys, float scale,
                      const std::ptrdiff_t* sample_strides, const std::ptrdiff_t* row_strides) {
    const int blocks = (keys + 31) / 32;
    const std::size_t padded = 32 * static_cast<std::size_t>(blocks);
#pragma omp parallel
    {
        const Tiles tiles;
        scratch.begin(padded * (2 * 2 * HEAD + QUERIES * (4 + 2)) + 4 * HEAD * QUERIES + 4 * 2 * 16 * 32 + 4096);
        bf16* packed_k = scratch.take<bf16>(padded * HEAD);
        bf16* packed_v = scratch.take<bf16>(padded * HEAD);
        float* s = scratch.take<float>(padded * QUERIES);
        bf16* p = scratch.take<bf16>(padded * QUERIES);
        float* o = scratch.take<float>(HEAD * QUERIES);
        bf16* packed_q = scratch.take<bf16>(2 * HEAD * 16);
#pragma omp for schedule(static)
        for (int task = 0; task < batch * heads; ++task) {
            const std::ptrdiff_t b = task / heads, offset = task % heads * HEAD;
            const auto start = [&](auto* x, int which) { return x + b * sample_strides[which] + offset; };
            pack({start(k, 1), row_strides[1]}, {start(v, 2), row_strides[2]}, keys, blocks, packed_k, packed_v);
            for (int first = 0; first < queries; first += QUERIES) {
                for (int part = 0; part < 4; ++part)        // queries 0-15: first half, second half; queries 16-31 likewise
                    pack_columns(start(q, 0) + (first + part / 2 * 16) * row_strides[0] + part % 2 * 32, row_strides[0],
                                 std::clamp(queries - first - part / 2 * 16, 0, 16), packed_q + 512 * part);
                __m512 largest[2], sum[2];
                scores(packed_k, packed_q, keys, blocks, s, largest);
                soften(s, blocks, scale, largest, p, sum);
                weigh(packed_v, p, blocks, o);
                write_out(o, sum, std::min(queries - first, QUERIES), start(out, 3) + first * row_strides[3], row_strides[3]);
                if (task % heads + 1 < heads)               // the next head's keys and values, a part after each block
                    for (std::ptrdiff_t row = static_cast<std::ptrdiff_t>(keys) * first / queries,
                         end = static_cast<std::ptrdiff_t>(keys) * std::min(first + QUERIES, queries) / queries; row < end; ++row)
                        for (int line = 0; line < 2; ++line) {
                            _mm_prefetch(reinterpret_cast<const char*>(start(k, 1) + row * row_strides[1] + HEAD) + 64 * line, _MM_HINT_T1);
                            _mm_prefetch(reinterpret_cast<const char*>(start(v, 2) + row * row_strides[2] + HEAD) + 64 * line, _MM_HINT_T1);
                        }
            }
        }
    }
}

// A linear layer's weights [out, in], both multiples of 32, as `multiply` reads them.
void copgen_pack(const bf16* from, bf16* to, int in, int out) {
    const int steps = in / 32, panels = out / 32;
    const std::uintptr_t page = 1 << 21, start = (reinterpret_cast<std::uintptr_t>(to) + page - 1) / page * page;
    const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(to + static_cast<std::ptrdiff_t>(in) * out) / page * page;
    if (end > start) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);      // fewer pages to look up; a wish only
#pragma omp parallel for schedule(static)
    for (int panel = 0; panel < panels; ++panel)
        for (int step = 0; step < steps; ++step)
            for (int side = 0; side < 2; ++side)
                pack_columns(from + static_cast<std::ptrdiff_t>(32 * panel + 16 * side) * in + 32 * step, in, 16,
                             to + panel_at(step, panel, steps, panels) + 512 * side);
}

// out = x w^T + bias, or the GELU of that: x [rows, in], out [rows, out], each packed if so said; w packed; bias may be null.
void copgen_linear(const bf16* x, const bf16* w, const bf16* bias, bf16* out, int rows, int in, int outs, int gelu, int x_packed,
                   int out_packed) {
    const int blocks = (rows + 31) / 32, panels = outs / 32, threads = omp_get_max_threads();
    const int groups = std::max((blocks + MOST_BLOCKS - 1) / MOST_BLOCKS, std::min(threads, std::max(1, blocks / 8)));
    const int shares = std::max(1, threads / groups);       // of the columns: many threads need not all read all weights
#pragma omp parallel for schedule(static)
    for (int task = 0; task < groups * shares; ++task) {
        const Tiles tiles;
        const int group = task / shares, share = task % shares;
        const std::ptrdiff_t first = 32 * (blocks * group / groups), end = std::min(rows, 32 * (blocks * (group + 1) / groups));
        const Product product{x + first * in, w, bias, out + first * outs, static_cast<int>(end - first), in / 32, panels,
                              panels * share / shares, panels * (share + 1) / shares, x_packed != 0, out_packed != 0};
        if (end > first) gelu ? multiply<true>(product) : multiply<false>(product);
    }
}

// The layer norm of x + y over rows of `width` values, a multiple of 16; y may be null, out may be x or y.
void copgen_add_norm(const bf16* x, const bf16* y, const bf16* weight, const bf16* bias, bf16* out, int rows, int width, float eps) {
#pragma omp parallel
    {
        scratch.begin(width * sizeof(float) + 64);
        float* sums = scratch.take<float>(width);
#pragma omp for schedule(static)
        for (int row = 0; row < rows; ++row) {
            const std::ptrdiff_t start = static_cast<std::ptrdiff_t>(row) * width;
            __m512 total = _mm512_setzero_ps(), spread = _mm512_setzero_ps();
            for (int i = 0; i < width; i += 16) {
                const __m512 sum = y ? _mm512_add_ps(load16(x + start + i), load16(y + start + i)) : load16(x + start + i);
                _mm512_store_ps(sums + i, sum);
                total = _mm512_add_ps(total, sum);
            }
            const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / width);
            for (int i = 0; i < width; i += 16) {
                const __m512 off = _mm512_sub_ps(_mm512_load_ps(sums + i), mean);
                spread = _mm512_fmadd_ps(off, off, spread);
            }
            const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(spread) / width + eps));
            for (int i = 0; i < width; i += 16) {
                const __m512 off = _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(sums + i), mean), scale);
                store16(out + start + i, _mm512_fmadd_ps(off, load16(weight + i), load16(bias + i)));
            }
        }
    }
}
}
