/* The loops of tree_rows.h at one CPU level. microkernel.c includes this once it has defined the vectors.
 *
 * Loops that are the same with and without missing values or categories take a constant `general`: what it guards is
 * compiled away from the copy that most pixels take.
 */
#define KEY_MISSING INT32_MAX
#define GROUP DCONV_TREE_GROUP
#define IL LANES(int32_t)
/* Vectors of pixels that run tests together: what a test says is read once for all of them, and their bits stay in
 * registers; all vectors of a group where there are registers for it. */
#define SIDE (8 * IL < GROUP ? 8 * IL : GROUP)
#define SIDE_VECTORS (SIDE / IL)
#define EACH_SIDE_VECTOR UNROLL for (int v = 0; v < (int)SIDE_VECTORS; v++)

#if DCONV_VECTOR_BYTES
typedef int32_t vec_i32 __attribute__((vector_size(DCONV_VECTOR_BYTES), aligned(sizeof(int32_t)), may_alias));
INLINE vec_i32 load_i32(const int32_t *p) { return *(const vec_i32 *)p; }
INLINE void store_i32(int32_t *p, vec_i32 v) { *(vec_i32 *)p = v; }
INLINE vec_i32 every_i32(int32_t value) { return (vec_i32){0} + value; }
INLINE vec_i32 greater_i32(vec_i32 a, vec_i32 b) { return (vec_i32)(a > b); }
INLINE vec_i32 equal_i32(vec_i32 a, vec_i32 b) { return (vec_i32)(a == b); }
INLINE vec_i32 add_i32(vec_i32 a, vec_i32 b) { return a + b; }
INLINE vec_i32 and_i32(vec_i32 a, vec_i32 b) { return a & b; }
INLINE vec_i32 or_i32(vec_i32 a, vec_i32 b) { return a | b; }
INLINE vec_i32 and_not_i32(vec_i32 a, vec_i32 b) { return a & ~b; }
/* Found in the exponent of the bit as a float: few instruction sets count zeros in every lane. */
INLINE vec_i32 lowest_bit_i32(vec_i32 a) {
    const vec_i32 exponent = (vec_i32)__builtin_convertvector(a & -a, vec_f32) >> 23;
    return (exponent & 255) - 127;
}
#else
typedef struct {
    int32_t lane[32 / sizeof(int32_t)];
} vec_i32;
INLINE vec_i32 load_i32(const int32_t *p) {
    vec_i32 v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void store_i32(int32_t *p, vec_i32 v) { memcpy(p, &v, sizeof v); }
INLINE vec_i32 every_i32(int32_t value) {
    vec_i32 v;
    EACH_LANE(int32_t) v.lane[l] = value;
    return v;
}
INLINE vec_i32 greater_i32(vec_i32 a, vec_i32 b) {
    EACH_LANE(int32_t) a.lane[l] = -(a.lane[l] > b.lane[l]);
    return a;
}
INLINE vec_i32 equal_i32(vec_i32 a, vec_i32 b) {
    EACH_LANE(int32_t) a.lane[l] = -(a.lane[l] == b.lane[l]);
    return a;
}
INLINE vec_i32 add_i32(vec_i32 a, vec_i32 b) {
    EACH_LANE(int32_t) a.lane[l] += b.lane[l];
    return a;
}
INLINE vec_i32 or_i32(vec_i32 a, vec_i32 b) {
    EACH_LANE(int32_t) a.lane[l] |= b.lane[l];
    return a;
}
INLINE vec_i32 and_i32(vec_i32 a, vec_i32 b) {
    EACH_LANE(int32_t) a.lane[l] &= b.lane[l];
    return a;
}
INLINE vec_i32 and_not_i32(vec_i32 a, vec_i32 b) {
    EACH_LANE(int32_t) a.lane[l] &= ~b.lane[l];
    return a;
}
INLINE vec_i32 lowest_bit_i32(vec_i32 a) {
    EACH_LANE(int32_t) {
        const uint32_t bits = (uint32_t)a.lane[l];
        const float lowest = (float)(bits & (0u - bits));
        int32_t as_bits;
        memcpy(&as_bits, &lowest, sizeof as_bits);
        a.lane[l] = (as_bits >> 23 & 255) - 127;
    }
    return a;
}
#endif

/* keys[i] = key of the float whose bits are in keys[i]. Returns whether there is a missing value. */
static int bits_to_keys(int32_t *restrict keys, ptrdiff_t n) {
    int32_t any_missing = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, keys + i, sizeof bits); /* what is there was written as floats */
        const int32_t magnitude = bits & INT32_MAX;
        const int32_t missing = -(magnitude > 0x7f800000);           /* above infinity */
        const int32_t key = (magnitude ^ bits >> 31) - (bits >> 31); /* magnitude or, of negative floats, its negative */
        keys[i] = missing ? KEY_MISSING : key;
        any_missing |= missing;
    }
    return any_missing != 0;
}

