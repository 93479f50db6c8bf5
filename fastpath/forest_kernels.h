/* The forest kernels: the one header of ours for code that needs target attributes.
 *
 * Rules: C11, no allocation, no global state, no floating-point arithmetic that depends on the
 * variant: every variant returns the same bits. A variant is chosen once, by the owner of a
 * forest_t, with forest_has_isa(); a machine that is not x86-64 has the baseline only.
 *
 * How it works. A value is ranked: bin(x) = #{t < x} over the distinct thresholds of its feature,
 * and x <= t_k iff bin(x) <= k: exact for any float. A feature with more than 255
 * thresholds is cut into chunks of 255, each a search of its own with a saturated
 * bin (0 below its chunk, the chunk's size above it), so that a bin is always one byte.
 *
 *   bins    One search is two levels of 16: sixteen pivots (the last threshold of each block of
 *           sixteen), then the block. Padding is +inf, which is below nothing. A NaN
 *           is below nothing either; its bin is then replaced: 255 goes to the false child at
 *           every node, 0 to the true child. A feature whose nodes send NaN both ways has two
 *           slots, which share one search.
 *   heaps   Shallow trees are perfect: node i (from 1) has the children 2i (true) and 2i + 1 (false);
 *           a leaf above the last level is repeated below. The baseline walks them without
 *           branches, eight at a time. AVX-512 looks at all (up to 63) nodes of the upper six
 *           levels at once: one byte permutation fetches the bins of 64 nodes, one comparison
 *           makes their 64 answers, and eight trees then walk their answers in the eight lanes
 *           of a register.
 *   nodes   Deep trees are in pre-order, 8 bytes a node: the float32 threshold itself (with tens
 *           of thousands of distinct thresholds a feature, a search costs more than it saves)
 *           and slot | offset of the false child. A leaf has offset 0 and holds its value: a walk
 *           that reached it stays there, so that eight trees can walk in step.
 *   leaves  Integers in units of `scale`; the sum is exact, whatever the order. Where the leaves
 *           are on no common grid (exact == 0) they are float32, all trees are in `nodes`, and
 *           the sum is taken in tree order.
 */
#ifndef SCOREGATE_FOREST_KERNELS_H
#define SCOREGATE_FOREST_KERNELS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define FOREST_MAX_SLOTS 256        /* a slot of the heaps is one byte */
#define FOREST_NO_SLOT 256          /* where a search without a second slot writes */
#define FOREST_MAX_COPIES 2048      /* 11 bits of forest_node_t.link: MAX_FEATURES, twice */
#define FOREST_COPY_BITS 11
#define FOREST_MIN_DEPTH 3          /* a heap has at least 8 bytes */
#define FOREST_MAX_DEPTH 8
#define FOREST_N_DEPTHS (FOREST_MAX_DEPTH - FOREST_MIN_DEPTH + 1)
#define FOREST_LANES 8              /* trees that walk together; every list of trees is padded to it */

enum { FOREST_BASELINE = 0, FOREST_AVX2 = 1, FOREST_AVX512 = 2 };

/* One search of one feature's thresholds, or of one chunk of them. Its first slot is its index. */
typedef struct {
    uint32_t offset;                /* into thresholds: 16 pivots, then the blocks of 16 */
    uint16_t feature;
    uint16_t second;                /* second slot, or FOREST_NO_SLOT */
    uint8_t nan_first;              /* bin of a NaN in the first slot: 0 or 255 */
    uint8_t nan_second;
    uint16_t reserved;
} forest_search_t;

/* One value that the deep trees read: a feature, and what stands for its NaN. */
typedef struct {
    uint16_t feature;
    uint16_t nan_low;               /* 1: NaN becomes -inf (true child), 0: it stays (false child) */
} forest_copy_t;

/* Perfect heaps of one depth. The arrays hold n_trees * 2^depth entries, tree by tree. */
typedef struct {
    int32_t depth;                  /* FOREST_MIN_DEPTH .. FOREST_MAX_DEPTH */
    int32_t n_trees;                /* a multiple of FOREST_LANES */
    const uint8_t *slot;            /* entry 0 of a tree is unused */
    const uint8_t *cut;             /* bin > cut: false child */
    const void *leaf;               /* int16_t or int32_t units */
} forest_heaps_t;

typedef struct {
    uint32_t bits;                  /* float threshold; of a leaf: int32 units, or a float */
    uint32_t link;                  /* copy | (offset of the false child << 11); offset 0: a leaf */
} forest_node_t;

