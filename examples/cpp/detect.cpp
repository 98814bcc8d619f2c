// Detect without Python: detect MODEL.onnx PICTURE.ppm [LEAST_SCORE]
//
// The file is the whole detector, so this only fills a frame and reads four outputs. The picture is a binary PPM
// (P6) of the size of the file's input, which `retinart inspect` prints. docs/one-file.md says how to resize others.
#include <openvino/openvino.hpp>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    std::size_t height = 0, width = 0;
    std::vector<std::uint8_t> rgb;  // in rows, three bytes a pixel
};

Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    Picture picture;
    int largest = 0;
    file >> kind >> picture.width >> picture.height >> largest;
    if (!file || kind != "P6" || largest != 255) throw std::runtime_error(path + " is not a binary PPM of 8 bits");
    file.get();  // one white space ends the header
    picture.rgb.resize(picture.height * picture.width * 3);
    file.read(reinterpret_cast<char*>(picture.rgb.data()), static_cast<std::streamsize>(picture.rgb.size()));
    if (!file) throw std::runtime_error(path + " ends early");
    return picture;
}

int main(int count, char** given) try {
    if (count < 3) throw std::runtime_error("usage: detect MODEL.onnx PICTURE.ppm [LEAST_SCORE]");
    const float least = count > 3 ? std::stof(given[3]) : 0.3F;

    ov::Core core;
    const auto model = core.read_model(given[1]);
    const auto shape = model->input("frames").get_partial_shape();  // N, H, W, 3
    if (shape[1].is_dynamic()) throw std::runtime_error("export the model with a fixed size");
    const auto height = static_cast<std::size_t>(shape[1].get_length());
    const auto width = static_cast<std::size_t>(shape[2].get_length());

    const auto picture = read_ppm(given[2]);
    if (picture.height != height || picture.width != width)
        throw std::runtime_error("the picture must be " + std::to_string(width) + "x" + std::to_string(height));

    ov::Tensor frame(ov::element::u8, {1, height, width, 3});
    auto* bgr = frame.data<std::uint8_t>();  // blue first, as OpenCV has it
    for (std::size_t i = 0; i < frame.get_size(); i += 3)
        for (std::size_t c = 0; c < 3; ++c) bgr[i + c] = picture.rgb[i + 2 - c];

    auto request = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32)).create_infer_request();
    request.set_tensor("frames", frame);
    request.infer();

    const auto found = request.get_tensor("num_detections").data<std::int32_t>()[0];
    const auto* boxes = request.get_tensor("detection_boxes").data<float>();
    const auto* scores = request.get_tensor("detection_scores").data<float>();
    const auto* classes = request.get_tensor("detection_classes").data<std::int32_t>();
    for (std::int32_t i = 0; i < found && scores[i] >= least; ++i)  // best first
        std::cout << classes[i] << ' ' << scores[i] << ' ' << boxes[4 * i] << ' ' << boxes[4 * i + 1] << ' '
                  << boxes[4 * i + 2] << ' ' << boxes[4 * i + 3] << '\n';
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
