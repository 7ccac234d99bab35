/* The kernels, which native.c includes once for each type: REAL to count in, STORED in tensors. */

#define WIDTH (VECTOR_BYTES / (int64_t)sizeof(REAL))
#define VECTORS (BLOCK / WIDTH) /* in a block */

typedef REAL NAME(Vector) __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef REAL NAME(Short) __attribute__((vector_size(16), may_alias));

/* A sample of LANES queries. Its corners: upper left, upper right, lower left, lower right. */
typedef struct {
    REAL attention[LANES];
    REAL right[LANES], lower[LANES]; /* shares of the corners to the right, and of the lower ones */
    REAL weight[4][LANES];
    REAL pull[4][LANES]; /* gradient of the weight */
    int32_t row[4][LANES];
} NAME(Sample);

typedef struct {
    const Job *job;
    int64_t num_samples, num_blocks;
    NAME(Vector) *values, *gradients; /* S + 1 rows of num_blocks */
    NAME(Vector) *grad_row;
    NAME(Sample) *samples;
} NAME(Worker);

static int64_t NAME(row_bytes)(const Job *job)
{
    return (job->dim + BLOCK - 1) / BLOCK * BLOCK * sizeof(REAL);
}

int64_t NAME(scratch_bytes)(const Job *job)
{
    const int64_t num_rows = (job->num_pixels + 1) * (job->grad ? 2 : 1) + 1;
    return num_rows * NAME(row_bytes)(job) + job->num_levels * job->num_points * sizeof(NAME(Sample));
}

static NAME(Worker) NAME(start)(Job *job)
{
    const int64_t row = NAME(row_bytes)(job), rows = (job->num_pixels + 1) * row;
    char *memory = job->scratch + take_next(&job->next_worker) * NAME(scratch_bytes)(job);
    NAME(Worker) worker;
    worker.job = job;
    worker.num_samples = job->num_levels * job->num_points;
    worker.num_blocks = row / sizeof(REAL) / BLOCK;
    worker.values = (NAME(Vector) *)memory;
    memory += rows;
    worker.gradients = (NAME(Vector) *)memory;
    memory += job->grad ? rows : 0;
    worker.grad_row = (NAME(Vector) *)memory;
    worker.samples = (NAME(Sample) *)(memory + row);
    return worker;
}

/* Where the D or T numbers of a query and head begin, counted in D or T. */
static int64_t NAME(place)(const Job *job, int64_t image, int64_t query, int64_t head)
{
    return (image * job->num_queries + query) * job->num_heads + head;
}

/* Rows end with a part of a block, of zeros where D is no multiple of it. */
static void NAME(load_row)(const STORED *from, int64_t dim, NAME(Vector) *row)
{
    REAL *to = (REAL *)row;
    for (; dim >= BLOCK; dim -= BLOCK, from += BLOCK, to += BLOCK)
        for (int d = 0; d < BLOCK; d++)
            to[d] = LOAD(from[d]);
    for (int64_t d = 0; d < (dim ? BLOCK : 0); d++)
        to[d] = d < dim ? LOAD(from[d]) : 0;
}

static void NAME(store_row)(const NAME(Vector) *row, int64_t dim, STORED *to)
{
    const REAL *from = (const REAL *)row;
    for (; dim >= BLOCK; dim -= BLOCK, from += BLOCK, to += BLOCK)
        for (int d = 0; d < BLOCK; d++)
            to[d] = STORE(from[d]);
    for (int64_t d = 0; d < dim; d++)
        to[d] = STORE(from[d]);
}

static void NAME(load_values)(const NAME(Worker) *worker, int64_t image, int64_t head)
{
    const Job *job = worker->job;
    const STORED *from = job->value;
    from += (image * job->num_pixels * job->num_heads + head) * job->dim;
    NAME(Vector) *row = worker->values;
    for (int64_t pixel = 0; pixel < job->num_pixels; pixel++, row += worker->num_blocks * VECTORS)
        NAME(load_row)(from + pixel * job->num_heads * job->dim, job->dim, row);
    memset(row, 0, NAME(row_bytes)(job));
}

