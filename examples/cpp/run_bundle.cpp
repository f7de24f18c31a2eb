// Replays the PNG goldens of a PyImgAno bundle, then scores PNG pictures.
//
//     run_bundle BUNDLE [--category C] [IMAGE.png ...]
//
// stdout: one JSON row a picture; stderr: sentences. Exit code: the first true of
// 3 bundle refused, 5 a golden disagrees or none could be judged, 4 an IMAGE could not
// be scored, 0; 2 usage.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle.hpp"
#include "png_pixels.hpp"

struct ModelError : std::runtime_error {
  using runtime_error::runtime_error;
};

struct Result {
  float score;
  std::vector<float> map;  // empty where the model has none
  int64_t map_height = 0, map_width = 0;
};

using Tensors = std::map<string, Ort::Value>;

// One file: a whole graph, a backbone that categories share, or a category's head.
class Model {
 public:
  string image, score, map;            // empty where the model has none
  std::vector<string> takes, gives;    // features

  Model(const Bundle& bundle, const Ort::Env& environment, const string& name) {
    const auto model = field<Json>(bundle.config, Pointer("/models") / name);
    const auto part = [&](const char* key) { return field<Json>(model, Pointer(key)); };
    image = tensor_of(part("/inputs"), "image", "uint8");
    takes = features_of(part("/inputs"));
    gives = features_of(part("/outputs"));
    score = tensor_of(part("/outputs"), "score", "float32");
    map = tensor_of(part("/outputs"), "anomaly_map", "float32");
    file_ = field<string>(model, Pointer("/file"));
    const Bytes bytes = read_listed(bundle, file_, "model");

    Ort::SessionOptions options;
    // Bytes that begin like onnxruntime's own format are not to be taken as such, and
    // external data is not to be looked for in the current directory.
    options.AddConfigEntry("session.load_model_format", "ONNX");
    options.AddConfigEntry("session.model_external_initializers_file_folder_path",
                           "/dev/null/none");
    try {
      session_ = Ort::Session(environment, bytes.data(), bytes.size(), options);
    } catch (const Ort::Exception& cause) {
      refuse(file_ + ": onnxruntime refuses the model (" + cause.what() + ")");
    }
    for (const auto* list : {&takes, &gives})
      for (const string& tensor : *list) must_have(tensor);
    for (const string& tensor : {image, score, map}) must_have(tensor);
  }

  // Adds what the model gives to the tensors that are there.
  void run(Tensors& tensors) {
    std::vector<const char*> inputs, outputs;
    std::vector<OrtValue*> values;
    const auto take = [&](const string& name, const string& key) {
      inputs.push_back(name.c_str());
      values.push_back(tensors.at(key));
    };
    if (!image.empty()) take(image, "image");
    for (const string& name : takes) take(name, FEATURES + name);
    for (const string& name : gives) outputs.push_back(name.c_str());
    for (const string* name : {&score, &map})
      if (!name->empty()) outputs.push_back(name->c_str());
    std::vector<OrtValue*> found(outputs.size(), nullptr);
    try {
      Ort::ThrowOnError(Ort::GetApi().Run(session_, nullptr, inputs.data(), values.data(),
                                          values.size(), outputs.data(), outputs.size(),
                                          found.data()));
    } catch (const Ort::Exception& cause) {
      throw ModelError(file_ + ": cannot score a picture (" + cause.what() + ")");
    }
    for (size_t i = 0; i < found.size(); i++) {
      const bool features = i < gives.size();
      const string key = features            ? FEATURES + gives[i]
                         : i == gives.size() ? "score"
                                             : "anomaly_map";
      tensors.insert_or_assign(key, Ort::Value(found[i]));
    }
  }

 private:
  inline static const string FEATURES = "features ";  // no other key has a space
  Ort::Session session_{nullptr};
  string file_;

  void must_have(const string& tensor) const {
    auto names = session_.GetInputNames();
    for (const string& output : session_.GetOutputNames()) names.push_back(output);
    if (!tensor.empty() && std::ranges::find(names, tensor) == names.end())
      refuse(file_ + ": has no tensor \"" + tensor + "\"; export the bundle again");
  }
};

// The models of a category, in their order.
class Chain {
 public:
  Chain(const Bundle& bundle, const Category& category) {
    std::set<string> given;
    for (const string& name : category.graph) {
      const Model& model = models_.emplace_back(bundle, environment_, name);
      const bool first = models_.size() == 1;
      const bool last = models_.size() == category.graph.size();
      const bool fed = std::ranges::all_of(
          model.takes, [&](const string& tensor) { return given.contains(tensor); });
      if (first == model.image.empty() || last == model.score.empty() || !fed)
        refuse(CONFIG + ": categories." + category.name + ".graph: \"" + name +
               "\" does not fit: the first takes the image, the last gives the score, "
               "and features come from models before; export the bundle again");
      given.insert(model.gives.begin(), model.gives.end());
    }
  }