/* Everything is owned by whoever filled it in (the Forest), and immutable. */
typedef struct {
    int32_t exact;                  /* leaves are integers */
    int32_t wide;                   /* leaves of the heaps are int32_t, else int16_t */
    float scale;                    /* one unit: a power of two */
    float base;                     /* added last */
    int32_t n_searches;
    int32_t n_slots;
    int32_t n_heaps;
    int32_t n_copies;
    int32_t n_roots;                /* a multiple of FOREST_LANES */
    const forest_search_t *searches;
    const float *thresholds;        /* aligned to 64 bytes */
    const forest_copy_t *copies;
    const uint32_t *roots;          /* into nodes, in tree order */
    const forest_node_t *nodes;
    forest_heaps_t heaps[FOREST_N_DEPTHS];
} forest_t;

typedef int32_t (*forest_score_fn)(
    void *forest, int32_t thread, const float *const *rows, int32_t n_rows, float *out
);

#define FOREST_INLINE static inline __attribute__((always_inline))

/* ------------------------------------------------------------------ shared */

FOREST_INLINE float forest_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

FOREST_INLINE void forest_store_bin(
    const forest_search_t *search, int32_t index, float x, uint32_t bin, uint8_t *bins
) {
    const int is_nan = x != x;
    bins[index] = is_nan ? search->nan_first : (uint8_t) bin;
    bins[search->second] = is_nan ? search->nan_second : (uint8_t) bin;
}

FOREST_INLINE int32_t forest_leaf(const void *leaf, uint32_t index, const int wide) {
    return wide ? ((const int32_t *) leaf)[index] : ((const int16_t *) leaf)[index];
}

/* Levels `from` .. depth - 1 of eight neighbouring trees, and the sum of their leaves. */
FOREST_INLINE int32_t forest_walk_eight(
    const forest_heaps_t *heaps, int32_t tree, const uint8_t *bins, uint32_t *at,
    const int from, const int depth, const int wide
) {
    const uint8_t *slot = heaps->slot + ((size_t) tree << depth);
    const uint8_t *cut = heaps->cut + ((size_t) tree << depth);
    int32_t sum = 0;
    for (int level = from; level < depth; level++)
        for (uint32_t j = 0; j < FOREST_LANES; j++) {
            const uint32_t node = (j << depth) + at[j];
            at[j] = 2 * at[j] + (bins[slot[node]] > cut[node]);
        }
    for (uint32_t j = 0; j < FOREST_LANES; j++) {
        /* The walk ends in [2^depth, 2^(depth+1)); leaf 0 of tree j is at j << depth. */
        const uint32_t index = (((uint32_t) tree + j - 1) << depth) + at[j];
        sum += forest_leaf(heaps->leaf, index, wide);
    }
    return sum;
}

FOREST_INLINE int32_t forest_walk_depth(
    const forest_heaps_t *heaps, const uint8_t *bins, const int depth, const int wide
) {
    int32_t sum = 0;
    for (int32_t tree = 0; tree < heaps->n_trees; tree += FOREST_LANES) {
        uint32_t at[FOREST_LANES] = {1, 1, 1, 1, 1, 1, 1, 1};
        sum += forest_walk_eight(heaps, tree, bins, at, 0, depth, wide);
    }
    return sum;
}

/* The depth and the width of a leaf become constants, so that the loops unroll. */
#define FOREST_BY_DEPTH(function, heaps, bins, wide)                                   \
    ((heaps)->depth == 3 ? function((heaps), (bins), 3, (wide))                        \
     : (heaps)->depth == 4 ? function((heaps), (bins), 4, (wide))                      \
     : (heaps)->depth == 5 ? function((heaps), (bins), 5, (wide))                      \
     : (heaps)->depth == 6 ? function((heaps), (bins), 6, (wide))                      \
     : (heaps)->depth == 7 ? function((heaps), (bins), 7, (wide))                      \
                           : function((heaps), (bins), 8, (wide)))

FOREST_INLINE int32_t forest_walk_heaps(const forest_t *forest, const uint8_t *bins) {
    int32_t sum = 0;
    for (int32_t i = 0; i < forest->n_heaps; i++) {
        const forest_heaps_t *heaps = &forest->heaps[i];
        sum += forest->wide ? FOREST_BY_DEPTH(forest_walk_depth, heaps, bins, 1)
                            : FOREST_BY_DEPTH(forest_walk_depth, heaps, bins, 0);
    }
    return sum;
}

