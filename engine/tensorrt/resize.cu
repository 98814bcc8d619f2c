// Bilinear resize of one image onto its place in a batch, with padding at the right and bottom.
// One thread makes one pixel. The arithmetic is that of gpu_resize.resize_like_gpu, step by step.
extern "C" __global__ void resize_to_frame(
    const unsigned char* __restrict__ image, int image_h, int image_w,
    unsigned char* __restrict__ frame, int frame_h, int frame_w,
    int h, int w, float scale_y, float scale_x,
    int pad_b, int pad_g, int pad_r)
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
    // centres of pixels lie at one half, as in OpenCV; the image's edge goes on outside of it
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
