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
 *   heaps   Shallow trees are perfect: node i (from 1) has the children 2i (true) and 2i + 1
 *           (false); a leaf above the last level is repeated below. The baseline walks them without
 *           branches, eight at a time. AVX-512 looks at all (up to 63) nodes of the upper six
 *           levels at once: one byte permutation fetches the bins of 64 nodes, one comparison
 *           makes their 64 answers, and eight trees then walk their answers in the eight lanes
 *           of a register.
 *   masks   Uneven trees of up to 32 leaves, AVX-512 only: node i of 64 trees is one permutation
 *           and one comparison; each tree whose answer is false loses the leaves below the
 *           true child, and its leftmost leaf at the end is the row's (see forest_masks.py).
 *   keys    With thousands of distinct thresholds a feature, ranking a value costs more than it
 *           saves. Such forests compare keys instead: the bits of a float32, made to order
 *           as int32 (-0.0 is 0.0; a NaN is INT32_MAX where it goes to the false child, INT32_MIN
 *           where it goes to the true child). A row's keys are its `copies`.
 *   nodes   Deep trees are in pre-order, 8 bytes a node: the threshold's key, and copy | offset of
 *           the false child. A leaf holds its value, offset 0, and a copy that is INT32_MAX, above
 *           every value: a walk that reached it stays there, so eight trees can walk in step.
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
#define FOREST_MAX_COPIES 2048      /* MAX_FEATURES, twice */
#define FOREST_MIN_DEPTH 3          /* a heap has at least 8 bytes */
#define FOREST_MAX_DEPTH 8
#define FOREST_N_DEPTHS (FOREST_MAX_DEPTH - FOREST_MIN_DEPTH + 1)
#define FOREST_LANES 8              /* trees that walk together; lists of trees are padded to it */

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

/* One key of a row: a feature, and where its NaN goes. */
typedef struct {
    uint16_t feature;
    uint16_t nan_low;               /* 1: to the true child, 0: to the false child */
} forest_copy_t;

/* Perfect heaps of one depth. The arrays hold n_trees * 2^depth entries, tree by tree. */
typedef struct {
    int32_t depth;                  /* FOREST_MIN_DEPTH .. FOREST_MAX_DEPTH */
    int32_t n_trees;                /* a multiple of FOREST_LANES */
    const uint8_t *slot;            /* entry 0 of a tree is unused */
    const uint8_t *cut;             /* bin > cut: false child; NULL where keys are compared */
    const int32_t *key;             /* key > key: false child; NULL where bins are compared */
    const void *leaf;               /* int16_t or int32_t units */
} forest_heaps_t;

/* Uneven trees in groups of 64. Node arrays are [n_groups][n_rows][64], padded with cut 255. */
typedef struct {
    int32_t n_groups;
    int32_t n_rows;                 /* nodes a tree */
    const uint8_t *slot;
    const uint8_t *cut;
    const uint32_t *mask;           /* leaves that a false answer leaves; leaf 0 is bit 31 */
    const void *leaf;               /* [n_groups * 64][32], int16_t or int32_t units */
} forest_masks_t;

typedef struct {
    int32_t key;                    /* of the threshold; of a leaf: units, or a float's bits */
    uint32_t link;                  /* copy | (offset of the false child << copy_bits) */
} forest_node_t;

/* Everything is owned by whoever filled it in (the Forest), and immutable. */
typedef struct {
    int32_t exact;                  /* leaves are integers */
    int32_t wide;                   /* leaves of the heaps are int32_t, else int16_t */
    int32_t ranked;                 /* the heaps compare bins, else keys */
    int32_t copy_bits;              /* of forest_node_t.link */
    float scale;                    /* one unit: a power of two */
    float base;                     /* added last */
    int32_t n_searches;
    int32_t n_slots;                /* of the heaps: bins, or keys */
    int32_t n_heaps;
    int32_t n_copies;               /* copy n_copies is the one of the leaves */
    int32_t n_roots;                /* a multiple of FOREST_LANES */
    const forest_search_t *searches;
    const float *thresholds;        /* aligned to 64 bytes */
    const forest_copy_t *copies;
    const uint32_t *roots;          /* into nodes, in tree order */
    const forest_node_t *nodes;
    forest_heaps_t heaps[FOREST_N_DEPTHS];
    forest_masks_t masks;           /* for forest_score_avx512 only; needs `ranked` */
} forest_t;