/* All deep trees. Units are added to *units, or floats to *value, in tree order. */
FOREST_INLINE void forest_walk_nodes(
    const forest_t *forest, const float *row, int32_t *units, float *value
) {
    const forest_node_t *nodes = forest->nodes;
    float x[FOREST_MAX_COPIES];
    for (int32_t i = 0; i < forest->n_copies; i++) {
        const float original = row[forest->copies[i].feature];
        x[i] = (original != original && forest->copies[i].nan_low) ? -INFINITY : original;
    }
    for (int32_t tree = 0; tree < forest->n_roots; tree += FOREST_LANES) {
        uint32_t at[FOREST_LANES];
        uint32_t moved;
        memcpy(at, forest->roots + tree, sizeof at);
        do {
            moved = 0;
            for (int step = 0; step < 2; step++)
                for (int j = 0; j < FOREST_LANES; j++) {
                    const forest_node_t node = nodes[at[j]];
                    const uint32_t offset = node.link >> FOREST_COPY_BITS;
                    const float left = x[node.link & (FOREST_MAX_COPIES - 1)];
                    /* A bit mask, not ?: (a compiler makes a branch of that). NaN: offset. */
                    const uint32_t is_true = (uint32_t) -(int32_t) (left <= forest_float(node.bits));
                    const uint32_t next = offset != 0;
                    at[j] += offset ^ ((offset ^ next) & is_true);
                    moved |= offset;
                }
        } while (moved != 0);
        if (forest->exact)
            for (int j = 0; j < FOREST_LANES; j++)
                *units += (int32_t) nodes[at[j]].bits;
        else
            for (int j = 0; j < FOREST_LANES; j++)
                *value += forest_float(nodes[at[j]].bits);
    }
}

/* The only floating-point arithmetic: exact, but for the last addition, as in ONNX Runtime. */
FOREST_INLINE float forest_finish(const forest_t *forest, int32_t units, float value) {
    return (forest->exact ? (float) units * forest->scale : value) + forest->base;
}

#define FOREST_DEFINE(name, attributes, make_bins, walk_heaps)                               \
    attributes static int32_t name(                                                          \
        void *impl, int32_t thread, const float *const *rows, int32_t n_rows, float *out     \
    ) {                                                                                      \
        const forest_t *forest = (const forest_t *) impl;                                    \
        (void) thread;                                                                       \
        for (int32_t i = 0; i < n_rows; i++) {                                               \
            int32_t units = 0;                                                               \
            float value = 0.0f;                                                              \
            if (forest->n_heaps != 0) {                                                      \
                _Alignas(64) uint8_t bins[FOREST_MAX_SLOTS + 64];                            \
                make_bins(forest, rows[i], bins);                                            \
                units = walk_heaps(forest, bins);                                            \
            }                                                                                \
            if (forest->n_roots != 0)                                                        \
                forest_walk_nodes(forest, rows[i], &units, &value);                          \
            out[i] = forest_finish(forest, units, value);                                    \
        }                                                                                    \
        return 0;                                                                            \
    }

/* ---------------------------------------------------------------- baseline */

FOREST_INLINE uint32_t forest_count16(const float *t, float x) {
    /* Branch-free; entry 15 is never below x, so four steps are enough. */
    uint32_t n = (t[7] < x) ? 8 : 0;
    n += (t[n + 3] < x) ? 4 : 0;
    n += (t[n + 1] < x) ? 2 : 0;
    n += (t[n] < x) ? 1 : 0;
    return n;
}

FOREST_INLINE void forest_bins_baseline(const forest_t *forest, const float *row, uint8_t *bins) {
    for (int32_t i = 0; i < forest->n_searches; i++) {
        const forest_search_t *search = &forest->searches[i];
        const float *pivots = forest->thresholds + search->offset;
        const float x = row[search->feature];
        const uint32_t block = forest_count16(pivots, x);
        const uint32_t rest = forest_count16(pivots + 16 + 16 * block, x);
        forest_store_bin(search, i, x, 16 * block + rest, bins);
    }
}

FOREST_DEFINE(forest_score_baseline, , forest_bins_baseline, forest_walk_heaps)

#if defined(__x86_64__)

#include <immintrin.h>

/* -------------------------------------------------------------------- AVX2 */

