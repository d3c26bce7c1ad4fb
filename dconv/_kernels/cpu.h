/* Which CPU levels this build holds and this CPU runs. Levels are listed slowest first. */
#ifndef DCONV_CPU_H
#define DCONV_CPU_H

#include "microkernel.h"

extern const dconv_microkernel dconv_microkernel_plain, dconv_microkernel_baseline;
#ifdef DCONV_HAVE_AVX2
extern const dconv_microkernel dconv_microkernel_avx2, dconv_microkernel_avx512;
#endif

#if defined(DCONV_HAVE_AVX2) && defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
/* The system must save the wide registers too (xgetbv), not only the CPU have them. */
static int dconv_cpu_has(int avx512) {
    int leaf1[4], leaf7[4];
    __cpuidex(leaf1, 1, 0);
    __cpuidex(leaf7, 7, 0);
    if (!(leaf1[2] & 1 << 27) || !(leaf1[2] & 1 << 12) || !(leaf7[1] & 1 << 5)) return 0;
    const unsigned long long saved = _xgetbv(0);
    if (!avx512) return (saved & 6) == 6;
    const int wanted = 1 << 16 | 1 << 17 | 1 << 30 | (int)(1u << 31); /* F, DQ, BW, VL */
    return (saved & 0xe6) == 0xe6 && (leaf7[1] & wanted) == wanted;
}
#elif defined(DCONV_HAVE_AVX2)
static int dconv_cpu_has(int avx512) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
    return !avx512 || (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"));
}
#endif

/* Fill `table` (4 places) with the levels built, and return how many of them this CPU runs: the first so many. */
static int dconv_list_levels(const dconv_microkernel **table, int *n_built) {
    int supported = 2;
    table[0] = &dconv_microkernel_plain;
    table[1] = &dconv_microkernel_baseline;
    *n_built = 2;
#ifdef DCONV_HAVE_AVX2
    table[2] = &dconv_microkernel_avx2;
    table[3] = &dconv_microkernel_avx512;
    *n_built = 4;
    supported += dconv_cpu_has(0) ? 1 + dconv_cpu_has(1) : 0;
#endif
    return supported;
}

#ifdef _OPENMP
#include <omp.h>
#define DCONV_HAS_OPENMP 1
static int dconv_max_threads(void) { return omp_get_max_threads(); }
#else
#define DCONV_HAS_OPENMP 0
static int dconv_max_threads(void) { return 1; }
#endif

#endif