typedef int32_t (*forest_score_fn)(
    void *forest, int32_t thread, const float *const *rows, int32_t n_rows, float *out
);

/* An address that the compiler keeps in a register as it is: it would add base and index anew at
 * every node instead. */
#define FOREST_KEEP(address) __asm__("" : "+r"(address))

#define FOREST_INLINE static inline __attribute__((always_inline))

/* ------------------------------------------------------------------ shared */

FOREST_INLINE float forest_float(int32_t bits) {
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

/* Ordered as its float is. Adding 0.0f makes a -0.0 a 0.0; the sign is then folded. */
FOREST_INLINE int32_t forest_key(float x, int nan_low) {
    const float positive_zero = x + 0.0f;
    const int32_t nan = nan_low ? INT32_MIN : INT32_MAX;
    int32_t bits;
    memcpy(&bits, &positive_zero, sizeof bits);
    return x != x ? nan : bits ^ ((bits >> 31) & INT32_MAX);
}

FOREST_INLINE void forest_keys(const forest_t *forest, const float *row, int32_t *keys) {
    const int32_t n = forest->n_copies;
    for (int32_t i = 0; i < n; i++)
        keys[i] = forest_key(row[forest->copies[i].feature], forest->copies[i].nan_low);
    keys[n] = INT32_MAX;
}

FOREST_INLINE int32_t forest_leaf(const void *leaf, size_t index, const int wide) {
    return wide ? ((const int32_t *) leaf)[index] : ((const int16_t *) leaf)[index];
}

/* Levels `from` .. depth - 1 of eight neighbouring trees, and the sum of their leaves. The row
 * is its bins (`ranked`) or its keys. `at` is where each tree is at level `from`.
 *
 * A step is meant to be five instructions: two loads, a comparison, and 2 at plus its carry. Hence
 * `at` as wide as an address, cut < bin rather than bin > cut, and no loop left over the levels;
 * and eight trees, because one step waits for the one before it and only other trees fill the time
 * (four trees at a time take no more instructions, and a sixth longer than looping over eight). */
FOREST_INLINE int32_t forest_walk_eight(
    const forest_heaps_t *heaps, int32_t tree, const uint8_t *bins, const int32_t *keys,
    size_t *at, const int from, const int ranked, const int depth, const int wide
) {
    const size_t first = (size_t) tree << depth;
    const uint8_t *slot = heaps->slot + first;
    const uint8_t *cut = ranked ? heaps->cut + first : NULL;
    const int32_t *key = ranked ? NULL : heaps->key + first;
    int32_t sum = 0;
    FOREST_KEEP(slot);
    if (ranked)
        FOREST_KEEP(cut);
    else
        FOREST_KEEP(key);
    _Pragma("GCC unroll 8")
    for (int level = from; level < depth; level++)
        _Pragma("GCC unroll 8")
        for (size_t j = 0; j < FOREST_LANES; j++) {
            const size_t node = (j << depth) + at[j];
            if (ranked)
                at[j] += at[j] + (cut[node] < bins[slot[node]]);
            else
                at[j] += at[j] + (key[node] < keys[slot[node]]);
        }
    for (size_t j = 0; j < FOREST_LANES; j++) {
        /* The walk ends in [2^depth, 2^(depth+1)): leaf 0 is at 2^depth. */
        const size_t index = first + (j << depth) + at[j] - ((size_t) 1 << depth);
        sum += forest_leaf(heaps->leaf, index, wide);
    }
    return sum;
}

FOREST_INLINE int32_t forest_walk_depth(
    const forest_heaps_t *heaps, const uint8_t *bins, const int32_t *keys, const int ranked,
    const int depth, const int wide
) {
    int32_t sum = 0;
    for (int32_t tree = 0; tree < heaps->n_trees; tree += FOREST_LANES) {
        size_t at[FOREST_LANES] = {1, 1, 1, 1, 1, 1, 1, 1};
        sum += forest_walk_eight(heaps, tree, bins, keys, at, 0, ranked, depth, wide);
    }
    return sum;
}

/* The depth becomes a constant, so that the loops unroll. */
#define FOREST_BY_DEPTH(function, depth, ...)                                               \
    ((depth) == 3 ? function(__VA_ARGS__, 3, wide)                                           \
     : (depth) == 4 ? function(__VA_ARGS__, 4, wide)                                         \
     : (depth) == 5 ? function(__VA_ARGS__, 5, wide)                                         \
     : (depth) == 6 ? function(__VA_ARGS__, 6, wide)                                         \
     : (depth) == 7 ? function(__VA_ARGS__, 7, wide)                                         \
                    : function(__VA_ARGS__, 8, wide))

FOREST_INLINE int32_t forest_walk_all(
    const forest_t *forest, const uint8_t *bins, const int32_t *keys, const int ranked,
    const int wide
) {
    int32_t sum = 0;
    for (int32_t i = 0; i < forest->n_heaps; i++) {
        const forest_heaps_t *heaps = &forest->heaps[i];
        sum += FOREST_BY_DEPTH(forest_walk_depth, heaps->depth, heaps, bins, keys, ranked);
    }
    return sum;
}

FOREST_INLINE int32_t forest_walk_heaps(
    const forest_t *forest, const uint8_t *bins, const int32_t *keys
) {
    if (forest->ranked)
        return forest->wide ? forest_walk_all(forest, bins, keys, 1, 1)
                            : forest_walk_all(forest, bins, keys, 1, 0);
    return forest->wide ? forest_walk_all(forest, bins, keys, 0, 1)
                        : forest_walk_all(forest, bins, keys, 0, 0);
}

/* All deep trees. Units are added to *units, or floats to *value, in tree order. */
FOREST_INLINE void forest_walk_nodes(
    const forest_t *forest, const int32_t *keys, int32_t *units, float *value
) {
    const forest_node_t *nodes = forest->nodes;
    const int copy_bits = forest->copy_bits;
    const uint32_t copy_mask = (1u << copy_bits) - 1;
    for (int32_t tree = 0; tree < forest->n_roots; tree += FOREST_LANES) {
        uint32_t at[FOREST_LANES];
        uint32_t moved;
        memcpy(at, forest->roots + tree, sizeof at);
        do {
            moved = 0;
            for (int step = 0; step < 2; step++)
                for (int j = 0; j < FOREST_LANES; j++) {
                    const forest_node_t node = nodes[at[j]];
                    const uint32_t offset = node.link >> copy_bits;
                    const uint32_t is_false = keys[node.link & copy_mask] > node.key;
                    /* is_false ? offset : 1, without a branch; 0 at a leaf. */
                    at[j] += 1 + ((offset - 1) & (0u - is_false));
                    moved |= offset;
                }
        } while (moved != 0);
        if (forest->exact)
            for (int j = 0; j < FOREST_LANES; j++)
                *units += nodes[at[j]].key;
        else
            for (int j = 0; j < FOREST_LANES; j++)
                *value += forest_float(nodes[at[j]].key);
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
            _Alignas(64) int32_t keys[FOREST_MAX_COPIES + 1];                                \
            _Alignas(64) uint8_t bins[FOREST_MAX_SLOTS + 64];                                \
            if (forest->n_copies != 0)                                                       \
                forest_keys(forest, rows[i], keys);                                          \
            if (forest->ranked)                                                              \
                make_bins(forest, rows[i], bins);                                            \
            if (forest->n_heaps != 0 || forest->masks.n_groups != 0)                         \
                units = walk_heaps(forest, bins, keys);                                      \
            if (forest->n_roots != 0)                                                        \
                forest_walk_nodes(forest, keys, &units, &value);                             \
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
    __attribute__((target("avx2,popcnt,bmi,bmi2,avx512f,avx512cd,avx512bw,avx512dq,avx512vl,"   \
                          "avx512vbmi")))

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

/* A row in registers, and how many of them it fills: 1, 2 or 4 of bins, 1 or 2 of keys. */
typedef struct {
    __m512i part[4];
    const uint8_t *bins;
    const int32_t *keys;
} forest_row_t;

/* The answers (value > cut) of the 64 nodes at `node`. */
FOREST_TARGET_AVX512 FOREST_INLINE uint64_t forest_answers(
    const forest_heaps_t *heaps, size_t node, const forest_row_t *row, const int parts,
    const int ranked
) {
    const uint8_t *slot = heaps->slot + node;
    uint64_t answers = 0;
    if (ranked) {
        const __m512i index = _mm512_load_si512(slot);
        __m512i bin;
        if (parts == 1)
            bin = _mm512_permutexvar_epi8(index, row->part[0]);
        else if (parts == 2)
            bin = _mm512_permutex2var_epi8(row->part[0], index, row->part[1]);
        else
            bin = _mm512_mask_blend_epi8(
                _mm512_movepi8_mask(index),
                _mm512_permutex2var_epi8(row->part[0], index, row->part[1]),
                _mm512_permutex2var_epi8(row->part[2], index, row->part[3])
            );
        return _mm512_cmpgt_epu8_mask(bin, _mm512_load_si512(heaps->cut + node));
    }
    for (int i = 0; i < 4; i++) {
        const __m128i bytes = _mm_load_si128((const __m128i *) (slot + 16 * i));
        const __m512i index = _mm512_cvtepu8_epi32(bytes);
        const __m512i key = parts == 1
            ? _mm512_permutexvar_epi32(index, row->part[0])
            : _mm512_permutex2var_epi32(row->part[0], index, row->part[1]);
        const __m512i cut = _mm512_load_si512(heaps->key + node + 16 * i);
        answers |= (uint64_t) _mm512_cmpgt_epi32_mask(key, cut) << (16 * i);
    }
    return answers;
}

/* Eight trees at a time; `levels` of them (at most six) by answers, the rest one by one. */
FOREST_TARGET_AVX512 FOREST_INLINE int32_t forest_walk_answers(
    const forest_heaps_t *heaps, const forest_row_t *row, const int parts, const int ranked,
    const int depth, const int wide
) {
    const int levels = depth < 6 ? depth : 6;
    const int32_t chunk = 64;                /* trees; their answers stay in the first cache */
    const int stride_bits = depth < 6 ? 6 : depth;
    const __m512i one = _mm512_set1_epi64(1);
    _Alignas(64) uint64_t answers[64];
    _Alignas(64) uint64_t ends[64];
    int32_t sum = 0;
    for (int32_t first = 0; first < heaps->n_trees; first += chunk) {
        const int32_t left = heaps->n_trees - first;
        const int32_t n = left < chunk ? left : chunk;
        const int32_t n_answers = (n << depth) >> stride_bits;
        const size_t node = (size_t) first << depth;
        for (int32_t j = 0; j < n_answers; j++)
            answers[j] =
                forest_answers(heaps, node + ((size_t) j << stride_bits), row, parts, ranked);
        for (int32_t j = 0; j < n; j += FOREST_LANES) {
            const uint8_t *bits = (const uint8_t *) answers + (((size_t) j << levels) >> 3);
            __m512i lanes;
            __m512i at = one;
            if (levels == 3)
                lanes = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *) bits));
            else if (levels == 4)
                lanes = _mm512_cvtepu16_epi64(_mm_load_si128((const __m128i *) bits));
            else if (levels == 5)
                lanes = _mm512_cvtepu32_epi64(_mm256_load_si256((const __m256i *) bits));
            else
                lanes = _mm512_load_si512(bits);
            for (int level = 0; level < levels; level++) {
                const __m512i answer = _mm512_srlv_epi64(lanes, at);
                /* at = 2 at | (answer & 1): 0xF8 is a | (b & c). */
                at = _mm512_ternarylogic_epi64(_mm512_add_epi64(at, at), answer, one, 0xF8);
            }
            _mm512_store_si512(ends + j, at);
        }
        for (int32_t j = 0; j < n; j += FOREST_LANES) {
            size_t at[FOREST_LANES];
            for (int i = 0; i < FOREST_LANES; i++)
                at[i] = ends[j + i];
            sum += forest_walk_eight(
                heaps, first + j, row->bins, row->keys, at, levels, ranked, depth, wide
            );
        }
    }
    return sum;
}

