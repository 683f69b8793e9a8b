// What the kernels share: tile registers, a thread's memory, bf16 to float32 and back, 2 to a power, rows that become columns.
//
// A tile register holds 16 rows of 64 bytes. _tile_dpbf16ps(C, A, B) adds A [16 x 32] times B [32 x 16] to C [16 x 16]; B's rows come in
// pairs: its register's row r holds, column by column, B[2r] and B[2r + 1]. _tile_dpbssd does the same with A [16 x 64] and B [64 x 16] of
// 8-bit integers, whose rows come in fours.

#pragma once

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

}  // namespace