static void NAME(store_gradients)(const NAME(Worker) *worker, int64_t image, int64_t head)
{
    const Job *job = worker->job;
    STORED *to = job->grad_value;
    to += (image * job->num_pixels * job->num_heads + head) * job->dim;
    const NAME(Vector) *row = worker->gradients;
    for (int64_t pixel = 0; pixel < job->num_pixels; pixel++, row += worker->num_blocks * VECTORS)
        NAME(store_row)(row, job->dim, to + pixel * job->num_heads * job->dim);
}

/* A level's part of find_samples: logits, shares of the corners and their rows. */
static void NAME(find_corners)(const NAME(Worker) *worker, int64_t level, int64_t start,
                               const STORED *const *offsets, const STORED *const *logits,
                               const REAL *place_x, const REAL *place_y, REAL *broken)
{
    const Job *job = worker->job;
    const int32_t height = job->shapes[2 * level], width = job->shapes[2 * level + 1];
    const int32_t outside = job->num_pixels, first_pixel = start;
    for (int64_t t = level * job->num_points; t < (level + 1) * job->num_points; t++) {
        NAME(Sample) *sample = worker->samples + t;
        REAL offset_x[LANES], offset_y[LANES];
        FOR_LANES {
            offset_x[lane] = LOAD(offsets[lane][2 * t]);
            offset_y[lane] = LOAD(offsets[lane][2 * t + 1]);
            sample->attention[lane] = LOAD(logits[lane][t]);
        }
        FOR_LANES {
            /* Pixel (0, 0) has its centre at (0.5, 0.5). */
            REAL x = place_x[lane] * width + offset_x[lane] - (REAL)0.5;
            REAL y = place_y[lane] * height + offset_y[lane] - (REAL)0.5;
            broken[lane] += (x - x) + (y - y);
            /* From there on all corners are outside. It is where NaN goes, too. */
            x = x > -2 ? x : -2;
            y = y > -2 ? y : -2;
            x = x < width ? x : width;
            y = y < height ? y : height;
            const int32_t column = FLOOR(x), row = FLOOR(y);
            const int32_t pixel = first_pixel + row * width + column;
            const int in_left = (column >= 0) & (column < width);
            const int in_right = (column >= -1) & (column < width - 1);
            const int in_upper = (row >= 0) & (row < height);
            const int in_lower = (row >= -1) & (row < height - 1);
            sample->right[lane] = x - column;
            sample->lower[lane] = y - row;
            sample->row[0][lane] = in_upper & in_left ? pixel : outside;
            sample->row[1][lane] = in_upper & in_right ? pixel + 1 : outside;
            sample->row[2][lane] = in_lower & in_left ? pixel + width : outside;
            sample->row[3][lane] = in_lower & in_right ? pixel + width + 1 : outside;
        }
    }
}