  Result run(Picture& picture) {
    const int64_t shape[] = {1, picture.height, picture.width, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Tensors tensors;
    tensors.emplace("image", Ort::Value::CreateTensor<uint8_t>(
                                 memory, picture.rgb.data(), picture.rgb.size(), shape, 4));
    for (Model& model : models_) model.run(tensors);
    Result result{tensors.at("score").GetTensorData<float>()[0], {}};
    const auto map = tensors.find("anomaly_map");
    if (map == tensors.end()) return result;
    const auto sides = map->second.GetTensorTypeAndShapeInfo().GetShape();  // 1, h, w
    const float* values = map->second.GetTensorData<float>();
    result.map_height = sides.at(1);
    result.map_width = sides.at(2);
    result.map.assign(values, values + sides.at(1) * sides.at(2));
    return result;
  }

 private:
  Ort::Env environment_{ORT_LOGGING_LEVEL_FATAL, "run_bundle"};
  std::deque<Model> models_;
};

// The one threshold rule, in float32.
bool is_anomaly(double score, double threshold) { return float(score) >= float(threshold); }

double relative_difference(double found, double expected) {
  const double tiny = std::numeric_limits<float>::min();
  return std::abs(found - expected) / std::max({std::abs(found), std::abs(expected), tiny});
}

// The largest |difference| of two maps as a share of the expected map's range.
double difference_of_range(const std::vector<float>& found,
                           const std::vector<float>& expected) {
  double largest = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    const double difference = std::abs(double(found[i]) - expected[i]);
    if (std::isnan(difference)) return difference;  // std::max would lose it
    largest = std::max(largest, difference);
  }
  const auto [low, high] = std::ranges::minmax(expected);
  // A flat map has no range: a thousandth of its largest value stands in.
  const double flat = std::max(std::abs(low), std::abs(high)) * 1e-3;
  return largest /
         std::max({double(high) - low, flat, double(std::numeric_limits<float>::min())});
}

Json row_of(const string& input, const Category& category, float score) {
  const char* label = is_anomaly(score, category.threshold) ? "anomaly" : "normal";
  return {{"input", input},
          {"category", category.name},
          {"score", score},
          {"threshold", category.threshold},
          {"label", label}};
}

// The row of a golden; `agrees` is null where only the decoder differs.
Json replay(const Bundle& bundle, const Category& category, Chain& model,
            const Json& golden) {
  const auto image = field<string>(golden, Pointer("/image"));
  const auto expected = field<double>(golden, Pointer("/score"));
  const Json rules = field<Json>(bundle.config, Pointer("/input"));
  const auto tolerances = field<Json>(bundle.config, Pointer("/parity/tolerances"));
  Picture picture = decode_png(read_listed(bundle, image, "golden_image"), rules, image);
  const Result result = model.run(picture);

  Json row = row_of(image, category, result.score);
  row["expected_score"] = expected;
  const double score_diff = relative_difference(result.score, expected);
  bool agrees = score_diff <= field<double>(tolerances, Pointer("/score_rel")) &&
                is_anomaly(result.score, category.threshold) ==
                    is_anomaly(expected, category.threshold);
  row["rel_diff"] = score_diff;
  row["map_diff_of_range"] = nullptr;
  if (!golden.at("map").is_null() && !result.map.empty()) {
    const auto path = field<string>(golden, Pointer("/map"));
    const Bytes stored = read_listed(bundle, path, "golden_map");
    const auto map = read_map(stored, result.map_height, result.map_width, path);
    const double map_diff = difference_of_range(result.map, map);
    row["map_diff_of_range"] = map_diff;
    agrees = agrees && map_diff <= field<double>(tolerances, Pointer("/map_of_range"));
  }
  row["agrees"] = agrees;
  if (sha256(picture.rgb.data(), picture.rgb.size()) !=
      field<string>(golden, Pointer("/pixels_sha256"))) {
    std::cerr << image << ": decoded to other pixels than at export; not judged\n";
    row["agrees"] = nullptr;
  }
  return row;
}

void print(const Json& row) {
  // A path that is no UTF-8 is shown with replacement characters.
  std::cout << row.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
}

int run(const string& folder, const std::optional<string>& wanted,
        const std::vector<string>& images) {
  const Bundle bundle = open_bundle(folder);
  const Category category = select_category(bundle.config, wanted);
  Chain model(bundle, category);

  int judged = 0, disagree = 0, failed = 0;
  for (const Json& golden : field<Json>(bundle.config, Pointer("/parity/goldens"))) {
    if (golden.value("category", "") != category.name) continue;
    if (const string image = golden.value("image", ""); !image.ends_with(".png")) {
      std::cerr << image << ": skipped, this example reads PNG only\n";
      continue;
    }
    const Json row = replay(bundle, category, model, golden);
    judged += !row["agrees"].is_null();
    disagree += row["agrees"] == false;
    print(row);
  }
  for (const string& image : images) {
    try {
      Picture picture = decode_png(read_file(image), bundle.config.at("input"), image);
      const float score = model.run(picture).score;
      if (!std::isfinite(score)) throw ModelError(image + ": the score is not finite");
      print(row_of(image, category, score));
    } catch (const std::runtime_error& cause) {
      failed++;
      print({{"input", image}, {"category", category.name}, {"error", cause.what()}});
    }
  }
  if (!judged) std::cerr << folder << ": no golden could be judged: nothing is proven\n";
  if (disagree || !judged) return 5;
  return failed ? 4 : 0;
}

int main(int count, char** values) {
  // Before the environment is made: onnxruntime may send telemetry otherwise.
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);
  std::vector<string> words(values + 1, values + count);
  std::optional<string> category;
  if (const auto flag = std::ranges::find(words, "--category"); flag != words.end()) {
    if (flag + 1 != words.end()) category = flag[1];
    words.erase(flag, std::min(flag + 2, words.end()));
  }
  const bool option =
      std::ranges::any_of(words, [](const string& word) { return word.starts_with("-"); });
  if (words.empty() || option) {
    std::cerr << "usage: run_bundle BUNDLE [--category C] [IMAGE.png ...]\n";
    return 2;
  }
  try {
    return run(words[0], category, {words.begin() + 1, words.end()});
  } catch (const ModelError& cause) {
    std::cerr << "refused: " << cause.what() << "\n";
    return 5;
  } catch (const std::exception& cause) {  // of a golden, where it is an ImageError
    std::cerr << "refused: " << cause.what() << "\n";
    return 3;
  }
}