/* 64 trees at a time, node by node. */
FOREST_TARGET_AVX512 FOREST_INLINE int32_t forest_mask_groups(
    const forest_masks_t *masks, const forest_row_t *row, const int parts, const int wide
) {
    const forest_heaps_t nodes = {.slot = masks->slot, .cut = masks->cut};
    _Alignas(64) uint32_t ends[64];
    int32_t sum = 0;
    for (int32_t group = 0; group < masks->n_groups; group++) {
        __m512i left[4];
        for (int i = 0; i < 4; i++)
            left[i] = _mm512_set1_epi32(-1);
        for (int32_t i = 0; i < masks->n_rows; i++) {
            const size_t node = ((size_t) group * (size_t) masks->n_rows + (size_t) i) * 64;
            const uint64_t answers = forest_answers(&nodes, node, row, parts, 1);
            for (int j = 0; j < 4; j++)
                left[j] = _mm512_mask_and_epi32(
                    left[j], (__mmask16) (answers >> (16 * j)), left[j],
                    _mm512_load_si512(masks->mask + node + 16 * j)
                );
        }
        for (int j = 0; j < 4; j++)
            _mm512_store_si512(ends + 16 * j, _mm512_lzcnt_epi32(left[j]));
        for (uint32_t j = 0; j < 64; j++)
            sum += forest_leaf(masks->leaf, ((size_t) group * 64 + j) * 32 + ends[j], wide);
    }
    return sum;
}

