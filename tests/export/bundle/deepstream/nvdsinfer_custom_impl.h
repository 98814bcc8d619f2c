// Stands for DeepStream's header: the members that the parser uses.
#pragma once

#include <vector>

struct NvDsInferLayerInfo {
    const char *layerName;
    void *buffer;
};

struct NvDsInferNetworkInfo {
    unsigned int width, height, channels;
};

struct NvDsInferParseDetectionParams {
    unsigned int numClassesConfigured;
    std::vector<float> perClassPreclusterThreshold;
};

struct NvDsInferObjectDetectionInfo {
    unsigned int classId;
    float left, top, width, height;
    float detectionConfidence;
};
