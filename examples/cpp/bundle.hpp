// Reads a PyImgAno bundle: the document, then listed files that are proven to be so.
// The format is described in docs/bundle_format.md.

#pragma once

#include <openssl/evp.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;  // rows keep the order in which they are written
using Pointer = Json::json_pointer;
using Bytes = std::vector<unsigned char>;
using std::string;

static_assert(std::endian::native == std::endian::little, "maps are read as they lie");

constexpr int MAJOR = 1, MINOR = 3;
inline const string CONFIG = "infer_config.json", UPGRADE = "; take a newer reader";

struct BundleError : std::runtime_error {
  using runtime_error::runtime_error;
};

[[noreturn]] inline void refuse(const string& message) { throw BundleError(message); }

inline string sha256(const unsigned char* data, size_t size) {
  unsigned char digest[32];
  if (!EVP_Digest(data, size, digest, nullptr, EVP_sha256(), nullptr))
    throw std::runtime_error("OpenSSL could not compute a sha256");
  string text;
  for (unsigned char byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

inline Bytes read_file(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  Bytes bytes{std::istreambuf_iterator<char>(stream), {}};
  if (!stream) throw std::runtime_error(file.string() + ": cannot be read");
  return bytes;
}

// The value at a pointer such as "/models/part/file", as T; else the place is named.
template <class T>
T field(const Json& document, const Pointer& place) try {
  return document.at(place).get<T>();
} catch (const Json::exception& cause) {
  refuse(CONFIG + ": " + place.to_string() + ": " + cause.what() +
         "; export the bundle again");
}

struct Bundle {
  fs::path root;  // canonical
  Json config;
};

inline Bundle open_bundle(const string& folder) {
  std::error_code missing;
  const fs::path root = fs::canonical(folder, missing);
  if (missing) refuse(folder + ": " + missing.message() + ", expected a bundle folder");
  const string where = (root / CONFIG).string();
  Json config;
  try {
    config = Json::parse(read_file(where));
  } catch (const std::exception& cause) {
    refuse(where + ": is no readable JSON (" + cause.what() + "); copy the bundle again");
  }
  if (field<string>(config, Pointer("/schema")) != "pyimgano/infer_config")
    refuse(where + ": is of another schema; make one by \"pyimgano bundle export\"");
  const auto version = field<string>(config, Pointer("/schema_version"));
  std::smatch parts;
  const std::regex grammar("(0|[1-9][0-9]{0,3})\\.(0|[1-9][0-9]{0,3})");
  if (!std::regex_match(version, parts, grammar) || std::stoi(parts[1]) != MAJOR ||
      std::stoi(parts[2]) > MINOR)
    refuse(where + ": schema_version is \"" + version + "\", this reader takes 1.0 to 1." +
           std::to_string(MINOR) + UPGRADE);
  if (field<string>(config, Pointer("/kind")) != "bundle")
    refuse(where + ": kind is not \"bundle\"; export a run by \"pyimgano bundle export\"");
  if (const auto requires_ = field<std::vector<string>>(config, Pointer("/requires"));
      !requires_.empty())
    refuse(where + ": requires \"" + requires_.front() + "\", unknown here" + UPGRADE);
  const Json rules = {{"color_order", "RGB"},
                      {"bit_depth", 8},
                      {"exif", "apply"},
                      {"alpha", "drop"},
                      {"grey", "replicate"}};
  for (const auto& [rule, known] : rules.items())
    if (field<Json>(config, Pointer("/input") / rule) != known)
      refuse(where + ": input." + rule + " is not " + known.dump() + UPGRADE);
  return {root, config};
}

// The bytes of a listed file: a plain file with the listed size and sha256.
inline Bytes read_listed(const Bundle& bundle, const string& path, const string& role) {
  const auto files = field<Json>(bundle.config, Pointer("/files"));
  const auto entry = std::ranges::find_if(files, [&](const Json& file) {
    return file.value("path", "") == path && file.value("role", "") == role;
  });
  // At most 8 plain names of 120 characters, none a device of Windows.
  static const string name =
      "(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:[./]|$))"
      "[a-z0-9](?:[a-z0-9._-]{0,118}[a-z0-9_-])?";
  static const std::regex grammar(name + "(?:/" + name + "){0,7}", std::regex::icase);
  if (entry == files.end() || !std::regex_match(path, grammar))
    refuse(CONFIG + ": \"" + path + "\" is no listed " + role + " inside the bundle");
  const fs::path file = bundle.root / path;
  const string again = "; copy the whole bundle folder again";
  std::error_code problem;
  const fs::path real = fs::canonical(file, problem);
  if (problem) refuse(file.string() + ": " + problem.message() + again);
  if (real != file || !fs::is_regular_file(file) || fs::hard_link_count(file) > 1)
    refuse(file.string() + ": is a link or no regular file" + again);
  if (fs::file_size(file) != field<uintmax_t>(*entry, Pointer("/size")))
    refuse(file.string() + ": has another size than at export" + again);
  Bytes bytes = read_file(file);
  const string found = sha256(bytes.data(), bytes.size());
  const auto expected = field<string>(*entry, Pointer("/sha256"));
  if (found != expected)
    refuse(file.string() + ": sha256 is " + found + ", expected " + expected + again);
  return bytes;
}

// The values of a golden's map: .npy 1.0, float32, C order, this shape.
inline std::vector<float> read_map(const Bytes& bytes, int64_t height, int64_t width,
                                   const string& where) {
  const string shape = "(" + std::to_string(height) + ", " + std::to_string(width) + ")";
  const string expected =
      "{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }";
  const string start(bytes.begin(), bytes.begin() + std::min<size_t>(bytes.size(), 256));
  const size_t header = start.size() < 10 ? 0 : bytes[8] + 256 * bytes[9];
  const string magic("\x93NUMPY\x01\x00", 8);
  std::vector<float> values(height * width);
  if (!start.starts_with(magic) || start.compare(10, expected.size(), expected) ||
      bytes.size() != 10 + header + 4 * values.size())
    refuse(where + ": is no .npy file with header " + expected +
           "; export the bundle again");
  std::memcpy(values.data(), bytes.data() + 10 + header, 4 * values.size());
  return values;
}

struct Category {
  string name;
  std::vector<string> graph;  // models, in the order in which they run
  double threshold;
};

inline Category select_category(const Json& config, std::optional<string> wanted) {
  const auto all = field<Json>(config, Pointer("/categories"));
  string names;
  for (const auto& [name, _] : all.items()) names += " " + name;
  if (!wanted && all.size() == 1) wanted = all.items().begin().key();
  if (!wanted || !all.contains(*wanted)) {
    const string found = wanted ? "no \"" + *wanted + "\"" : "none was named (--category)";
    refuse(CONFIG + ": categories: " + found + "; it holds:" + names);
  }
  const Json category = field<Json>(all, Pointer() / *wanted);
  const string at = CONFIG + ": categories." + *wanted + ".";
  if (category.contains("tiling") && !category.at("tiling").is_null())
    refuse(at + "tiling: this reader knows none" + UPGRADE);
  // Regions that only explain change neither score nor label: they are left out.
  const Json regions = category.value("regions", Json());
  if (regions.is_object() && regions.value("policy", "image_threshold") != "image_threshold")
    refuse(at + "regions: this reader finds none" + UPGRADE);
  if (field<string>(category, Pointer("/thresholds/compare")) != ">=")
    refuse(at + "thresholds.compare: is not \">=\"" + UPGRADE);
  const auto graph = field<std::vector<string>>(category, Pointer("/graph"));
  if (graph.empty()) refuse(at + "graph: is empty; export the bundle again");
  return {*wanted, graph, field<double>(category, Pointer("/thresholds/image"))};
}

// The name of the one tensor of a kind; empty where there is none.
inline string tensor_of(const Json& tensors, const string& kind, const string& dtype) {
  string name;
  for (const Json& tensor : tensors) {
    if (tensor.value("kind", "") != kind) continue;
    if (!name.empty() || tensor.value("dtype", "") != dtype)
      refuse(CONFIG + ": models: expected at most one " + kind + ", of type " + dtype +
             UPGRADE);
    name = field<string>(tensor, Pointer("/name"));
  }
  return name;
}

// The names of the tensors of kind features, which go from model to model.
inline std::vector<string> features_of(const Json& tensors) {
  std::vector<string> names;
  for (const Json& tensor : tensors) {
    if (tensor.value("kind", "") != "features") continue;
    if (tensor.value("dtype", "") != "float32")
      refuse(CONFIG + ": models: expected features of type float32" + UPGRADE);
    names.push_back(field<string>(tensor, Pointer("/name")));
  }
  return names;
}