#define FOREST_TARGET_AVX2 __attribute__((target("avx2,popcnt,bmi,bmi2")))

FOREST_TARGET_AVX2 FOREST_INLINE uint32_t forest_count16_avx2(const float *t, __m256 x) {
    const __m256 low = _mm256_cmp_ps(_mm256_load_ps(t), x, _CMP_LT_OQ);
    const __m256 high = _mm256_cmp_ps(_mm256_load_ps(t + 8), x, _CMP_LT_OQ);
    return (uint32_t) _mm_popcnt_u32(
        (uint32_t) _mm256_movemask_ps(low) | ((uint32_t) _mm256_movemask_ps(high) << 8)
    );
}

FOREST_TARGET_AVX2 FOREST_INLINE void forest_bins_avx2(
    const forest_t *forest, const float *row, uint8_t *bins
) {
    for (int32_t i = 0; i < forest->n_searches; i++) {
        const forest_search_t *search = &forest->searches[i];
        const float *pivots = forest->thresholds + search->offset;
        const float x = row[search->feature];
        const __m256 all = _mm256_set1_ps(x);
        const uint32_t block = forest_count16_avx2(pivots, all);
        const uint32_t rest = forest_count16_avx2(pivots + 16 + 16 * block, all);
        forest_store_bin(search, i, x, 16 * block + rest, bins);
    }
}

FOREST_DEFINE(forest_score_avx2, FOREST_TARGET_AVX2, forest_bins_avx2, forest_walk_heaps)

/* ----------------------------------------------------------------- AVX-512 */

#define FOREST_TARGET_AVX512                                                               \
    __attribute__((target("avx2,popcnt,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")))

FOREST_TARGET_AVX512 FOREST_INLINE uint32_t forest_count16_avx512(const float *t, __m512 x) {
    return (uint32_t) _mm_popcnt_u32(_mm512_cmp_ps_mask(_mm512_load_ps(t), x, _CMP_LT_OQ));
}

FOREST_TARGET_AVX512 FOREST_INLINE void forest_bins_avx512(
    const forest_t *forest, const float *row, uint8_t *bins
) {
    for (int32_t i = 0; i < forest->n_searches; i++) {
        const forest_search_t *search = &forest->searches[i];
        const float *pivots = forest->thresholds + search->offset;
        const float x = row[search->feature];
        const __m512 all = _mm512_set1_ps(x);
        const uint32_t block = forest_count16_avx512(pivots, all);
        const uint32_t rest = forest_count16_avx512(pivots + 16 + 16 * block, all);
        forest_store_bin(search, i, x, 16 * block + rest, bins);
    }
}

/* The answers (bin > cut) of 64 nodes. `tables` is how many registers the bins fill: 1, 2 or 4. */
FOREST_TARGET_AVX512 FOREST_INLINE uint64_t forest_answers(
    const uint8_t *slot, const uint8_t *cut, const __m512i *bins, const int tables
) {
    const __m512i index = _mm512_loadu_si512(slot);
    __m512i bin;
    if (tables == 1)
        bin = _mm512_permutexvar_epi8(index, bins[0]);
    else if (tables == 2)
        bin = _mm512_permutex2var_epi8(bins[0], index, bins[1]);
    else
        bin = _mm512_mask_blend_epi8(
            _mm512_movepi8_mask(index),
            _mm512_permutex2var_epi8(bins[0], index, bins[1]),
            _mm512_permutex2var_epi8(bins[2], index, bins[3])
        );
    return _mm512_cmpgt_epu8_mask(bin, _mm512_loadu_si512(cut));
}

