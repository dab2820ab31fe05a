// Chunks to bytes and back: numbers of pairs in as few bytes as their sizes allow, nodes as they are.
#include <torch/csrc/stable/library.h>

#include "chunk.h"

namespace dissect {
namespace {

constexpr int64_t kAligned = 8;

// Where values, units, images, counts and places lie, one behind another, and where the last ends.
struct Spans {
  Spans(int64_t pairs, int64_t nodes, int64_t unit_bytes, int64_t image_bytes, int64_t count_bytes, int64_t place_bytes)
      : unit(behind(0, 4 * nodes)),
        image(behind(unit, unit_bytes * pairs)),
        count(behind(image, image_bytes * pairs)),
        place(behind(count, count_bytes * pairs)),
        end(place + place_bytes * nodes) {}

  static int64_t behind(int64_t first, int64_t size) { return (first + size + kAligned - 1) / kAligned * kAligned; }

  int64_t unit, image, count, place, end;
};

// Calls the body with an unsigned number of so many bytes.
template <typename Body>
void with_bytes(int64_t bytes, const char* name, const Body& body) {
  STD_TORCH_CHECK(bytes == 1 || bytes == 2 || bytes == 4, name, " must be 1, 2 or 4, got ", bytes);
  if (bytes == 1) {
    body(uint8_t{});
  } else if (bytes == 2) {
    body(uint16_t{});
  } else {
    body(uint32_t{});
  }
}

// The low bytes of the numbers number(0), number(1) …
template <typename Number>
void narrow(const Number& number, int64_t count, int64_t bytes, const char* name, uint8_t* to) {
  with_bytes(bytes, name, [&](auto tag) {
    auto* out = reinterpret_cast<decltype(tag)*>(to);
    for (int64_t i = 0; i < count; ++i) {
      out[i] = static_cast<decltype(tag)>(number(i));
    }
  });
}

void widen(const uint8_t* from, int64_t count, int64_t bytes, const char* name, int32_t* to) {
  with_bytes(bytes, name, [&](auto tag) {
    const auto* in = reinterpret_cast<const decltype(tag)*>(from);
    for (int64_t i = 0; i < count; ++i) {
      to[i] = static_cast<int32_t>(in[i]);
    }
  });
}

void check_bytes(const Tensor& bytes, const char* name, int64_t size) {
  check_tensor(bytes, name, "byte", ScalarType::Byte, {size});
  STD_TORCH_CHECK(
      reinterpret_cast<uintptr_t>(bytes.const_data_ptr()) % kAligned == 0, name, " (byte) must begin at a multiple of ",
      kAligned);
}

void pack(
    const Tensor& pair_unit, const Tensor& pair_image, const Tensor& pair_start, const Tensor& node_place,
    const Tensor& node_value, int64_t unit_bytes, int64_t image_bytes, int64_t count_bytes, Tensor out) {
  check_chunk(pair_unit, pair_image, pair_start, node_place, node_value);
  const int64_t pairs = pair_unit.size(0), nodes = node_value.size(0);
  with_place_type(node_place, [&](auto tag) {
    const int64_t place_bytes = sizeof(tag);
    const Spans at(pairs, nodes, unit_bytes, image_bytes, count_bytes, place_bytes);
    check_bytes(out, "out", at.end);
    uint8_t* to = out.mutable_data_ptr<uint8_t>();
    if (nodes) {
      memcpy(to, node_value.const_data_ptr(), static_cast<size_t>(4 * nodes));
      memcpy(to + at.place, node_place.const_data_ptr(), static_cast<size_t>(place_bytes * nodes));
    }
    const int32_t* unit = pair_unit.const_data_ptr<int32_t>();
    const int32_t* image = pair_image.const_data_ptr<int32_t>();
    const int32_t* start = pair_start.const_data_ptr<int32_t>();
    narrow([=](int64_t i) { return unit[i]; }, pairs, unit_bytes, "unit_bytes", to + at.unit);
    narrow([=](int64_t i) { return image[i]; }, pairs, image_bytes, "image_bytes", to + at.image);
    narrow([=](int64_t i) { return start[i + 1] - start[i]; }, pairs, count_bytes, "count_bytes", to + at.count);
  });
}

void unpack(
    const Tensor& data, int64_t nodes, int64_t unit_bytes, int64_t image_bytes, int64_t count_bytes,
    int64_t place_bytes, Tensor pair_unit, Tensor pair_image, Tensor pair_start) {
  check_tensor(pair_unit, "pair_unit", "pair", ScalarType::Int, {-1});
  const int64_t pairs = pair_unit.size(0);
  check_tensor(pair_image, "pair_image", "pair", ScalarType::Int, {pairs});
  check_tensor(pair_start, "pair_start", "pair + 1", ScalarType::Int, {pairs + 1});
  const Spans at(pairs, nodes, unit_bytes, image_bytes, count_bytes, place_bytes);
  check_bytes(data, "data", at.end);
  const uint8_t* from = data.const_data_ptr<uint8_t>();
  widen(from + at.unit, pairs, unit_bytes, "unit_bytes", pair_unit.mutable_data_ptr<int32_t>());
  widen(from + at.image, pairs, image_bytes, "image_bytes", pair_image.mutable_data_ptr<int32_t>());
  int32_t* start = pair_start.mutable_data_ptr<int32_t>();
  start[0] = 0;
  widen(from + at.count, pairs, count_bytes, "count_bytes", start + 1);
  uint32_t total = 0;  // what no one wrote may overflow: unsigned, and whoever follows it checks it
  for (int64_t i = 1; i <= pairs; ++i) {
    total += static_cast<uint32_t>(start[i]);
    start[i] = static_cast<int32_t>(total);
  }
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(dissect, CPU, m) {
  m.impl("pack", TORCH_BOX(&pack));
  m.impl("unpack", TORCH_BOX(&unpack));
}

}  // namespace dissect
