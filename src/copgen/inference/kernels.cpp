// What a network call spends outside its matrix products, for processors with AMX (bf16 tiles) and AVX-512: attention, residual and
// layer norm; and the products (products.h). All numbers between bf16 inputs and outputs are float32. Compiled by kernels.py for the machine
// that it runs on.

#include "products.h"
#include "tiles.h"

namespace {

constexpr int HEAD = 64;                 // values a head
constexpr int QUERIES = 32;              // queries at a time: two tiles

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

}  // namespace

extern "C" {

// Whether the processor has tiles of both kinds and the system lets this process use them (Linux asks to be asked).
int copgen_permitted() {
    return __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-int8") &&
           syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

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

// A linear layer's weights [out, in], both multiples of 32, as `multiply` reads them; of integers two count as one number, so half as many.
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

// out = x w^T + bias, or the GELU of that: x [rows, in], out [rows, out], each packed if so said; w packed, integers if there are scales
// [out] of its columns, bf16 where these are null; bias may be null.
void copgen_linear(const bf16* x, const bf16* w, const float* scales, const bf16* bias, bf16* out, int rows, int in, int outs, int gelu,
                   int x_packed, int out_packed) {
    const auto run = scales ? gelu ? multiply<true, true> : multiply<true, false> : gelu ? multiply<false, true> : multiply<false, false>;
    const int blocks = (rows + 31) / 32, panels = outs / 32, threads = omp_get_max_threads();
    const int groups = std::max((blocks + MOST_BLOCKS - 1) / MOST_BLOCKS, std::min(threads, std::max(1, blocks / 8)));
    const int shares = std::max(1, threads / groups);       // of the columns: many threads need not all read all weights
#pragma omp parallel for schedule(static)
    for (int task = 0; task < groups * shares; ++task) {
        const Tiles tiles;
        const int group = task / shares, share = task % shares;
        const std::ptrdiff_t first = 32 * (blocks * group / groups), end = std::min(rows, 32 * (blocks * (group + 1) / groups));
        if (end > first)
            run({x + first * in, w, bias, scales, out + first * outs, static_cast<int>(end - first), in, panels, panels * share / shares,
                 panels * (share + 1) / shares, x_packed != 0, out_packed != 0});
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
