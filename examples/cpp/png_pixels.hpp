// Decodes a PNG file to the pixels that a bundle's graph takes: uint8 RGB.

#pragma once

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle.hpp"

struct ImageError : std::runtime_error {
  using runtime_error::runtime_error;
};

struct Picture {
  int64_t height, width;
  Bytes rgb;
};

struct PngSource {
  const unsigned char *at, *end;
};

inline uint32_t big_endian(const unsigned char* at) {
  return uint32_t(at[0]) << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

// Fills `rows` with RGB. libpng jumps back to setjmp on damage, past every destructor:
// so whatever has one is made by the caller.
inline bool decode_rows(PngSource& source, std::vector<png_bytep>& rows, string& damage) {
  const auto fail = [](png_structp png, png_const_charp message) {
    *static_cast<string*>(png_get_error_ptr(png)) = message;
    png_longjmp(png, 1);
  };
  const auto ignore = [](png_structp, png_const_charp) {};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &damage, fail, ignore);
  png_infop info = png_create_info_struct(png);
  if (setjmp(png_jmpbuf(png))) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  png_set_read_fn(png, &source, [](png_structp reader, png_bytep to, size_t size) {
    auto& from = *static_cast<PngSource*>(png_get_io_ptr(reader));
    if (size > size_t(from.end - from.at)) png_error(reader, "the file ends early");
    std::memcpy(to, from.at, size);
    from.at += size;
  });
  png_read_info(png, info);
  // Alpha is dropped and gamma left alone: libpng's simplified API would apply both.
  png_set_expand(png);
  png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  png_read_image(png, rows.data());
  png_read_end(png, nullptr);
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

// A PNG file's pixels, uint8 RGB; size and kind are refused before decoding.
inline Picture decode_png(const Bytes& bytes, const Json& rules, const string& where) {
  const auto must = [&](bool accepted, const string& found) {
    if (!accepted) throw ImageError(where + ": " + found);
  };
  must(bytes.size() > 32 && !png_sig_cmp(bytes.data(), 0, 8), "is no PNG file");
  const int64_t width = big_endian(&bytes[16]), height = big_endian(&bytes[20]);
  const string size = std::to_string(height) + " x " + std::to_string(width);
  const auto limit = [&](const char* key) { return field<int64_t>(rules, Pointer(key)); };
  must(std::min(width, height) >= limit("/min_side"), size + " pixels: too small");
  must(width <= limit("/max_pixels") / std::max<int64_t>(height, 1),
       size + " pixels: too many");
  if (const Json wanted = rules.value("expected_size", Json()); !wanted.is_null())
    must(wanted == Json({height, width}), size + " pixels, expected " + wanted.dump());
  must(bytes[24] <= 8, "has 16 bits per channel, expected 8");
  for (size_t at = 8; at + 12 <= bytes.size(); at += 12 + big_endian(&bytes[at])) {
    const string chunk(&bytes[at + 4], &bytes[at + 8]);
    must(chunk != "eXIf" && chunk != "acTL",
         "has " + chunk + ", not handled here; save the picture plain");
  }
  Picture picture{height, width, Bytes(3 * height * width)};
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < height; y++) rows.push_back(&picture.rgb[3 * y * width]);
  PngSource source{bytes.data(), bytes.data() + bytes.size()};
  string damage;
  if (!decode_rows(source, rows, damage)) must(false, "is damaged (" + damage + ")");
  return picture;
}
