/* Deformable attention on CPUs, from offsets and logits to the attended values, and its gradients.

B batch, Q queries, M heads, D channels a head, L levels, P points, T = L * P samples of a query,
S = sum of all H * W.

A task is a head of an image and, forward, a part of its queries. Its values are copied first, to
S rows of D numbers of the type that we count in. Where they come from they lie M * D apart, which
leaves most of the cache unused, and bfloat16 would have to be converted once a sample. One more
row, of zeros, is what lies beyond the border. The gradient of the values adds up in such rows too;
one worker has all queries of the head, so it needs no atomics, and the order is that of the queries
for any number of workers.

Where the samples are is found for LANES queries at a time, in loops of this length; their rows are
added up BLOCK channels at a time. So the compiler makes vectors of all that takes time. Sums are in
the order that is written here: NaN and infinity would be lost with -ffast-math, and it changes how
the whole process rounds.
*/

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined __AVX512F__
#define VECTOR_BYTES 64
#elif defined __AVX__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

enum { LANES = 16, BLOCK = 32 };

#define FOR_LANES _Pragma("omp simd") for (int lane = 0; lane < LANES; lane++)

/* Tensors are contiguous, in the shapes of MSDeformAttnOp.run; those that a pass lacks are NULL. */
typedef struct {
    const void *value, *reference_points, *offsets, *logits, *grad;
    void *output, *grad_value, *grad_offsets, *grad_logits;
    char *scratch;         /* of scratch_bytes for each worker, at a multiple of VECTOR_BYTES */
    const int64_t *shapes; /* H, W of each level in turn */
    int64_t num_pixels, num_queries, num_heads, dim, num_levels, num_points;
    int64_t num_tasks, num_parts; /* all tasks; those of a head */
    int64_t next_worker, next_task;
} Job;

static int64_t take_next(int64_t *counter)
{
    return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static inline float bits_to_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t float_to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float from_bfloat16(uint16_t x)
{
    return bits_to_float((uint32_t)x << 16);
}

/* The nearest; of two, the even one. */
static inline uint16_t to_bfloat16(float x)
{
    const uint32_t bits = float_to_bits(x);
    return x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* e^x of x <= 0 as 2^n times a series; that of the library is not made vectors of. */
static inline float exp_float32(float x)
{
    const float n = floorf(x * 1.44269504f + 0.5f);
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts */
    const float series = 1 + r * (1 + r / 2 * (1 + r / 3 * (1 + r / 4 * (1 + r / 5 * (1 + r / 6)))));
    const int32_t power = n > -126 ? n : -126;
    return x < -87 ? 0 : series * bits_to_float((uint32_t)(power + 127) << 23); /* NaN stays NaN */
}

static inline double exp_float64(double x)
{
    return exp(x);
}

#define ITSELF(x) (x)

#define REAL float
#define STORED float
#define NAME(x) x##_float32
#define LOAD ITSELF
#define STORE ITSELF
#define EXP exp_float32
#define FLOOR floorf
#include "native_kernels.h"

#define REAL float
#define STORED uint16_t
#define NAME(x) x##_bfloat16
#define LOAD from_bfloat16
#define STORE to_bfloat16
#define EXP exp_float32
#define FLOOR floorf
#include "native_kernels.h"

#define REAL double
#define STORED double
#define NAME(x) x##_float64
#define LOAD ITSELF
#define STORE ITSELF
#define EXP exp_float64
#define FLOOR floor
#include "native_kernels.h"
