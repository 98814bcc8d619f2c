// Bilinear resize of one image onto its place in a batch, with padding at the right and bottom.
// One thread makes one pixel. Centres of pixels lie at one half, and the image's edge goes on outside
// of it. See engine/model/interpolate.py for the two forms.

// The pixels of one axis that Pillow averages for pixel i, and what their weights depend on.
struct Reach {
    double centre, reach, sum;
    int first, end;
};

static __device__ double share(const Reach& r, int at)
{
    const double distance = at + 0.5 - r.centre;
    const double part = 1.0 - (distance < 0 ? -distance : distance) / r.reach;
    return part > 0 ? part : 0;
}

static __device__ Reach reach_of(int i, int source, int target)
{
    const double scale = (double)source / target;
    Reach r;
    r.centre = (i + 0.5) * scale;
    r.reach = scale > 1.0 ? scale : 1.0;
    r.first = max((int)(r.centre - r.reach + 0.5), 0);
    r.end = min((int)(r.centre + r.reach + 0.5), source);
    r.sum = 0;
    for (int at = r.first; at < r.end; ++at) {
        r.sum += share(r, at);
    }
    return r;
}

// A weight as a whole number of 22 bits; so are the sums, which start at one half.
static __device__ int weight(const Reach& r, int at)
{
    return (int)(share(r, at) / r.sum * 4194304.0 + 0.5);
}

static __device__ int to_8_bits(int sum)
{
    return min(max(sum >> 22, 0), 255);
}

// Pillow: across first, rounded to 8 bits, then down. An axis that keeps its length is copied.
static __device__ void average(
    const unsigned char* image, int image_h, int image_w, int h, int w, int x, int y,
    unsigned char* out)
{
    const Reach down = reach_of(y, image_h, h), across = reach_of(x, image_w, w);
    int sums[3] = {1 << 21, 1 << 21, 1 << 21};
    for (int row = down.first; row < down.end; ++row) {
        int parts[3] = {1 << 21, 1 << 21, 1 << 21};
        for (int column = across.first; column < across.end; ++column) {
            const unsigned char* pixel = image + 3 * ((size_t)image_w * row + column);
            const int weight_across = weight(across, column);
            for (int c = 0; c < 3; ++c) {
                parts[c] += weight_across * pixel[c];
            }
        }
        const int weight_down = weight(down, row);
        for (int c = 0; c < 3; ++c) {
            sums[c] += weight_down * to_8_bits(parts[c]);
        }
    }
    for (int c = 0; c < 3; ++c) {
        out[c] = to_8_bits(sums[c]);
    }
}

extern "C" __global__ void resize_to_frame(
    const unsigned char* __restrict__ image, int image_h, int image_w,
    unsigned char* __restrict__ frame, int frame_h, int frame_w,
    int h, int w, float scale_y, float scale_x,
    int pad_b, int pad_g, int pad_r, int like_pillow)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= frame_w || y >= frame_h) {
        return;
    }
    unsigned char* out = frame + 3 * ((size_t)y * frame_w + x);
    if (x >= w || y >= h) {
        out[0] = pad_b;
        out[1] = pad_g;
        out[2] = pad_r;
        return;
    }
    if (like_pillow) {
        average(image, image_h, image_w, h, w, x, y, out);
        return;
    }
    // in float32, step by step as gpu_resize.resize_like_gpu
    const float sy = fminf(fmaxf((y + 0.5f) * scale_y - 0.5f, 0.0f), image_h - 1.0f);
    const float sx = fminf(fmaxf((x + 0.5f) * scale_x - 0.5f, 0.0f), image_w - 1.0f);
    const int y0 = (int)sy, x0 = (int)sx;
    const int y1 = min(y0 + 1, image_h - 1), x1 = min(x0 + 1, image_w - 1);
    const float fy = sy - y0, fx = sx - x0;
    const unsigned char* above = image + 3 * (size_t)image_w * y0;
    const unsigned char* below = image + 3 * (size_t)image_w * y1;
    for (int c = 0; c < 3; ++c) {
        const float top = above[3 * x0 + c] * (1.0f - fx) + above[3 * x1 + c] * fx;
        const float bottom = below[3 * x0 + c] * (1.0f - fx) + below[3 * x1 + c] * fx;
        out[c] = (unsigned char)(top * (1.0f - fy) + bottom * fy + 0.5f);
    }
}