/* The samples of `count` queries from the first on; lanes that are left take those of the last.

`broken` is NaN for a query with an offset that is not finite, and else 0. */
static void NAME(find_samples)(const NAME(Worker) *worker, int64_t image, int64_t head,
                               int64_t first, int64_t count, REAL *broken)
{
    const Job *job = worker->job;
    const int64_t num_samples = worker->num_samples;
    const STORED *offsets[LANES], *logits[LANES];
    REAL place_x[LANES], place_y[LANES];
    FOR_LANES {
        const int64_t query = first + (lane < count ? lane : count - 1);
        const int64_t start = NAME(place)(job, image, query, head) * num_samples;
        offsets[lane] = (const STORED *)job->offsets + 2 * start;
        logits[lane] = (const STORED *)job->logits + start;
        place_x[lane] = ((const REAL *)job->reference_points)[2 * query];
        place_y[lane] = ((const REAL *)job->reference_points)[2 * query + 1];
        broken[lane] = 0;
    }
    for (int64_t level = 0, start = 0; level < job->num_levels; level++) {
        NAME(find_corners)(worker, level, start, offsets, logits, place_x, place_y, broken);
        start += job->shapes[2 * level] * job->shapes[2 * level + 1];
    }

    NAME(Sample) *samples = worker->samples;
    REAL largest[LANES], total[LANES] = {0};
    FOR_LANES
        largest[lane] = -INFINITY;
    for (int64_t t = 0; t < num_samples; t++)
        FOR_LANES {
            const REAL logit = samples[t].attention[lane];
            largest[lane] = logit > largest[lane] ? logit : largest[lane];
        }
    for (int64_t t = 0; t < num_samples; t++)
        FOR_LANES {
            samples[t].attention[lane] = EXP(samples[t].attention[lane] - largest[lane]);
            total[lane] += samples[t].attention[lane];
        }
    for (int64_t t = 0; t < num_samples; t++)
        FOR_LANES {
            NAME(Sample) *sample = samples + t;
            const REAL attention = sample->attention[lane] / total[lane];
            const REAL right = sample->right[lane], lower = sample->lower[lane];
            sample->attention[lane] = attention;
            sample->weight[0][lane] = attention * (1 - lower) * (1 - right);
            sample->weight[1][lane] = attention * (1 - lower) * right;
            sample->weight[2][lane] = attention * lower * (1 - right);
            sample->weight[3][lane] = attention * lower * right;
        }
}

static void NAME(attend)(const NAME(Worker) *worker, int lane, REAL broken, STORED *output)
{
    for (int64_t block = 0; block < worker->num_blocks; block++) {
        NAME(Vector) sum[VECTORS];
        for (int i = 0; i < VECTORS; i++)
            sum[i] = broken - (NAME(Vector)){0};
        for (int64_t t = 0; t < worker->num_samples; t++)
            for (int corner = 0; corner < 4; corner++) {
                const REAL weight = worker->samples[t].weight[corner][lane];
                const int64_t row = worker->samples[t].row[corner][lane];
                const NAME(Vector) *value =
                    worker->values + (row * worker->num_blocks + block) * VECTORS;
                for (int i = 0; i < VECTORS; i++)
                    sum[i] += weight * value[i];
            }
        const int64_t left = worker->job->dim - block * BLOCK;
        NAME(store_row)(sum, left < BLOCK ? left : BLOCK, output + block * BLOCK);
    }
}

static REAL NAME(total)(NAME(Vector) vector)
{
    union {
        NAME(Vector) whole;
        NAME(Short) parts[VECTOR_BYTES / 16];
    } both = {vector};
    NAME(Short) sum = both.parts[0];
    for (int i = 1; i < VECTOR_BYTES / 16; i++)
        sum += both.parts[i];
    REAL total = sum[0];
    for (int i = 1; i < 16 / (int)sizeof(REAL); i++)
        total += sum[i];
    return total;
}

/* Adds to the gradients of the values, and finds those of the weights. */
static void NAME(attend_backward)(const NAME(Worker) *worker, int lane, const STORED *grad)
{
    NAME(load_row)(grad, worker->job->dim, worker->grad_row);
    const int64_t num_vectors = worker->num_blocks * VECTORS;
    for (int64_t t = 0; t < worker->num_samples; t++)
        for (int corner = 0; corner < 4; corner++) {
            NAME(Sample) *sample = worker->samples + t;
            const REAL weight = sample->weight[corner][lane];
            const int64_t start = sample->row[corner][lane] * num_vectors;
            NAME(Vector) pull = {0};
            for (int64_t block = 0; block < num_vectors; block += VECTORS)
                for (int64_t i = block; i < block + VECTORS; i++) {
                    const NAME(Vector) part = worker->grad_row[i];
                    pull += part * worker->values[start + i];
                    worker->gradients[start + i] += weight * part;
                }
            sample->pull[corner][lane] = NAME(total)(pull);
        }
}