/* keys[i] = the code beside keys[i] in a list of categories */
static void keys_to_codes(const int32_t *restrict category_keys, const int32_t *restrict codes, ptrdiff_t n_categories,
                          int32_t *restrict keys) {
    for (ptrdiff_t i = 0; i < GROUP; i++) {
        ptrdiff_t low = 0, high = n_categories;
        while (low < high) {
            const ptrdiff_t middle = (low + high) / 2;
            if (category_keys[middle] < keys[i]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        keys[i] = low < n_categories && category_keys[low] == keys[i] ? codes[low] : DCONV_NO_CATEGORY;
    }
}

/* Write keys[feature * GROUP + pixel] of a group of pixels, zeros for those behind the last one. Returns whether there
 * is a missing value. */
static int group_keys(const dconv_trees *trees, const float *rows, ptrdiff_t n_pixels, int32_t *keys) {
    const ptrdiff_t n_features = trees->n_features, n_keys = n_features * GROUP;
    if (n_pixels < GROUP) memset(keys, 0, (size_t)n_keys * sizeof *keys);
    interleave_row(rows, n_features, n_pixels < GROUP ? n_pixels : GROUP, (float *)keys, GROUP, n_features);
    const int any_missing = bits_to_keys(keys, n_keys);
    for (ptrdiff_t c = 0; c < trees->n_categorical; c++) {
        const ptrdiff_t start = trees->category_starts[c], n = trees->category_starts[c + 1] - start;
        keys_to_codes(trees->category_keys + start, trees->category_codes + start, n,
                      keys + trees->categorical[c] * (ptrdiff_t)GROUP);
    }
    for (ptrdiff_t p = 0; p < GROUP; p++) keys[n_keys + p] = KEY_MISSING;
    return any_missing;
}

/* `bits`, of which those in `kept` alone stay where key >= right_from. */
#if DCONV_VECTOR_BYTES == 64 && defined(__AVX512F__)
/* Two instructions, as the mask of a comparison needs no vector; GCC would make a vector of it, which is half as many
 * again. */
INLINE vec_i32 clear_right(vec_i32 bits, vec_i32 kept, vec_i32 right_from, vec_i32 key) {
    const __mmask16 right = _mm512_cmpge_epi32_mask((__m512i)key, (__m512i)right_from);
    return (vec_i32)_mm512_mask_and_epi32((__m512i)bits, right, (__m512i)bits, (__m512i)kept);
}
#else
INLINE vec_i32 clear_right(vec_i32 bits, vec_i32 kept, vec_i32 right_from, vec_i32 key) {
    return and_i32(bits, or_i32(greater_i32(right_from, key), kept));
}
#endif

INLINE int in_set(const uint32_t *set, int32_t category) { return set[category >> 5] >> (category & 31) & 1; }

/* Clear bits of a word where the tests from `begin` to `end`, all of one kind, fail. */
INLINE void run_tests(const dconv_trees *trees, ptrdiff_t begin, ptrdiff_t end, const int32_t *keys, int kind,
                      vec_i32 *bits) {
    for (ptrdiff_t k = begin; k < end; k++) {
        const int32_t *x = keys + trees->feature[k] * (ptrdiff_t)GROUP;
        const vec_i32 right_from = every_i32(trees->right_from[k]), kept = every_i32(trees->kept[k]);
        int32_t left[SIDE];
        if (kind == DCONV_CATEGORICAL) {
            const uint32_t *set = trees->sets + trees->right_from[k] * (ptrdiff_t)DCONV_TREE_SET;
            for (ptrdiff_t p = 0; p < SIDE; p++) left[p] = in_set(set, x[p]) - 1;
        }
        EACH_SIDE_VECTOR {
            const vec_i32 key = load_i32(x + v * IL);
            if (kind == DCONV_MISSING_RIGHT) {
                bits[v] = clear_right(bits[v], kept, right_from, key);
                continue;
            }
            vec_i32 passed;
            if (kind == DCONV_CATEGORICAL) {
                passed = load_i32(left + v * IL);
            } else {
                passed = or_i32(greater_i32(right_from, key), equal_i32(key, every_i32(KEY_MISSING)));
            }
            bits[v] = and_i32(bits[v], or_i32(passed, kept));
        }
    }
}

/* exits[p] = the exit of SIDE neighbouring pixels of a group from the head of a tree, counted from the ensemble's first. */
INLINE void side_exits(const dconv_trees *trees, ptrdiff_t tree, const int32_t *keys, int general, int32_t *exits) {
    const ptrdiff_t first = trees->words[tree], last = trees->words[tree + 1] - 1;
    const vec_i32 zero = every_i32(0);
    vec_i32 exit[SIDE_VECTORS];
    EACH_SIDE_VECTOR exit[v] = zero;
    for (ptrdiff_t w = last; w >= first; w--) {
        const int32_t *kinds = trees->kinds + 3 * w;
        vec_i32 bits[SIDE_VECTORS];
        EACH_SIDE_VECTOR bits[v] = every_i32(-1);
        if (general) {
            run_tests(trees, kinds[0], kinds[1], keys, DCONV_MISSING_LEFT, bits);
            run_tests(trees, kinds[1], kinds[2], keys, DCONV_MISSING_RIGHT, bits);
            run_tests(trees, kinds[2], kinds[3], keys, DCONV_CATEGORICAL, bits);
        } else {
            run_tests(trees, kinds[0], kinds[3], keys, DCONV_MISSING_RIGHT, bits);
        }
        const vec_i32 offset = every_i32((int32_t)w * DCONV_TREE_EXITS);
        EACH_SIDE_VECTOR {
            const vec_i32 none = equal_i32(bits[v], zero), here = add_i32(lowest_bit_i32(bits[v]), offset);
            exit[v] = or_i32(and_i32(exit[v], none), and_not_i32(here, none));
        }
    }
    EACH_SIDE_VECTOR store_i32(exits + v * IL, exit[v]);
}

INLINE void head_exits(const dconv_trees *trees, ptrdiff_t tree, const int32_t *keys, int general, int32_t *exits) {
    for (ptrdiff_t p = 0; p < GROUP; p += SIDE) side_exits(trees, tree, keys + p, general, exits + p);
}

/* Pixels that walk side by side hide from each other how long memory takes to answer. On Zen 3, in ns for a pixel and a
 * tree without a head: 4 pixels 21, 8 pixels 15, 16 pixels 15 (addresses no longer fit in registers), 32 pixels 19 (all
 * wait for the longest walk); vectors of 8, 16 or 32 lanes that gather nodes and keys 39, 25 and 23; a list of the pixels
 * still walking, made shorter every 4 steps, 25. */
#define WALKERS 8
#define EACH_WALKER UNROLL for (int i = 0; i < WALKERS; i++)

/* Where this is inlined beside the heads, whose vectors are many, GCC keeps addresses of the walk in vectors. */
#if defined(__GNUC__)
#define APART __attribute__((noinline))
#else
#define APART
#endif

/* Replace the exits of the pixels of a group by their leaves, where they lead to the tail. */
INLINE void walk_tail(const dconv_trees *trees, const int32_t *keys, int general, int32_t *exits) {
    const dconv_tree_node *nodes = trees->nodes;
    const uint32_t feature_mask = ((uint32_t)1 << trees->feature_bits) - 1;
    const int feature_bits = (int)trees->feature_bits;
    int32_t pixels[GROUP + WALKERS], starts[GROUP + WALKERS];
    ptrdiff_t n = 0;
    for (int32_t p = 0; p < GROUP; p++) { /* without a branch: half of the pixels or so are at leaves already */
        pixels[n] = p;
        starts[n] = trees->entries[exits[p]];
        n += starts[n] != DCONV_AT_LEAF;
    }
    EACH_WALKER pixels[n + i] = pixels[0], starts[n + i] = starts[0]; /* what walks beside the last pixels */
    for (ptrdiff_t p = 0; p < n; p += WALKERS) {
        ptrdiff_t at[WALKERS], moved;
        EACH_WALKER at[i] = starts[p + i];
        do {
            moved = 0;
            EACH_WALKER {
                const dconv_tree_node *node = nodes + at[i];
                const int32_t key = keys[(size_t)(node->link & feature_mask) * GROUP + (size_t)pixels[p + i]];
                /* All ones if the pixel goes right. Compilers make a branch of a comparison here, and guessing where
                 * pixels go took twice as long. */
                ptrdiff_t right = (ptrdiff_t)((node->threshold - (int64_t)key) >> 63);
                if (general) {
                    const uint8_t kind = trees->node_kinds[at[i]];
                    if (kind == DCONV_MISSING_LEFT && key == KEY_MISSING) right = 0;
                    if (kind == DCONV_CATEGORICAL) {
                        right = -(ptrdiff_t)in_set(trees->sets + node->threshold * (ptrdiff_t)DCONV_TREE_SET, key);
                    }
                }
                const ptrdiff_t step = 1 + (right & node->link >> feature_bits);
                at[i] += step;
                moved |= step;
            }
        } while (moved);
        EACH_WALKER exits[pixels[p + i]] = nodes[at[i]].threshold;
    }
}

static APART void walk_plain_tail(const dconv_trees *trees, const int32_t *keys, int32_t *exits) {
    walk_tail(trees, keys, 0, exits);
}

static APART void walk_any_tail(const dconv_trees *trees, const int32_t *keys, int32_t *exits) {
    walk_tail(trees, keys, 1, exits);
}

static APART void add_leaves(const dconv_trees *trees, ptrdiff_t tree, const int32_t *leaves, ptrdiff_t n_pixels,
                       double *restrict sums) {
    const float *restrict values = trees->values;
    const ptrdiff_t width = trees->width, n_sums = trees->n_sums;
    sums += trees->columns[tree];
    if (width == 1) {
        for (ptrdiff_t p = 0; p < n_pixels; p++) sums[p * n_sums] += values[leaves[p]];
        return;
    }
    for (ptrdiff_t p = 0; p < n_pixels; p++) {
        for (ptrdiff_t j = 0; j < width; j += 4) {
            UNROLL for (int q = 0; q < 4; q++) sums[p * n_sums + j + q] += values[leaves[p] * width + j + q];
        }
    }
}

/* Fetch a share of the next tree's nodes while GROUP of n_pixels pixels walk in this one. Walks read here and there, and
 * would wait for memory at every step: 100 trees of 4,000, 8,500 and 12,000 nodes took 58, 69 and 56 ns for a pixel and
 * a tree, and take 38, 43 and 44. */
INLINE void fetch_next_tail(const dconv_trees *trees, ptrdiff_t tree, ptrdiff_t pixel, ptrdiff_t n_pixels) {
    const ptrdiff_t next = tree + 1 < trees->n_trees ? tree + 1 : 0;
    const ptrdiff_t first = trees->node_starts[next], n = trees->node_starts[next + 1] - first;
    const ptrdiff_t in_line = 64 / sizeof(dconv_tree_node), end = n * (pixel + GROUP) / n_pixels;
    for (ptrdiff_t i = n * pixel / n_pixels; i < end && i < n; i += in_line) FETCH(trees->nodes + first + i);
}

INLINE void add_block(const dconv_trees *trees, const int32_t *keys, ptrdiff_t n_pixels, int general, double *sums) {
    int32_t leaves[GROUP];
    for (ptrdiff_t tree = 0; tree < trees->n_trees; tree++) {
        const int has_tail = trees->node_starts[tree + 1] > trees->node_starts[tree];
        for (ptrdiff_t p = 0; p < n_pixels; p += GROUP) {
            const int32_t *group = keys + p * (trees->n_features + 1);
            fetch_next_tail(trees, tree, p, n_pixels);
            head_exits(trees, tree, group, general, leaves);
            if (has_tail) (general ? walk_any_tail : walk_plain_tail)(trees, group, leaves);
            add_leaves(trees, tree, leaves, n_pixels - p < GROUP ? n_pixels - p : GROUP, sums + p * trees->n_sums);
        }
    }
}

static void add_trees(const dconv_trees *trees, const float *rows, ptrdiff_t n_pixels, ptrdiff_t groups_in_block,
                      int32_t *keys, double *sums) {
    const ptrdiff_t n_features = trees->n_features, in_block = groups_in_block * GROUP;
    for (ptrdiff_t start = 0; start < n_pixels; start += in_block) {
        const ptrdiff_t n = n_pixels - start < in_block ? n_pixels - start : in_block;
        int general = trees->n_categorical > 0;
        for (ptrdiff_t p = 0; p < n; p += GROUP) {
            general |= group_keys(trees, rows + (start + p) * n_features, n - p, keys + p * (n_features + 1));
        }
        if (general) {
            add_block(trees, keys, n, 1, sums + start * trees->n_sums);
        } else {
            add_block(trees, keys, n, 0, sums + start * trees->n_sums);
        }
    }
}

#define TREE_ROWS {.add = add_trees}