FOREST_TARGET_AVX512 FOREST_INLINE int32_t forest_walk_parts(
    const forest_t *forest, const forest_row_t *row, const int parts, const int ranked,
    const int wide
) {
    int32_t sum = 0;
    for (int32_t i = 0; i < forest->n_heaps; i++) {
        const forest_heaps_t *heaps = &forest->heaps[i];
        sum += FOREST_BY_DEPTH(forest_walk_answers, heaps->depth, heaps, row, parts, ranked);
    }
    if (ranked && forest->masks.n_groups != 0)
        sum += forest_mask_groups(&forest->masks, row, parts, wide);
    return sum;
}

FOREST_TARGET_AVX512 FOREST_INLINE int32_t forest_walk_wide(
    const forest_t *forest, const forest_row_t *row, const int parts, const int ranked
) {
    return forest->wide ? forest_walk_parts(forest, row, parts, ranked, 1)
                        : forest_walk_parts(forest, row, parts, ranked, 0);
}

FOREST_TARGET_AVX512 static int32_t forest_walk_heaps_avx512(
    const forest_t *forest, const uint8_t *bins, const int32_t *keys
) {
    const int32_t n = forest->n_slots;
    forest_row_t row = {.bins = bins, .keys = keys};
    if (!forest->ranked) {
        if (n > 32)
            return forest_walk_heaps(forest, bins, keys);
        row.part[0] = _mm512_load_si512(keys);
        row.part[1] = _mm512_load_si512(keys + 16);
        return n <= 16 ? forest_walk_wide(forest, &row, 1, 0)
                       : forest_walk_wide(forest, &row, 2, 0);
    }
    for (int i = 0; i < 4; i++)
        row.part[i] = _mm512_load_si512(bins + 64 * i);
    return n <= 64 ? forest_walk_wide(forest, &row, 1, 1)
         : n <= 128 ? forest_walk_wide(forest, &row, 2, 1)
                    : forest_walk_wide(forest, &row, 4, 1);
}

FOREST_DEFINE(
    forest_score_avx512, FOREST_TARGET_AVX512, forest_bins_avx512, forest_walk_heaps_avx512
)

/* -------------------------------------------------------------- the choice */

static int forest_has_isa(int isa) {
    __builtin_cpu_init();
    if (isa == FOREST_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd")
            && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi")
            && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
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
