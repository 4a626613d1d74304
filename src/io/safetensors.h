// The safetensors format (https://huggingface.co/docs/safetensors): named arrays and text metadata.
// kshot's checkpoints are such files.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "io/tensor.h"

namespace kshot::io {

struct SafeTensors {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;  ///< the header's `__metadata__`
};

/// Reads and validates a whole file: header, types, shapes, and that the tensors cover the data
/// without gaps or overlaps. A truncated file is an Error "checkpoint PATH is cut short: ...".
SafeTensors read_safetensors(const std::filesystem::path& path);

/// Writes atomically. The tensors are sorted by falling element size and then by name, so that each
/// is aligned to its elements (the data start at a multiple of 8). The same content gives the same
/// bytes.
void write_safetensors(const std::filesystem::path& path, const SafeTensors& content);

}  // namespace kshot::io