/* The gradients of offsets and logits, from those of the weights. */
static void NAME(store_pulls)(const NAME(Worker) *worker, int64_t image, int64_t head,
                              int64_t first, int64_t count)
{
    const int64_t num_samples = worker->num_samples;
    REAL mean[LANES] = {0};
    for (int64_t t = 0; t < num_samples; t++)
        FOR_LANES {
            NAME(Sample) *sample = worker->samples + t;
            const REAL right = sample->right[lane], lower = sample->lower[lane];
            const REAL attention = sample->attention[lane];
            const REAL up_left = sample->pull[0][lane], up_right = sample->pull[1][lane];
            const REAL low_left = sample->pull[2][lane], low_right = sample->pull[3][lane];
            const REAL of_upper = (1 - right) * up_left + right * up_right;
            const REAL of_lower = (1 - right) * low_left + right * low_right;
            const REAL of_attention = (1 - lower) * of_upper + lower * of_lower;
            mean[lane] += attention * of_attention;
            /* A corner outside has no pull, as its values are zeros: no case of its own. */
            const REAL of_x = (1 - lower) * (up_right - up_left) + lower * (low_right - low_left);
            sample->pull[0][lane] = of_attention;
            sample->pull[1][lane] = attention * of_x;
            sample->pull[2][lane] = attention * (of_lower - of_upper);
        }
    for (int lane = 0; lane < count; lane++) {
        const int64_t start = NAME(place)(worker->job, image, first + lane, head) * num_samples;
        STORED *offsets = (STORED *)worker->job->grad_offsets + 2 * start;
        STORED *logits = (STORED *)worker->job->grad_logits + start;
        for (int64_t t = 0; t < num_samples; t++) {
            const NAME(Sample) *sample = worker->samples + t;
            logits[t] = STORE(sample->attention[lane] * (sample->pull[0][lane] - mean[lane]));
            offsets[2 * t] = STORE(sample->pull[1][lane]);
            offsets[2 * t + 1] = STORE(sample->pull[2][lane]);
        }
    }
}

/* What each worker runs, until no task is left. */
void NAME(forward)(Job *job)
{
    const NAME(Worker) worker = NAME(start)(job);
    REAL broken[LANES];
    int64_t loaded = -1;
    for (int64_t task; (task = take_next(&job->next_task)) < job->num_tasks;) {
        const int64_t part = task % job->num_parts, map = task / job->num_parts;
        const int64_t image = map / job->num_heads, head = map % job->num_heads;
        if (loaded != map)
            NAME(load_values)(&worker, image, head);
        loaded = map;
        const int64_t end = (part + 1) * job->num_queries / job->num_parts;
        for (int64_t first = part * job->num_queries / job->num_parts; first < end; first += LANES) {
            const int64_t count = end - first < LANES ? end - first : LANES;
            NAME(find_samples)(&worker, image, head, first, count, broken);
            for (int lane = 0; lane < count; lane++) {
                const int64_t row = NAME(place)(job, image, first + lane, head);
                NAME(attend)(&worker, lane, broken[lane], (STORED *)job->output + row * job->dim);
            }
        }
    }
}

void NAME(backward)(Job *job)
{
    const NAME(Worker) worker = NAME(start)(job);
    REAL broken[LANES];
    for (int64_t task; (task = take_next(&job->next_task)) < job->num_tasks;) {
        const int64_t image = task / job->num_heads, head = task % job->num_heads;
        NAME(load_values)(&worker, image, head);
        memset(worker.gradients, 0, (job->num_pixels + 1) * NAME(row_bytes)(job));
        for (int64_t first = 0; first < job->num_queries; first += LANES) {
            const int64_t left = job->num_queries - first, count = left < LANES ? left : LANES;
            NAME(find_samples)(&worker, image, head, first, count, broken);
            for (int lane = 0; lane < count; lane++) {
                const int64_t row = NAME(place)(job, image, first + lane, head);
                NAME(attend_backward)(&worker, lane, (const STORED *)job->grad + row * job->dim);
            }
            NAME(store_pulls)(&worker, image, head, first, count);
        }
        NAME(store_gradients)(&worker, image, head);
    }
}

#undef REAL
#undef STORED
#undef NAME
#undef LOAD
#undef STORE
#undef EXP
#undef FLOOR
#undef WIDTH
#undef VECTORS
