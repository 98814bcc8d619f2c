// Bilinear resize of one image onto its place in a batch, with padding at the right and bottom.
// One thread makes one pixel. Centres of pixels lie at one half, and the image's edge goes on outside
// of it. See engine/model/interpolate.py for the three forms.

enum Form { OPENCV, PILLOW, FLOAT };

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

// The two pixels of one axis that OpenCV blends for pixel i, and the second's share.
struct Between {
    int first, second;
    float share;
};

// Beyond the outermost centres both pixels are the edge's. Down the image OpenCV still divides them
// between two weights, which rounds otherwise than one weight.
static __device__ Between between(int i, int source, int target, bool keep_share)
{
    const double scale = 1.0 / ((double)target / source);
    const float at = (float)((i + 0.5) * scale - 0.5);
    const int first = (int)floorf(at);
    const bool inside = first >= 0 && first < source - 1;
    Between b;
    b.first = min(max(first, 0), source - 1);
    b.second = min(max(first + 1, 0), source - 1);
    b.share = inside || keep_share ? at - first : 0.0f;
    return b;
}

// A share as a whole number of 11 bits.
static __device__ int weight_of(float share)
{
    return __float2int_rn(share * 2048.0f);
}

extern "C" __global__ void resize_to_frame(
    const unsigned char* __restrict__ image, int image_h, int image_w,
    unsigned char* __restrict__ frame, int frame_h, int frame_w,
    int h, int w, int pad_b, int pad_g, int pad_r, int form)
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
    if (form == PILLOW) {
        average(image, image_h, image_w, h, w, x, y, out);
        return;
    }
    const Between down = between(y, image_h, h, form == OPENCV);
    const Between across = between(x, image_w, w, false);
    const unsigned char* above = image + 3 * (size_t)image_w * down.first;
    const unsigned char* below = image + 3 * (size_t)image_w * down.second;
    const int left = 3 * across.first, right = 3 * across.second;
    if (form == OPENCV) {
        const int to_left = weight_of(1.0f - across.share), to_right = weight_of(across.share);
        const int up = weight_of(1.0f - down.share), under = weight_of(down.share);
        for (int c = 0; c < 3; ++c) {
            const int top = above[left + c] * to_left + above[right + c] * to_right;
            const int bottom = below[left + c] * to_left + below[right + c] * to_right;
            out[c] = (((up * (top >> 4)) >> 16) + ((under * (bottom >> 4)) >> 16) + 2) >> 2;
        }
        return;
    }
    for (int c = 0; c < 3; ++c) {
        const float top = above[left + c] * (1.0f - across.share) + above[right + c] * across.share;
        const float bottom =
            below[left + c] * (1.0f - across.share) + below[right + c] * across.share;
        out[c] = __float2int_rn(top * (1.0f - down.share) + bottom * down.share);
    }
}
