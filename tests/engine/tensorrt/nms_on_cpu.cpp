// Runs the NMS kernel on a CPU: a thread for each thread of a block, a barrier for __syncthreads, and
// one block after the other. So a thread sanitizer sees what a missing barrier would let happen.
#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

struct Index { int x; };
struct float4 { float x, y, z, w; };
static thread_local Index blockIdx, threadIdx;
static Index blockDim;
// Two barriers in turn: with one, the sanitizer takes a thread that wakes up late for one that has seen
// what others did before the next barrier.
static pthread_barrier_t barriers[2];
static thread_local int turn;
static int left_out;  // the line of a barrier to go without, or -1

static void synchronize(int line)
{
    if (line != left_out) {
        pthread_barrier_wait(&barriers[turn]);
        turn = 1 - turn;
    }
}

#define __global__
#define __device__
#define __restrict__
#define __shared__ static
#define __launch_bounds__(threads)
#define __syncthreads() synchronize(__LINE__)
#define __ffs __builtin_ffs
#define __fadd_rn(a, b) ((a) + (b))
#define __fsub_rn(a, b) ((a) - (b))
#define __fmul_rn(a, b) ((a) * (b))
using std::max;
using std::min;

static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static int atomicAdd(int* at, int by) { return __atomic_fetch_add(at, by, __ATOMIC_RELAXED); }
static void atomicAnd(unsigned* at, unsigned by) { __atomic_fetch_and(at, by, __ATOMIC_RELAXED); }

static int __float_as_int(float value)
{
    int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float __int_as_float(int bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

#include "nms.cu"

extern "C" void nms_on_cpu(
    const float4* boxes, const float* scores, const float* limits, int candidates, int classes,
    int most_pairs, int detections, int score_bits, int nms_bits, int plus_one, int* count,
    float4* out_boxes, float* out_scores, int* out_classes, int images, int threads, int without)
{
    blockDim.x = threads;
    left_out = without;
    for (pthread_barrier_t& barrier : barriers) {
        pthread_barrier_init(&barrier, nullptr, threads);
    }
    std::vector<std::thread> block;
    for (int thread = 0; thread < threads; ++thread) {
        block.emplace_back([=] {
            threadIdx.x = thread;
            for (blockIdx.x = 0; blockIdx.x < images; ++blockIdx.x) {
                retinart_nms(boxes, scores, limits, candidates, classes, most_pairs, detections,
                             score_bits, nms_bits, plus_one, count, out_boxes, out_scores,
                             out_classes);
                synchronize(0);
            }
        });
    }
    for (std::thread& thread : block) {
        thread.join();
    }
    for (pthread_barrier_t& barrier : barriers) {
        pthread_barrier_destroy(&barrier);
    }
}

// The same as a program: `nms_on_cpu FILE LINE`, for the thread sanitizer. The file holds the whole
// numbers from `candidates` to `nms_bits`, the images and the threads, then boxes, scores and limits.
int main(int, char** arguments)
{
    std::FILE* file = std::fopen(arguments[1], "rb");
    int n[8];
    const auto read = [&](auto* to, size_t many) {
        if (std::fread(to, sizeof *to, many, file) != many) {
            std::exit(1);
        }
    };
    read(n, 8);
    const int candidates = n[0], classes = n[1], detections = n[3], images = n[6];
    std::vector<float4> boxes(images * candidates), out_boxes(images * detections);
    std::vector<float> scores(images * candidates * classes), out_scores(images * detections);
    std::vector<int> out_classes(images * detections), count(images);
    float limits[4];
    read(boxes.data(), boxes.size());
    read(scores.data(), scores.size());
    read(limits, 4);
    std::fclose(file);
    nms_on_cpu(boxes.data(), scores.data(), limits, candidates, classes, n[2], detections, n[4], n[5],
               0, count.data(), out_boxes.data(), out_scores.data(), out_classes.data(), images, n[7],
               std::atoi(arguments[2]));
}
