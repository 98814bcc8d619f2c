// The parser as a function that ctypes calls.

#include "deepstream_parser.cpp"

// Writes class, score, left, top, width and height of each object, and returns their number; -1
// where the parser fails.
extern "C" int parse(const char *first, int *count, float *boxes, float *scores, int *classes,
                     unsigned int num_classes, float threshold, unsigned int width,
                     unsigned int height, float *out) {
    const std::vector<NvDsInferLayerInfo> layers = {{"detection_classes", classes},
                                                    {"detection_boxes", boxes},
                                                    {"detection_scores", scores},
                                                    {first, count}};
    std::vector<NvDsInferObjectDetectionInfo> found;
    const NvDsInferParseDetectionParams params = {num_classes,
                                                  std::vector<float>(num_classes, threshold)};
    if (!NvDsInferParseRetinart(layers, {width, height, 3}, params, found)) return -1;
    for (const auto &one : found)
        for (float value : {static_cast<float>(one.classId), one.detectionConfidence, one.left,
                            one.top, one.width, one.height})
            *out++ = value;
    return static_cast<int>(found.size());
}
