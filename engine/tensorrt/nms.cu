// Class-wise greedy NMS, from candidates to detections. One block does one image.
//
// It gives the same detections as the file's own NMS (export/nms.py), to the last bit: it takes the
// best `most_pairs` pairs of a candidate and a class, and of two equal scores the one that comes first
// in the file. Nothing depends on the order in which threads run: an atomic operation here counts, or
// puts a key on a list that is then sorted, and no two keys are equal.
//
// It works in rounds. A round lists the best pairs that are left, LIST at most, sorts them, and goes
// through them in that order. So shared memory does not grow with `most_pairs`, and the work ends when
// there are enough detections.

#define LIST 2048   // most pairs of a round; a power of two
#define GROUPS 32
#define BINS 1024   // GROUPS times GROUPS
#define AHEAD 8     // scores that a thread loads before it looks at the first

typedef unsigned long long Key;

// Falling keys are falling scores, and rising indices where scores are equal. Scores are positive, so
// their bits have the same order as they have.
static __device__ Key key_of(float score, unsigned int index)
{
    return (Key)(unsigned int)__float_as_int(score) << 32 | (unsigned int)~index;
}

// A side's length. The intrinsics keep the compiler from fusing a product and a sum.
static __device__ float extent(float low, float high, float one)
{
    return __fadd_rn(__fsub_rn(high, low), one);
}

static __device__ float area(float4 a, float one)
{
    return __fmul_rn(extent(a.x, a.z, one), extent(a.y, a.w, one));
}

// Whether the IoU of two boxes is above a threshold; `one` is 1 where corners are inclusive, or 0.
static __device__ bool overlap(float4 a, float4 b, float one, float threshold)
{
    const float width = fmaxf(extent(fmaxf(a.x, b.x), fminf(a.z, b.z), one), 0.0f);
    const float height = fmaxf(extent(fmaxf(a.y, b.y), fminf(a.w, b.w), one), 0.0f);
    const float both = __fmul_rn(width, height);
    const float either = __fsub_rn(__fadd_rn(area(a, one), area(b, one)), both);
    return both > __fmul_rn(either, threshold);
}

struct Shared {
    Key list[LIST];
    unsigned int alive[LIST / 32];  // a bit for each pair of the list
    int bins[BINS], groups[GROUPS];
    int found, border, above;
};

// Lists the keys from `low` to below `high`, as far as the list goes, and counts all of them in bins.
static __device__ void scan(
    Shared& s, const float* __restrict__ scores, int total, float threshold, Key low, Key high,
    int shift)
{
    const int step = blockDim.x;
    for (int begin = 0; begin < total; begin += AHEAD * step) {
        float some[AHEAD];
        for (int k = 0; k < AHEAD; ++k) {
            const int at = begin + k * step + threadIdx.x;
            some[k] = at < total ? scores[at] : 0.0f;
        }
        for (int k = 0; k < AHEAD; ++k) {
            if (some[k] > threshold) {
                const Key key = key_of(some[k], begin + k * step + threadIdx.x);
                if (low <= key && key < high) {
                    const int slot = atomicAdd(&s.found, 1);
                    if (slot < LIST) {
                        s.list[slot] = key;
                    }
                    atomicAdd(&s.bins[(key - low) >> shift], 1);
                }
            }
        }
    }
}

// Lists the best keys below `high` in any order, and returns how many. They are all that are above
// the threshold if these are at most LIST; else the list is filled as far as whole bins go.
static __device__ int list_best(
    Shared& s, const float* __restrict__ scores, int total, float threshold, Key high)
{
    Key low = (Key)(unsigned int)(__float_as_int(threshold) + 1) << 32;
    if (low >= high) {
        return 0;
    }
    while (true) {
        int shift = 0;
        while ((high - 1 - low) >> shift >= BINS) {
            ++shift;
        }
        for (int b = threadIdx.x; b < BINS; b += blockDim.x) {
            s.bins[b] = 0;
        }
        if (threadIdx.x == 0) {
            s.found = 0;
        }
        __syncthreads();
        scan(s, scores, total, threshold, low, high, shift);
        __syncthreads();
        const int found = s.found;
        if (found <= LIST) {
            return found;
        }
        // too many: look from the top for the first bin that the list has no room for
        for (int g = threadIdx.x; g < GROUPS; g += blockDim.x) {
            int sum = 0;
            for (int b = 0; b < GROUPS; ++b) {
                sum += s.bins[g * GROUPS + b];
            }
            s.groups[g] = sum;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int above = 0, g = GROUPS - 1;
            while (above + s.groups[g] <= LIST) {
                above += s.groups[g--];
            }
            int b = g * GROUPS + GROUPS - 1;
            while (above + s.bins[b] <= LIST) {
                above += s.bins[b--];
            }
            s.above = above;
            s.border = b;
        }
        __syncthreads();
        if (s.above > 0) {
            low += (Key)(s.border + 1) << shift;  // what is above that bin fits
        } else {
            const Key end = low + ((Key)(s.border + 1) << shift);
            low += (Key)s.border << shift;  // the bin alone is too much: divide it
            high = end < high ? end : high;
        }
    }
}

