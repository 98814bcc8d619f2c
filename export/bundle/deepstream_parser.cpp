// Reads the four outputs of a model of retinart for DeepStream's nvinfer and nvinferserver.
// In this folder, in DeepStream's container:
//
//     g++ -std=c++17 -O2 -shared -fPIC -o libretinart_parser.so deepstream_parser.cpp
//         -I /opt/nvidia/deepstream/deepstream/sources/includes -I /usr/local/cuda/include
//
// NMS is in the model, and boxes are in pixels of its input. DeepStream scales them to the frame.

#include <algorithm>
#include <string>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace {

template <typename T>
const T *values(const std::vector<NvDsInferLayerInfo> &layers, const std::string &name) {
    for (const auto &layer : layers)
        if (layer.layerName != nullptr && name == layer.layerName)
            return static_cast<const T *>(layer.buffer);
    return nullptr;
}

}  // namespace

extern "C" bool NvDsInferParseRetinart(std::vector<NvDsInferLayerInfo> const &layers,
                                       NvDsInferNetworkInfo const &network,
                                       NvDsInferParseDetectionParams const &params,
                                       std::vector<NvDsInferObjectDetectionInfo> &objects) {
    const auto *count = values<int>(layers, "num_detections");
    const auto *boxes = values<float>(layers, "detection_boxes");  // x1, y1, x2, y2
    const auto *scores = values<float>(layers, "detection_scores");
    const auto *classes = values<int>(layers, "detection_classes");
    if (count == nullptr || boxes == nullptr || scores == nullptr || classes == nullptr)
        return false;
    const auto width = static_cast<float>(network.width);
    const auto height = static_cast<float>(network.height);
    const auto &thresholds = params.perClassPreclusterThreshold;
    for (int i = 0; i < count[0]; ++i, boxes += 4) {
        const auto label = static_cast<unsigned int>(classes[i]);
        if (label >= params.numClassesConfigured) continue;
        if (label < thresholds.size() && scores[i] < thresholds[label]) continue;
        NvDsInferObjectDetectionInfo object{};
        object.classId = label;
        object.detectionConfidence = scores[i];
        object.left = std::clamp(boxes[0], 0.0F, width);
        object.top = std::clamp(boxes[1], 0.0F, height);
        object.width = std::clamp(boxes[2], 0.0F, width) - object.left;
        object.height = std::clamp(boxes[3], 0.0F, height) - object.top;
        if (object.width > 0 && object.height > 0) objects.push_back(object);
    }
    return true;
}