/* Eight trees at a time; `levels` of them (at most six) by answers, the rest one by one. */
FOREST_TARGET_AVX512 FOREST_INLINE int32_t forest_walk_answers(
    const forest_heaps_t *heaps, const uint8_t *bins, const __m512i *tables_of_bins,
    const int tables, const int depth, const int wide
) {
    const int levels = depth < 6 ? depth : 6;
    const int chunk = 64;                    /* trees; their answers stay in the first cache */
    const __m512i one = _mm512_set1_epi64(1);
    _Alignas(64) uint64_t answers[64];
    _Alignas(64) uint64_t ends[64];
    int32_t sum = 0;
    for (int32_t first = 0; first < heaps->n_trees; first += chunk) {
        const int32_t left = heaps->n_trees - first;
        const int32_t n = left < chunk ? left : chunk;
        const uint8_t *slot = heaps->slot + ((size_t) first << depth);
        const uint8_t *cut = heaps->cut + ((size_t) first << depth);
        if (depth >= 6)
            for (int32_t j = 0; j < n; j++)
                answers[j] = forest_answers(
                    slot + ((size_t) j << depth), cut + ((size_t) j << depth), tables_of_bins, tables
                );
        else
            for (int32_t j = 0; j < (n << depth) / 64; j++)
                answers[j] = forest_answers(slot + 64 * j, cut + 64 * j, tables_of_bins, tables);
        for (int32_t j = 0; j < n; j += FOREST_LANES) {
            const uint8_t *bits = (const uint8_t *) answers + (((size_t) j << levels) >> 3);
            __m512i lanes;
            __m512i at = one;
            if (levels == 3)
                lanes = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *) bits));
            else if (levels == 4)
                lanes = _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *) bits));
            else if (levels == 5)
                lanes = _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *) bits));
            else
                lanes = _mm512_loadu_si512(bits);
            for (int level = 0; level < levels; level++) {
                const __m512i answer = _mm512_srlv_epi64(lanes, at);
                /* at = 2 at | (answer & 1): 0xF8 is a | (b & c). */
                at = _mm512_ternarylogic_epi64(_mm512_add_epi64(at, at), answer, one, 0xF8);
            }
            _mm512_store_si512(ends + j, at);
        }
        for (int32_t j = 0; j < n; j += FOREST_LANES) {
            uint32_t at[FOREST_LANES];
            for (int i = 0; i < FOREST_LANES; i++)
                at[i] = (uint32_t) ends[j + i];
            sum += forest_walk_eight(heaps, first + j, bins, at, levels, depth, wide);
        }
    }
    return sum;
}

#define FOREST_ANSWERS_OF(tables, wide)                                                    \
    (heaps->depth == 3 ? forest_walk_answers(heaps, bins, vectors, tables, 3, wide)          \
     : heaps->depth == 4 ? forest_walk_answers(heaps, bins, vectors, tables, 4, wide)        \
     : heaps->depth == 5 ? forest_walk_answers(heaps, bins, vectors, tables, 5, wide)        \
     : heaps->depth == 6 ? forest_walk_answers(heaps, bins, vectors, tables, 6, wide)        \
     : heaps->depth == 7 ? forest_walk_answers(heaps, bins, vectors, tables, 7, wide)        \
                         : forest_walk_answers(heaps, bins, vectors, tables, 8, wide))

FOREST_TARGET_AVX512 static int32_t forest_walk_heaps_avx512(
    const forest_t *forest, const uint8_t *bins
) {
    const int n_slots = forest->n_slots;
    int32_t sum = 0;
    __m512i vectors[4];
    for (int i = 0; i < 4; i++)
        vectors[i] = _mm512_load_si512(bins + 64 * i);
    for (int32_t i = 0; i < forest->n_heaps; i++) {
        const forest_heaps_t *heaps = &forest->heaps[i];
        if (n_slots <= 64)
            sum += forest->wide ? FOREST_ANSWERS_OF(1, 1) : FOREST_ANSWERS_OF(1, 0);
        else if (n_slots <= 128)
            sum += forest->wide ? FOREST_ANSWERS_OF(2, 1) : FOREST_ANSWERS_OF(2, 0);
        else
            sum += forest->wide ? FOREST_ANSWERS_OF(4, 1) : FOREST_ANSWERS_OF(4, 0);
    }
    return sum;
}

FOREST_DEFINE(
    forest_score_avx512, FOREST_TARGET_AVX512, forest_bins_avx512, forest_walk_heaps_avx512
)

/* -------------------------------------------------------------- the choice */

static int forest_has_isa(int isa) {
    __builtin_cpu_init();
    if (isa == FOREST_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("bmi2")
            && __builtin_cpu_supports("popcnt");
    if (isa == FOREST_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")
            && __builtin_cpu_supports("popcnt");
    return isa == FOREST_BASELINE;
}

static forest_score_fn forest_score_of(int isa) {
    return isa == FOREST_AVX512 ? forest_score_avx512
         : isa == FOREST_AVX2 ? forest_score_avx2
                              : forest_score_baseline;
}

#else

static int forest_has_isa(int isa) { return isa == FOREST_BASELINE; }

static forest_score_fn forest_score_of(int isa) {
    (void) isa;
    return forest_score_baseline;
}

#endif
#endif
