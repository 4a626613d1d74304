// Reads and writes NumPy's .npy (format versions 1.0 to 3.0) and .npz files.
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/tensor.h"

namespace kshot::io {

using NpyArray = Tensor;

/// Reads one array. Column-major (Fortran) order is converted. Big-endian, text, object, complex
/// and structured arrays, and incomplete or damaged files, are Errors that name the file.
NpyArray read_npy(const std::filesystem::path& path);
void write_npy(const std::filesystem::path& path, const NpyArray& array);

/// Reads all arrays of an archive, stored or deflated, by name (without ".npy"). Errors name the
/// file and the entry.
std::map<std::string, NpyArray> read_npz(const std::filesystem::path& path);

/// The archive's array names (without ".npy"), sorted.
std::vector<std::string> npz_names(const std::filesystem::path& path);
/// Reads one array of an archive, and not the others. Throws Error where no array has that name.
NpyArray read_npz_array(const std::filesystem::path& path, const std::string& name);

enum class Compression { stored, deflated };
/// Writes what numpy.savez (or savez_compressed) writes. The same entries give the same bytes. The
/// archive is built in memory and then written atomically. Its comment says that kshot wrote it
/// (io/output_file.h).
void write_npz(const std::filesystem::path& path, const std::map<std::string, NpyArray>& entries,
               Compression compression = Compression::stored);

}  // namespace kshot::io
