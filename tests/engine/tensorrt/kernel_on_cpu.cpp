// Runs the resize kernel on a CPU, thread after thread, so that its arithmetic can be compared.
// Nothing of a GPU is in it: no rounding of its own, no memory, no order.
#include <algorithm>
#include <cmath>
#include <cstddef>

struct Index { int x, y; };
static Index blockIdx, blockDim, threadIdx;
#define __global__
#define __device__
#define __restrict__
#define __float2int_rn(value) (int)nearbyintf(value)
using std::max;
using std::min;

#include "resize.cu"

extern "C" void resize_on_cpu(
    const unsigned char* image, int image_h, int image_w, unsigned char* frame, int frame_h,
    int frame_w, int h, int w, int pad_b, int pad_g, int pad_r, int form)
{
    blockDim = {32, 8};
    for (blockIdx.y = 0; blockIdx.y * 8 < frame_h; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x * 32 < frame_w; ++blockIdx.x)
            for (threadIdx.y = 0; threadIdx.y < 8; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < 32; ++threadIdx.x)
                    resize_to_frame(image, image_h, image_w, frame, frame_h, frame_w, h, w,
                                    pad_b, pad_g, pad_r, form);
}