// Sorts the first n keys of the list, the largest first (bitonic sort).
static __device__ void sort(Shared& s, int n)
{
    int length = 2;
    while (length < n) {
        length *= 2;
    }
    for (int i = n + threadIdx.x; i < length; i += blockDim.x) {
        s.list[i] = 0;
    }
    for (int size = 2; size <= length; size *= 2) {
        for (int stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            for (int i = threadIdx.x; i < length / 2; i += blockDim.x) {
                const int a = 2 * i - (i & (stride - 1)), b = a + stride;
                const Key first = s.list[a], second = s.list[b];
                if ((first < second) == ((a & size) == 0)) {
                    s.list[a] = second;
                    s.list[b] = first;
                }
            }
        }
    }
    __syncthreads();
}

// The first pair from i on that is alive, or n.
static __device__ int next_alive(const Shared& s, int i, int n)
{
    while (i < n) {
        const unsigned int rest = s.alive[i / 32] >> (i % 32);
        if (rest != 0) {
            return i + __ffs(rest) - 1;
        }
        i = (i / 32 + 1) * 32;
    }
    return n;
}

// boxes (N, candidates, 4) xyxy; scores (N, candidates, classes) in 0 to 1; limits (4,) W, H, W, H to
// clip boxes to after NMS, or zeros where they are clipped already. The thresholds come as the bits of
// a float, because TensorRT passes whole numbers only. Of the outputs, count (N, 1), out_boxes
// (N, detections, 4), out_scores and out_classes (N, detections), rows after the count are zero.
extern "C" __global__ void __launch_bounds__(1024) retinart_nms(
    const float4* __restrict__ boxes, const float* __restrict__ scores,
    const float* __restrict__ limits, int candidates, int classes, int most_pairs, int detections,
    int score_bits, int nms_bits, int plus_one, int* count, float4* out_boxes, float* out_scores,
    int* out_classes)
{
    __shared__ Shared s;
    const float score_thresh = __int_as_float(score_bits), nms_thresh = __int_as_float(nms_bits);
    const float one = plus_one ? 1.0f : 0.0f;
    const int image = blockIdx.x, total = candidates * classes;
    boxes += (size_t)image * candidates;
    scores += (size_t)image * total;
    out_boxes += (size_t)image * detections;
    out_scores += (size_t)image * detections;
    out_classes += (size_t)image * detections;

    int kept = 0, pairs = most_pairs;  // detections so far; pairs that may still enter
    Key high = key_of(1.0f, 0) + 1;
    while (kept < detections && pairs > 0) {
        int n = list_best(s, scores, total, score_thresh, high);
        if (n == 0) {
            break;
        }
        sort(s, n);
        n = min(n, pairs);
        pairs -= n;
        high = s.list[n - 1];
        for (int w = threadIdx.x; w < LIST / 32; w += blockDim.x) {
            const int bits = min(max(n - 32 * w, 0), 32);
            s.alive[w] = bits == 32 ? ~0u : (1u << bits) - 1;
        }
        __syncthreads();
        // now the list takes (candidate, class), and what an earlier round suppresses goes
        for (int i = threadIdx.x; i < n; i += blockDim.x) {
            const unsigned int index = ~(unsigned int)s.list[i];
            const unsigned int row = index / classes, label = index - row * classes;
            s.list[i] = (Key)row << 32 | label;
            const float4 box = boxes[row];
            for (int k = 0; k < kept; ++k) {
                if (out_classes[k] == (int)label && overlap(out_boxes[k], box, one, nms_thresh)) {
                    atomicAnd(&s.alive[i / 32], ~(1u << (i % 32)));
                    break;
                }
            }
        }
        __syncthreads();
        for (int i = next_alive(s, 0, n); i < n && kept < detections; i = next_alive(s, i + 1, n)) {
            __syncthreads();  // before a bit changes, every thread has found i
            const Key pair = s.list[i];
            const int row = pair >> 32, label = (unsigned int)pair;
            const float4 box = boxes[row];
            if (threadIdx.x == 0) {
                out_boxes[kept] = box;
                out_scores[kept] = scores[(size_t)row * classes + label];
                out_classes[kept] = label;
            }
            ++kept;
            for (int j = i + 1 + threadIdx.x; j < n; j += blockDim.x) {
                const Key other = s.list[j];
                if ((unsigned int)other == (unsigned int)label &&
                    overlap(box, boxes[other >> 32], one, nms_thresh)) {
                    atomicAnd(&s.alive[j / 32], ~(1u << (j % 32)));
                }
            }
            __syncthreads();
        }
    }

    if (threadIdx.x == 0) {
        count[image] = kept;
    }
    const bool clip = limits[0] > 0.0f;
    for (int i = threadIdx.x; i < detections; i += blockDim.x) {
        if (i >= kept) {
            out_boxes[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            out_scores[i] = 0.0f;
            out_classes[i] = 0;
        } else if (clip) {
            float4 box = out_boxes[i];
            box.x = fmaxf(fminf(box.x, limits[0]), 0.0f);
            box.y = fmaxf(fminf(box.y, limits[1]), 0.0f);
            box.z = fmaxf(fminf(box.z, limits[2]), 0.0f);
            box.w = fmaxf(fminf(box.w, limits[3]), 0.0f);
            out_boxes[i] = box;
        }
    }
}
